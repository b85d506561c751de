"""``msmae export``: a run's model for use where msmae is not installed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from msmae.config import require
from msmae.errors import UserError


def export(
    run: str,
    *,
    out: str | None = None,
    format: Literal["onnx"] = "onnx",
    keep: float | Literal["auto"] = 1.0,
    selector: str | None = None,
) -> str:
    """Write a run's classifier as one ONNX file: images in the files' own units in, class probabilities out.

    The file takes images of the model's size, any number at a time. Its probabilities are the network's own;
    `classes`, `calibration` and `keep` are in its metadata.

    Args:
        run: folder of a finished run.
        out: the file; RUN/model/model.onnx unless given.
        format: onnx.
        keep: share of the tokens that are encoded, in (0, 1], or `auto`: what `msmae budget` chose.
        selector: what chooses them: grid, self, early, merge or locator; the model's own unless given.

    Returns:
        The path of the file.

    Raises:
        UserError: no classifier, no ONNX packages, or a share or selector that cannot be exported.
    """
    require(format == "onnx", f"no format '{format}'", where="--format", mend="choose onnx")
    from msmae.inference.model import Model, calibration_at, kept_tokens, load, selection_with, share_and_selector
    from msmae.inference.onnx_file import Exported, write_onnx
    from msmae.runs.folder import check_writable

    model = load(run)
    if not isinstance(model, Model):
        raise UserError("only classifiers are exported", where=run, mend="name the run of a classifier")
    path = Path(out) if out else Path(run) / "model" / "model.onnx"
    check_writable(path.parent)
    require(not path.is_dir(), f"{path} is a folder", where="--out", mend="name a file, as model.onnx")
    share, name = share_and_selector(model, keep, selector)
    selection, card = selection_with(model.network, model.prepared, name), model.card
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(
        path,
        Exported(
            selection, kept=kept_tokens(selection, share), mean=card.mean, std=card.std, multilabel=card.multilabel
        ),
        image_shape=(card.channels, *card.image_size),
        metadata={
            "classes": card.classes,
            "calibration": calibration_at(card, share, name),
            "keep": {"selector": name, "keep": share},
            "reading": asdict(card)["reading"],
        },
    )
    print(f"  exported         {path}")
    return str(path)
