"""``msmae predict``: a run's model on new files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msmae.data.tables.listing import count
from msmae.errors import UserError
from msmae.verbs.begin import check_keep

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import Tensor

    from msmae.inference.bulk import Plan
    from msmae.inference.items import Item
    from msmae.inference.model import Model
    from msmae.inference.rows import Rows

TABLES, FOLDERS = ("predictions.csv", "predictions_patients.csv", "left_out.csv"), ("masks", "overlays", "dicom")
WRITES = TABLES + FOLDERS
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

    Where a CSV names patients (or the run's other units) with several images, OUT/predictions_patients.csv too.
    The same command goes on where it was killed, to the same files. Under torchrun, or srun of SLURM, the processes
    share the images; OUT must be a folder that all of them see. Of a segmentation run also OUT/masks (PNG, each of its
    image's size) and OUT/overlays.

    Args:
        run: folder of a finished run, or a model on the hub (hf://owner/name).
        paths: image files, folders that are searched for images, or CSV manifests as in training.
        out: folder for predictions.csv.
        keep: token share: the share of the patches that are encoded, in (0, 1], or `auto`: what `msmae budget` chose.
        selector: what chooses the patches: random, grid, self, early, merge, smaller or locator. Unless given: the
            model's own.
        sliding: for a segmentation run: read large images piece by piece, at their own resolution, instead of
            shrinking them. Use it only if the model was trained at that scale.
        batch_size: images predicted at a time.
        device: auto (a GPU where there is one), cpu, cuda, mps, ...
        precision: fp32, or bf16: up to twice as fast on some processors; probabilities differ by a few thousandths.
        slices: cut NIfTI volumes as in training: axial, coronal or sagittal; axial:5 takes every fifth slice. For other
            files with several images give a CSV with one row per image; its column frame says which.
        on_error: what happens at an unreadable image. stop: the command stops; skip: the image is left out and named
            in OUT/left_out.csv.
        answers: how a class is chosen. plain: the largest calibrated probability, or the run's thresholds; balanced:
            the largest probability before calibration, which finds more of the rare classes.
        coverage: adds the column `set`: a set of classes that contains the true one in this share of images like the
            validation images (0.9: 9 of 10).
        flags: adds the columns `flags` (unlike_training, doubtful, flat, unusual_brightness, other_modality) and
            `distance` from the training images.
        neighbours: adds the paths and labels of this many nearest training images.
        dicom: also write OUT/dicom for DICOM files with one frame: a structured report and an overlay (of a
            segmentation run: a segmentation object and an overlay). Needs the extra `dicom-out`.
        overwrite: replace the predictions in OUT; its other files stay.

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
    return None if made is None else read_predictions(made)


@functools.wraps(predict)
def command(run: str, paths: list[str], *, out: str, **options: Any) -> None:
    """As :func:`predict`, without the table in memory."""
    defaults: dict[str, Any] = predict.__kwdefaults__ or {}
    predict_to(run, paths, Path(out), **{**defaults, **options})


def predict_to(run: str, paths: list[str], out: Path, **options: Any) -> Path | None:
    """Write OUT/predictions.csv, and give back its path; None in a process that only helped."""
    if options["batch_size"] < 1:
        mend = "give at least 1"
        raise UserError(f"{count(options['batch_size'], 'image')} at a time", where="--batch_size", mend=mend)
    if options["on_error"] not in ("stop", "skip"):
        raise UserError(f"on_error is '{options['on_error']}'", where="--on_error", mend="say stop or skip")
    if options["neighbours"] < 0:
        raise UserError(f"{options['neighbours']} neighbours", where="--neighbours", mend="give 0 or more")
    check_keep(options["keep"], options["selector"])
    from msmae.inference.items import find_items
    from msmae.runs.folder import check_output
    from msmae.runs.lock import LOCK

    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    goes_on = "parts" in there or there <= {*FOLDERS, LOCK}  # as a killed command left it
    check_output(out, overwrite=options["overwrite"], writes=WRITES, goes_on=goes_on)
    from msmae.inference.hub_folder import run_folder, unit_of

    run = run_folder(run)
    unit = unit_of(Path(run))
    items = find_items(paths, on_error=options["on_error"], slices=options["slices"], unit=unit)
    from msmae.inference.bulk import Ranks, choose_device
    from msmae.inference.model import load
    from msmae.inference.segmentation import SegmentationModel

    if options["dicom"]:
        from msmae.evaluation.dicom_out import check_sources, import_highdicom

        import_highdicom()
        check_sources([item.source.path for item in items])
    ranks = Ranks.here()
    model = load(run, device=choose_device(options["device"], ranks), precision=options["precision"])
    if isinstance(model, SegmentationModel):
        return outline(run, model, items, out, ranks, options)
    if options["sliding"]:
        raise UserError("only a segmentation run looks piece by piece", where="--sliding", mend="leave it out")
    return answer(run, model, items, out, ranks, {**options, "unit": unit})


def outline(run: str, model: Any, items: list[Item], out: Path, ranks: Any, options: dict[str, Any]) -> Path | None:
    """What a segmentation run says of the files: OUT/predictions.csv; None in a process that only helped."""
    from msmae.data.reading.images import WHOLE
    from msmae.evaluation.write_masks import MOST, write_masks

    if options["keep"] != 1 or options["selector"]:
        raise UserError("outlining needs every patch", where="--keep", mend="leave it out")
    for name, plain in (("answers", "plain"), ("coverage", None), ("flags", False), ("neighbours", 0)):
        if options[name] != plain:
            raise UserError("a segmentation run answers no class", where=f"--{name}", mend="leave it out")
    if planes := [str(item) for item in items if item.source.plane != WHOLE]:
        mend = "write it to a file of its own"
        raise UserError("a segmentation run outlines whole files, and this names a part", where=planes[0], mend=mend)
    number = {item: place for place, item in enumerate(items)}

    def read(some: list[Item]) -> Tensor:
        images: Tensor = model.read([item.source.path for item in some])
        return images

    def rows(some: list[Item], images: Tensor) -> pd.DataFrame:
        files = {number[item]: Path(item.source.path) for item in some}
        return write_masks(model, files, images, out, sliding=options["sliding"])

    alone = {**options, "batch_size": 1}  # of a size of its own each
    plan = plan_of(run, model, items, alone, ("sliding",), most=MOST)
    predicted = in_parts(run, model, plan, out, ranks, options, read=read, rows=rows, doing="outlining")
    if predicted is None:
        return None
    print(f"{count(predicted, 'image')} outlined: {out / 'masks'}")
    say_left_out(out)
    return out / "predictions.csv"


def answer(run: str, model: Model, items: list[Item], out: Path, ranks: Any, options: dict[str, Any]) -> Path | None:
    """What a classifier says of the images: OUT/predictions.csv; None in a process that only helped."""
    from msmae.inference.items import planes_of
    from msmae.inference.model import kept_tokens, own_way, share_and_selector
    from msmae.statistics.answers import say_averaged, say_rule

    share, chosen_by = share_and_selector(model, options["keep"], options["selector"])
    kept_tokens(model.selection(chosen_by), share)  # refused before any image is read
    planes, own = planes_of(items), (share, chosen_by) == own_way(model.card)
    rows = rows_of(run, model, own=own, options={**options, "planes": planes})
    named = ("answers", "coverage", "flags", "neighbours")
    plan = plan_of(run, model, items, options, named, keep=share, selector=chosen_by)
    named_ones = any(item.unit or item.patient_id for item in items)
    patients = Patients(run, model) if named_ones and own else None
    if named_ones and not own and ranks.first:
        print("- no answers for patients: how to pool them was chosen from answers without --keep and --selector")
    predicted = in_parts(
        run, model, plan, out, ranks, options, read=reader(model), rows=rows, doing="predicting", patients=patients
    )
    if predicted is None:
        return None
    path = out / "predictions.csv"
    how = "" if chosen_by == "all" else f", {100 * share:.0f} % of the patches kept by {chosen_by}"
    if averaged := say_averaged(model.card.members, mirrored=model.card.mirrored):
        how += f", {averaged}"
    rule = say_rule(options["answers"], model.card.thresholds)
    print(f"{count(predicted, 'image')} predicted{how}, {rule} answers: {path}")
    say_left_out(out)
    say_columns(rows)
    return path


def plan_of(
    run: str, model: Any, items: list[Item], options: dict[str, Any], named: tuple[str, ...], *,
    most: int | None = None, **more: Any,
) -> Plan:  # fmt: skip
    """What is to be predicted, and all that the answers depend on: the model, and the options ``named``."""
    from msmae.inference.bulk import Plan
    from msmae.runs.checkpoint import file_sha256

    folder = model_folder(run)
    known = {
        "model": file_sha256(folder / "model.safetensors"),
        "card": file_sha256(folder / "config.json"),
        "device": model.device.type,
        **{name: options[name] for name in ("precision", "on_error", "dicom", *named)},
        **more,
    }
    return Plan(items, options["batch_size"], known, most)


def in_parts(
    run: str, model: Any, plan: Plan, out: Path, ranks: Any, options: dict[str, Any], *, read: Any, rows: Any,
    doing: str, patients: Patients | None = None,
) -> int | None:  # fmt: skip
    """Compute the parts of a plan, with what goes with each image, and join them: how many images; None in a process
    that only helped.
    """
    from msmae.inference.bulk import alone_in, check_plan, clear_parts, join_parts, part_of, predict_parts, wait_for
    from msmae.progress import ProgressBar
    from msmae.runs.folder import clear_output

    if patients is not None:
        rows = patients.beside(rows)
    if options["dicom"]:
        rows = with_dicom(run, model, plan.items, out, rows)
    predicted = 0
    with alone_in(out, ranks), ranks.together() as together:
        done = check_plan(plan, out)
        if done and ranks.first:
            print(f"- {out}: {done} of {plan.parts} parts are there; the rest follows")
        if options["overwrite"] and not done and ranks.first:
            clear_output(out, WRITES if ranks.waits else TABLES)  # others may have drawn already
        together()
        with ProgressBar(doing) as progress:
            predict_parts(
                plan, out, read=read, answer=rows, skip=options["on_error"] == "skip", ranks=ranks,
                progress=progress if ranks.first else lambda done, total: None,
            )  # fmt: skip
        together()
        if ranks.first:
            wait_for([part_of(out, number) for number in range(plan.parts)])
            predicted = join_parts(plan, out)
            if patients is not None:
                patients.write(plan, out)
            clear_parts(out)
        together()
    if options["dicom"] and ranks.first:
        print(f"{count(len(list((out / 'dicom').iterdir())), 'DICOM object')}: {out / 'dicom'}")
    return predicted if ranks.first else None


def with_dicom(run: str, model: Any, items: Sequence[Item], out: Path, rows: Any) -> Any:
    """``rows`` that also writes OUT/dicom: the answers as DICOM objects, numbered as the images are."""
    from msmae.evaluation.dicom_out import Origin, write_answers, write_outlines
    from msmae.inference.model import Model
    from msmae.runs.checkpoint import file_sha256

    origin = Origin(Path(run).resolve().name, file_sha256(model_folder(run) / "model.safetensors"))
    number = {item: place for place, item in enumerate(items)}

    def both(some: list[Item], images: Tensor) -> pd.DataFrame:
        frame: pd.DataFrame = rows(some, images)
        numbers = [number[item] for item in some]
        if isinstance(model, Model):
            write_answers(model, frame, out / "dicom", origin, numbers=numbers)
        else:
            write_outlines(model, frame, out, out / "dicom", origin, numbers=numbers)
        return frame

    return both


class Patients:
    """OUT/predictions_patients.csv of a classifier: the images' answers pooled as the run chose."""

    def __init__(self, run: str, model: Model) -> None:
        from msmae.evaluation.pooling import AttentionPooling
        from msmae.evaluation.units import Chosen
        from msmae.inference.hub_folder import WEIGHTS, known_of_patients

        known, weights, several = known_of_patients(Path(run)), model_folder(run) / WEIGHTS, model.card.multilabel
        attention = AttentionPooling.read(weights, multilabel=several) if known.get("pooling") == "attention" else None
        self.model, self.chosen = model, Chosen(known, model.card, attention)

    def beside(self, rows: Any) -> Any:
        """``rows``, with what attention needs of each image kept aside."""
        attention, model = self.chosen.attention, self.model
        if attention is None:
            return rows
        from msmae.evaluation.units import features_of
        from msmae.inference.bulk import ASIDE

        def both(some: list[Item], images: Tensor) -> pd.DataFrame:
            frame: pd.DataFrame = rows(some, images)
            terms = attention.terms(features_of(model, images))  # [B, 1 + K]
            return frame.assign(**{f"{ASIDE}{place}": terms[:, place] for place in range(terms.shape[1])})

        return both

    def write(self, plan: Plan, out: Path) -> None:
        """From the parts of a plan, where some patient has several images."""
        from msmae.evaluation.units import FILE, answer_units
        from msmae.inference.bulk import kept_aside
        from msmae.statistics.predictions import read_predictions, write_predictions

        frame, terms = read_predictions(out / "predictions.csv"), kept_aside(plan, out)
        table = answer_units(self.chosen, frame, self.model.classes, terms=terms)
        if table is not None:
            write_predictions(table, out / FILE)
            how = self.chosen.pooling if self.chosen.known else "the plain mean, as nothing is known of a run's pooling"
            print(f"{count(len(table), 'answer')} by {self.chosen.column} ({how}): {out / FILE}")


def model_folder(run: str) -> Path:
    """Where a run, or a folder of the hub, has its model."""
    return Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)


def say_left_out(out: Path) -> None:
    """How many images were left out, if any."""
    from msmae.inference.unreadable import FILE
    from msmae.statistics.predictions import read_text_table

    if (out / FILE).is_file():
        print(f"{count(len(read_text_table(out / FILE)), 'image')} left out, each with its reason: {out / FILE}")


def rows_of(run: str, model: Model, *, own: bool, options: dict[str, Any]) -> Rows:
    """What makes rows of a batch; sets and the reference of training images where they are asked for. ``own``: the
    model looks in its own way, as for RUN/predictions.csv."""
    from msmae.inference.reference import modalities_of, reference_of
    from msmae.inference.rows import Rows
    from msmae.inference.sets import sets_of_run

    asked, sets, reference = options["coverage"], None, None
    if asked is not None and not own:
        what = "sets are fitted on the answers that the model gives without --keep and --selector"
        raise UserError(what, where="--coverage", mend="leave --keep and --selector out")
    if asked is not None:
        sets = sets_of_run(Path(run), model.classes, multilabel=model.card.multilabel, coverage=asked)
    if options["flags"] or options["neighbours"]:
        reference = reference_of(Path(run), model)
    names = ("keep", "selector", "answers", "flags", "neighbours", "planes", "unit")
    known = modalities_of(Path(run)) if options["flags"] else frozenset()
    return Rows(model, sets=sets, reference=reference, modalities=known, **{name: options[name] for name in names})


def say_columns(rows: Rows) -> None:
    """What the columns that were asked for rest on."""
    known = "" if rows.sets is None else count(rows.sets.images, "validation image")
    if rows.sets is not None and rows.sets.level == 0:
        print(f"- set: every class, because {known} cannot give a coverage of {rows.sets.coverage:g}")
    elif rows.sets is not None:
        tested = (
            "" if rows.sets.on_test is None else f"; right for {100 * rows.sets.on_test:.1f} % of the run's test images"
        )
        print(f"- set: every class with a probability of {rows.sets.level:.3f} or more ({known}){tested}")
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
