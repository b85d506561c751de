"""``msmae predict``: a run's model on new files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msmae.data.tables.listing import count
from msmae.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from msmae.inference.model import Model
    from msmae.inference.unreadable import Unreadable


def predict(
    run: str,
    paths: list[str],
    *,
    out: str,
    keep: float | Literal["auto"] = 1.0,
    selector: str | None = None,
    sliding: bool = False,
    batch_size: int = 256,
    device: str = "cpu",
    precision: str = "fp32",
    on_error: Literal["stop", "skip"] = "stop",
    answers: Literal["plain", "balanced"] = "plain",
) -> Any:
    """Predict images with the model of a run and write OUT/predictions.csv.

    Of a segmentation run also OUT/masks (PNG, each of its image's size) and OUT/overlays.

    Args:
        run: folder of a finished run.
        paths: image files, or folders that are searched for images.
        out: folder for predictions.csv.
        keep: share of the tokens that are encoded, in (0, 1], or `auto`: what `msmae budget` chose.
        selector: what chooses the tokens: random, grid, self, early, merge or locator. Unless given: the model's own.
        sliding: for a segmentation run: read large images piece by piece, at their own resolution, instead of
            shrinking them. Use it only if the model was trained at that scale.
        batch_size: images predicted at a time.
        device: cpu, cuda, ...
        precision: fp32, or bf16: up to twice as fast on some processors; results differ by a few thousandths.
        on_error: what happens at an unreadable image. stop: the command stops; skip: the image is left out and named
            in OUT/left_out.csv.
        answers: how a class is chosen. plain: the largest calibrated probability, or the run's thresholds; balanced:
            the largest probability as trained, which finds more of the rare classes.

    Returns:
        The predictions as a table: image_path, predicted and a column prob_<class> for each class; of a segmentation
        run image_path, mask and a column share_<class>, the share of the image that the class covers.

    Raises:
        UserError: no model, no images, or images that cannot be read; those of a batch are all named.
    """
    if batch_size < 1:
        raise UserError(f"{batch_size} images at a time", where="--batch_size", mend="give at least 1")
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error is '{on_error}'", where="--on_error", mend="say stop or skip")
    from msmae.runs.folder import check_writable

    check_writable(Path(out))
    files = find_images(paths)
    if (Path(out) / "predictions.csv").exists():
        raise UserError("the folder holds predictions already", where=out, mend="choose another --out")
    import pandas as pd

    from msmae.evaluation.write_masks import write_masks
    from msmae.inference.model import load, share_and_selector
    from msmae.inference.segmentation import SegmentationModel
    from msmae.inference.unreadable import Unreadable
    from msmae.statistics.answers import say_rule
    from msmae.statistics.predictions import write_predictions

    model = load(run, device=device, precision=precision)
    unreadable = Unreadable(skip=on_error == "skip")
    if isinstance(model, SegmentationModel):
        if keep != 1 or selector:
            raise UserError("outlining needs every patch", where="--keep", mend="leave it out")
        if answers != "plain":
            raise UserError("a segmentation run answers no class", where="--answers", mend="leave it out")
        return write_masks(model, files, Path(out), sliding=sliding, unreadable=unreadable)
    if sliding:
        raise UserError("only a segmentation run looks piece by piece", where="--sliding", mend="leave it out")
    share, chosen_by = share_and_selector(model, keep, selector)
    readable, own = predict_files(model, files, unreadable, batch_size=batch_size, keep=keep, selector=selector)
    probabilities = model.calibrate(own, share, chosen_by).double()
    frame = pd.DataFrame({"image_path": [str(file) for file in readable]})
    for column in ("patient_id", "split", "label"):
        frame[column] = ""
    frame["predicted"] = model.answer(own, share, chosen_by, answers=answers)
    rule = say_rule(answers, model.card.thresholds)
    frame["answers"] = rule
    for name, values in zip(model.classes, probabilities.T, strict=True):
        frame[f"prob_{name}"] = values.numpy()
    Path(out).mkdir(parents=True, exist_ok=True)
    write_predictions(frame, Path(out) / "predictions.csv")
    how = "" if chosen_by == "all" else f", {share:.0%} of the tokens kept by {chosen_by}"
    print(f"{count(len(frame), 'image')} predicted{how}, {rule} answers: {Path(out) / 'predictions.csv'}")
    unreadable.write(Path(out))
    return frame


def predict_files(
    model: Model,
    files: list[Path],
    unreadable: Unreadable,
    *,
    batch_size: int,
    keep: float | Literal["auto"],
    selector: str | None,
) -> tuple[list[Path], Tensor]:
    """The files that can be read, and the network's own probabilities [n, C] of them.

    Raises:
        UserError: an image cannot be read and may not be left out, or none can be read.
    """
    import torch

    from msmae.inference.inputs import read_batch
    from msmae.progress import ProgressBar

    def read(some: list[Path]) -> Tensor:
        return read_batch(some, model.card, size=model.card.image_size)

    readable: list[Path] = []
    answers: list[Tensor] = []
    with ProgressBar("predicting") as progress:
        for start in range(0, len(files), batch_size):
            batch, pieces = unreadable.read(files[start : start + batch_size], read)
            if batch:
                readable += batch
                answers.append(model.predict(torch.cat(pieces), keep, selector=selector, calibrated=False))
            if len(files) > batch_size:
                progress(min(start + batch_size, len(files)), len(files))
    unreadable.check_any(len(readable))
    return readable, torch.cat(answers)


def find_images(paths: list[str]) -> list[Path]:
    """The files named, and the image files in the folders named, in order and once each; masks beside them left out.

    Raises:
        UserError: nothing was named, a path does not exist, or a folder holds no images.
    """
    from msmae.data.tables.folders import split_off_masks
    from msmae.data.tables.listing import list_folder

    if not paths:
        raise UserError("no images were named", mend="msmae predict RUN FILE_OR_FOLDER ... --out DIR")
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            images = list_folder(path).images
            if not images:
                raise UserError("the folder holds no images", where=str(path), mend="name another folder")
            inside, _ = split_off_masks(images)
            if len(inside) < len(images):
                print(f"- {path}: {count(len(images) - len(inside), 'mask')} beside an image, not predicted")
            found += [path / image for image in inside]
        elif path.suffix.lower() in (".csv", ".tsv"):
            raise UserError("a table, not an image", where=str(path), mend="name the files, or the folder they lie in")
        elif path.exists() or "#" in path.name:
            found.append(path)
        else:
            raise UserError("no such file or folder", where=str(path), mend="check the path")
    return list(dict.fromkeys(found))
