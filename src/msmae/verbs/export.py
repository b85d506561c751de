"""``msmae export``: a run's model for use where msmae is not installed."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msmae.config import require
from msmae.errors import UserError, nearest
from msmae.verbs.begin import check_keep

if TYPE_CHECKING:
    from msmae.inference.proof import Answer
    from msmae.inference.timm_file import PretrainedEncoder

FILES = {"onnx": "model.onnx", "timm": "model_timm.safetensors", "hub": "hub", "torch": "model.pt2"}
"""Format -> its file or folder, beside RUN/model unless --out names another."""


def export(
    run: str,
    *,
    out: str | None = None,
    format: Literal["onnx", "timm", "hub", "torch"] = "onnx",
    keep: float | Literal["auto"] = 1.0,
    selector: str | None = None,
    overwrite: bool = False,
) -> str:
    """Write a run's model as a file that other systems open: images in the files' own units in, probabilities out.

    The file then answers images of the run, and so does the model: the largest difference is printed, and above 1e-4
    the export fails.

    Args:
        run: folder of a finished run, or a model on the hub (hf://owner/name).
        out: the file, or the folder of the format hub. Unless given: model.onnx, model_timm.safetensors or model.pt2 in
            RUN/model, or RUN/hub.
        format: onnx: one file with normalisation, choice of the patches and calibration inside; segmenters too.
            torch: the same as a torch.export program (.pt2). timm: the weights by timm's names, as safetensors; of a
            run of `msmae pretrain` those of its encoder, without a head. hub: a folder for the Hugging Face hub, which
            msmae.load reads.
        keep: token share: the share of the patches that are encoded, in (0, 1], or `auto`: what `msmae budget` chose
            (onnx, torch).
        selector: what chooses the patches: grid, self, early, merge, smaller or locator. Unless given: the model's own
            (onnx, torch).
        overwrite: replace the file, or the folder of an earlier export, if it is there.

    Returns:
        The path of the file or folder.

    Raises:
        UserError: no model, no ONNX packages, a share or selector that cannot be exported, a head that timm does not
            have, or a file that does not say what the model says.
    """
    require(format in FILES, f"no format '{format}'", where="--format", mend=nearest(format, FILES))
    check_keep(keep, selector)
    whole = keep == 1 and selector is None
    require(
        whole or format in ("onnx", "torch"), f"{format} holds the whole model", where="--keep", mend="leave it out"
    )
    require(out is not None or not run.startswith("hf:"), "no place to write to", where="--out", mend="name one")
    from msmae.inference.hub_folder import run_folder
    from msmae.inference.model import Model, load
    from msmae.inference.proof import images_of, largest_difference
    from msmae.runs.folder import check_output, check_writable

    run = run_folder(run)
    encoder = _encoder_of(run)
    if encoder and format != "timm":
        raise UserError(
            "this run was pre-trained only, and has no head to export",
            where=run,
            mend="--format timm exports the encoder alone; `msmae finetune` gives it a head",
        )
    model = encoder or load(run)
    folder = Path(run) if format == "hub" or not (Path(run) / "model").is_dir() else Path(run) / "model"
    path = Path(out) if out else folder / FILES[format]
    if format == "hub":
        from msmae.inference.hub_folder import check_folder

        check_writable(path.parent)
        check_folder(path, overwrite=overwrite)
    else:
        check_output(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    images, whose = images_of(Path(run), model.card)
    says: Answer = model.predict
    if isinstance(model, Model):  # timm's file is the network alone
        says = partial(model.predict, keep=keep, selector=selector, calibrated=format != "timm")
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        file, by = WRITERS[format](Path(run), unfinished, model, keep, selector)
        largest = largest_difference(images, file, says)
        if path.is_dir():
            shutil.rmtree(path)  # empty, or an earlier export, as was checked
        os.replace(unfinished, path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)
    what = "feature" if encoder else "probability"
    shown = f"largest difference of a {what} {largest:.1e}, on {len(images)} {whose}"
    print(f"  checked          {by} against the model: {shown}")
    print(f"  exported         {path}")
    return str(path)


def _encoder_of(run: str) -> PretrainedEncoder | None:
    """The encoder of a run that was pre-trained only; None of any other."""
    from msmae.inference.timm_file import pretrained_encoder

    folder = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
    return pretrained_encoder(folder)


def _onnx(run: Path, path: Path, model: Any, keep: Any, selector: str | None) -> tuple[Answer, str]:
    from msmae.inference.exported import exported
    from msmae.inference.onnx_file import OnnxFile, write_onnx

    network, metadata = exported(model, keep, selector)
    write_onnx(path, network, image_shape=(model.card.channels, *model.card.image_size), metadata=metadata)
    return OnnxFile(path), "onnxruntime"


def _torch(run: Path, path: Path, model: Any, keep: Any, selector: str | None) -> tuple[Answer, str]:
    from msmae.inference.exported import exported
    from msmae.inference.torch_file import read_torch, write_torch

    network, metadata = exported(model, keep, selector)
    write_torch(path, network, image_shape=(model.card.channels, *model.card.image_size), metadata=metadata)
    return read_torch(path), "the program, read back,"


def _timm(run: Path, path: Path, model: Any, keep: Any, selector: str | None) -> tuple[Answer, str]:
    from msmae.inference.exported import described
    from msmae.inference.segmentation import SegmentationModel
    from msmae.inference.timm_file import PretrainedEncoder, TimmFile, write_timm

    if isinstance(model, SegmentationModel):
        raise UserError("timm has no segmenters", where="--format timm", mend="export as onnx, torch or hub")
    if model.card.members > 1 or model.card.mirrored:
        raise UserError("timm averages no answers", where="--format timm", mend="export as onnx, torch or hub")
    headless = {"task": "features"} if isinstance(model, PretrainedEncoder) else {}
    write_timm(path, model.network, model.card, metadata=described(model.card) | headless)
    file = TimmFile(path, model.card, model.network)
    return file, file.by


def _hub(run: Path, path: Path, model: Any, keep: Any, selector: str | None) -> tuple[Answer, str]:
    from msmae.inference.hub_folder import write_folder
    from msmae.inference.model import load

    write_folder(run, path, model.card)
    answer: Answer = load(path).predict
    return answer, "the folder, loaded by msmae.load,"


WRITERS = {"onnx": _onnx, "timm": _timm, "hub": _hub, "torch": _torch}
"""Format -> what writes it and reads it back: what the file answers, and who asks it, in words."""
