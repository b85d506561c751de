"""``msmae predict``: a run's model on new files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msmae.data.tables.listing import count
from msmae.errors import UserError
from msmae.verbs.begin import check_keep

if TYPE_CHECKING:
    from msmae.inference.items import Item
    from msmae.inference.model import Model
    from msmae.inference.rows import Rows

WRITES = ("predictions.csv", "left_out.csv", "masks", "overlays", "dicom")
"""What OUT is given, beside the parts of unfinished work."""


def predict(
    run: str,
    paths: list[str],
    *,
    out: str,
    keep: float | Literal["auto"] = 1.0,
    selector: str | None = None,
    sliding: bool = False,
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "fp32",
    slices: str = "",
    on_error: Literal["stop", "skip"] = "stop",
    answers: Literal["plain", "balanced"] = "plain",
    coverage: float | None = None,
    flags: bool = False,
    neighbours: int = 0,
    dicom: bool = False,
    overwrite: bool = False,
) -> Any:
    """Predict images with the model of a run and write OUT/predictions.csv.

    The same command goes on where it was killed, to the same file. Under torchrun, or srun of SLURM, the processes
    share the images; OUT must be a folder that all of them see. Of a segmentation run also OUT/masks (PNG, each of its
    image's size) and OUT/overlays.

    Args:
        run: folder of a finished run.
        paths: image files, folders that are searched for images, or CSV manifests as in training.
        out: folder for predictions.csv.
        keep: share of the tokens that are encoded, in (0, 1], or `auto`: what `msmae budget` chose.
        selector: what chooses the tokens: random, grid, self, early, merge, smaller or locator. Unless given: the
            model's own.
        sliding: for a segmentation run: read large images piece by piece, at their own resolution, instead of
            shrinking them. Use it only if the model was trained at that scale.
        batch_size: images predicted at a time.
        device: auto (a GPU where there is one), cpu, cuda, mps, ...
        precision: fp32, or bf16: up to twice as fast on some processors; results differ by a few thousandths.
        slices: cut NIfTI volumes as in training: axial, coronal or sagittal; axial:5 takes every fifth slice. Of other
            files with several images name one a row in a CSV, in the column frame.
        on_error: what happens at an unreadable image. stop: the command stops; skip: the image is left out and named
            in OUT/left_out.csv.
        answers: how a class is chosen. plain: the largest calibrated probability, or the run's thresholds; balanced:
            the largest probability before calibration, which finds more of the rare classes.
        coverage: adds the column `set`: a set of classes that contains the true one in this share of images like the
            validation images (0.9: 9 of 10).
        flags: adds the columns `flags` (unlike_training, doubtful, flat, unusual_brightness, other_modality) and
            `distance` from the training images.
        neighbours: adds the paths and labels of so many nearest training images.
        dicom: also writes OUT/dicom, of DICOM files with one frame: a structured report and an overlay; of a
            segmentation run a segmentation object and an overlay (extra dicom-out).
        overwrite: replace the predictions that OUT holds, and let its other files be.

    Returns:
        The predictions as a table: image_path, predicted and a column prob_<class> for each class; of a segmentation
        run image_path, mask and a column share_<class>, the share of the image that the class covers. Nothing in the
        helper processes of several.

    Raises:
        UserError: no model, no images, or images that cannot be read; those of a batch are all named.
    """
    options = {name: value for name, value in locals().items() if name not in ("run", "paths", "out")}
    from msmae.statistics.predictions import read_predictions

    made = predict_to(run, paths, Path(out), **options)
    return read_predictions(made) if isinstance(made, Path) else made


@functools.wraps(predict)
def command(run: str, paths: list[str], *, out: str, **options: Any) -> None:
    """As :func:`predict`, without the table in memory."""
    defaults: dict[str, Any] = predict.__kwdefaults__ or {}
    predict_to(run, paths, Path(out), **{**defaults, **options})


def predict_to(run: str, paths: list[str], out: Path, **options: Any) -> Any:
    """Write OUT/predictions.csv, and give back its path (None in a helper process); of a segmentation run its table."""
    if options["batch_size"] < 1:
        mend = "give at least 1"
        raise UserError(f"{options['batch_size']} images at a time", where="--batch_size", mend=mend)
    if options["on_error"] not in ("stop", "skip"):
        raise UserError(f"on_error is '{options['on_error']}'", where="--on_error", mend="say stop or skip")
    if options["neighbours"] < 0:
        raise UserError(f"{options['neighbours']} neighbours", where="--neighbours", mend="give 0 or more")
    check_keep(options["keep"], options["selector"])
    from msmae.inference.items import find_items
    from msmae.runs.folder import check_output

    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    goes_on = "parts" in there or there <= {"masks", "overlays"}  # as a killed command left it
    check_output(out, overwrite=options["overwrite"], writes=WRITES, goes_on=goes_on)
    items = find_items(paths, on_error=options["on_error"], slices=options["slices"])
    from msmae.inference.bulk import Ranks, choose_device
    from msmae.inference.model import load
    from msmae.inference.segmentation import SegmentationModel
    from msmae.statistics.predictions import read_predictions

    if options["dicom"]:
        from msmae.evaluation.dicom_out import check_sources, import_highdicom

        import_highdicom()
        check_sources([item.source.path for item in items])
    ranks = Ranks.here()
    model = load(run, device=choose_device(options["device"], ranks), precision=options["precision"])
    if isinstance(model, SegmentationModel):
        frame = outline(model, items, out, options)
        if options["dicom"]:
            write_dicom(run, model, frame, out)
        return frame
    if options["sliding"]:
        raise UserError("only a segmentation run looks piece by piece", where="--sliding", mend="leave it out")
    path = answer(run, model, items, out, ranks, options)
    if options["dicom"] and path is not None:
        write_dicom(run, model, read_predictions(path), out)
    return path


def write_dicom(run: str, model: Any, frame: Any, out: Path) -> None:
    """OUT/dicom: the answers as DICOM objects beside predictions.csv."""
    from msmae.evaluation.dicom_out import Origin, write_answers, write_outlines
    from msmae.inference.model import Model
    from msmae.runs.checkpoint import file_sha256

    folder = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
    origin = Origin(Path(run).resolve().name, file_sha256(folder / "model.safetensors"))
    if isinstance(model, Model):
        written = write_answers(model, frame, out / "dicom", origin)
    else:
        written = write_outlines(model, frame, out, out / "dicom", origin)
    print(f"{count(written, 'DICOM object')}: {out / 'dicom'}")


def outline(model: Any, items: list[Item], out: Path, options: dict[str, Any]) -> Any:
    """What a segmentation run says of the files."""
    from msmae.data.reading.images import WHOLE
    from msmae.evaluation.write_masks import write_masks
    from msmae.inference.unreadable import Unreadable
    from msmae.runs.folder import clear_output

    if options["keep"] != 1 or options["selector"]:
        raise UserError("outlining needs every patch", where="--keep", mend="leave it out")
    for name, plain in (("answers", "plain"), ("coverage", None), ("flags", False), ("neighbours", 0)):
        if options[name] != plain:
            raise UserError("a segmentation run answers no class", where=f"--{name}", mend="leave it out")
    if options["overwrite"]:
        clear_output(out, WRITES)
    unreadable: Unreadable[Path] = Unreadable(skip=options["on_error"] == "skip")
    files = [Path(item.source.path) for item in items]
    if planes := [str(item) for item in items if item.source.plane != WHOLE]:
        mend = "write it to a file of its own"
        raise UserError("a segmentation run outlines whole files, and this names a part", where=planes[0], mend=mend)
    return write_masks(model, files, out, sliding=options["sliding"], unreadable=unreadable)


def answer(run: str, model: Model, items: list[Item], out: Path, ranks: Any, options: dict[str, Any]) -> Path | None:
    """What a classifier says of the images: OUT/predictions.csv; None in a process that only helped."""
    from msmae.inference.bulk import Plan, check_plan, join_parts, predict_parts, wait_for_parts
    from msmae.inference.model import kept_tokens, share_and_selector
    from msmae.progress import ProgressBar
    from msmae.runs.checkpoint import file_sha256
    from msmae.runs.folder import clear_output
    from msmae.statistics.answers import say_averaged, say_rule

    share, chosen_by = share_and_selector(model, options["keep"], options["selector"])
    kept_tokens(model.selection(chosen_by), share)  # refused before any image is read
    rows = rows_of(run, model, share_is_whole=chosen_by == "all", options=options)
    folder = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
    named = ("precision", "answers", "coverage", "flags", "neighbours", "on_error")
    plan = Plan(
        items,
        options["batch_size"],
        {
            "model": file_sha256(folder / "model.safetensors"),
            "card": file_sha256(folder / "config.json"),
            "device": model.device.type,
            "keep": share,
            "selector": chosen_by,
            **{name: options[name] for name in named},
        },
    )
    done = check_plan(plan, out)
    if options["overwrite"] and not done and ranks.first:
        clear_output(out, WRITES)
    if done and ranks.first:
        print(f"- {out}: {done} of {plan.parts} parts are there; the rest follows")
    with ranks.together() as together:
        with ProgressBar("predicting") as progress:
            predict_parts(
                plan, out, read=reader(model), answer=rows, skip=options["on_error"] == "skip", ranks=ranks,
                progress=progress if ranks.first else lambda done, total: None,
            )  # fmt: skip
        together()
        if ranks.first:
            wait_for_parts(plan, out)
            predicted, left_out = join_parts(plan, out)
        together()
    path = out / "predictions.csv"
    if not ranks.first:
        return None
    how = "" if chosen_by == "all" else f", {share:.0%} of the tokens kept by {chosen_by}"
    if averaged := say_averaged(model.card.members, mirrored=model.card.mirrored):
        how += f", {averaged}"
    rule = say_rule(options["answers"], model.card.thresholds)
    print(f"{count(predicted, 'image')} predicted{how}, {rule} answers: {path}")
    if left_out:
        print(f"{count(left_out, 'image')} left out, each with its reason: {out / 'left_out.csv'}")
    say_columns(rows)
    return path


def rows_of(run: str, model: Model, *, share_is_whole: bool, options: dict[str, Any]) -> Rows:
    """What makes rows of a batch; sets and the reference of training images where they are asked for."""
    from msmae.inference.reference import modalities_of, reference_of
    from msmae.inference.rows import Rows
    from msmae.inference.sets import sets_of_run

    asked, sets, reference = options["coverage"], None, None
    if asked is not None and not share_is_whole:
        raise UserError("sets are fitted on answers from all patches", where="--coverage", mend="leave --keep out")
    if asked is not None:
        sets = sets_of_run(Path(run), model.classes, multilabel=model.card.multilabel, coverage=asked)
    if options["flags"] or options["neighbours"]:
        reference = reference_of(Path(run), model)
    names = ("keep", "selector", "answers", "flags", "neighbours")
    known = modalities_of(Path(run)) if options["flags"] else frozenset()
    return Rows(model, sets=sets, reference=reference, modalities=known, **{name: options[name] for name in names})


def say_columns(rows: Rows) -> None:
    """What the columns that were asked for rest on."""
    if rows.sets is not None and rows.sets.level == 0:
        few = f"{rows.sets.images:,} validation images are too few for a coverage of {rows.sets.coverage:g}"
        print(f"- set: {few}: every set holds every class")
    elif rows.sets is not None:
        tested = "" if rows.sets.on_test is None else f"; right of {rows.sets.on_test:.1%} of the run's test images"
        print(f"- set: every class from {rows.sets.level:.3f}, from {rows.sets.images:,} validation images{tested}")
    if rows.flags and rows.reference is not None:
        print(f"- {rows.reference.says()}")


def reader(model: Model) -> Any:
    """Items -> their images, float [B, channels, H, W] in the files' own units, at the model's size."""
    import torch

    from msmae.data.reading.images import Reading, load_images
    from msmae.inference.inputs import check_images, check_numbers

    card = model.card
    reading = Reading(**card.reading)

    def read(items: list[Item]) -> torch.Tensor:
        sources = [item.source for item in items]
        pixels = load_images(
            sources, size=card.image_size, channels=card.channels, reading=reading, smallest=card.patch_size
        )
        check_numbers(card, pixels.dtype.name, [source.path for source in sources])
        images = torch.as_tensor(pixels).float()
        check_images(images, channels=card.channels)
        return images

    return read
