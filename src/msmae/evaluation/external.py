"""``msmae evaluate RUN DATA2 --out DIR``: a finished model on a data set of another origin, with the same report.

DIR holds the same files as an evaluated run. Its figures keep three kinds of images apart: ``external`` (every
labelled image of DATA2), ``internal`` (the run's own test images, as the run predicted them) and ``val`` (on which the
temperature and the thresholds were chosen: nothing is fitted on the external images).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from msmae.config import Settings
from msmae.data.audit import Audit, describe_leakage
from msmae.data.audit.against import Pool, audit_against, digests_of
from msmae.data.manifest import Manifest, read_manifest
from msmae.data.opening import cache_folder, fingerprints, open_data, reading_of
from msmae.data.reading.decoding import common_channels, image_sources
from msmae.data.store import open_store
from msmae.data.tables.listing import count, some
from msmae.errors import LeakageError, UserError
from msmae.evaluation.evaluate import How, evaluate, summarised, write_labels
from msmae.evaluation.panels import draw_panels
from msmae.evaluation.units import FILE as UNITS
from msmae.evaluation.units import evaluate_units_elsewhere
from msmae.files import read_mapping, write_whole
from msmae.inference.inputs import check_numbers
from msmae.inference.model import Keep, Model, load, own_way, share_and_selector
from msmae.progress import ProgressBar
from msmae.reporting.papers import write_checklists, write_model_card
from msmae.reporting.report import write_report
from msmae.runs.checkpoint import file_sha256
from msmae.runs.folder import FORMAT_VERSION, check_writable, environment, read_run, write_json
from msmae.statistics.answers import DEFAULT, PLAIN, Rule, say_averaged, with_plain
from msmae.statistics.predictions import read_predictions, write_predictions
from msmae.statistics.units import check_unit
from msmae.training.decide import decide_order
from msmae.training.prepare import Prepared, data_fingerprint


def evaluate_elsewhere(
    run: Path,
    data: str,
    out: Path,
    *,
    settings: Settings,
    channels: int | None,
    allow_leakage: bool,
    keep: Keep = 1.0,
    selector: str | None = None,
    answers: Rule = DEFAULT,
) -> dict[str, Any]:
    """Predict DATA with the model of a run, and write its evidence into OUT; metrics.json comes last.

    ``channels``: the model's, where images of another number are to be converted knowingly. ``keep`` and
    ``selector``: as in ``Model.predict``; the internal images are then those of `msmae evaluate RUN --keep`.

    Returns the content of metrics.json.

    Raises:
        LeakageError: images or patients of DATA are in the run's training or validation split, and it is not allowed.
        UserError: labels or channels that do not fit the model, no labelled image, or files that cannot be read.
    """
    config, _ = read_run(run)
    check_writable(out)
    model = load(run)
    share, selector = share_and_selector(model, keep, selector)
    own = own_predictions(run, model, share=share, selector=selector)
    manifest, notes = open_external(data, model, settings)
    check_channels(manifest, model, wanted=channels)
    found, overlap = audit_against_pool(manifest, run, settings=settings, source=data)
    sentence = describe_leakage(found)
    told = "the external data overlap with the training or validation images: "
    told += sentence.removeprefix("the data leaks into the test split: ")
    if sentence and not allow_leakage:
        raise LeakageError(
            told,
            where=data,
            mend="leave these images out; rename patients who only share a number with the run's; --allow-leakage goes "
            "on, and says so in the report",
        )
    if sentence:
        print(f"- {told}: the figures cannot be trusted (--allow-leakage)")
    prepared = prepare_external(manifest, model, settings=settings, config=config)
    frame, rate = predict_external(model, prepared, share=share, selector=selector)
    out.mkdir(parents=True, exist_ok=True)
    (out / UNITS).unlink(missing_ok=True)  # of an earlier test
    describe(out, run, data=data, config=config, prepared=prepared, model=model)
    write_json(out / "audit.json", {**found.to_dict(), "notes": [*found.notes, *overlap]})
    draw_panels(prepared, out, shown_by(answers, frame, model), model=model)
    everything = with_plain(
        pd.concat([frame.assign(split="external"), own], ignore_index=True),
        model.classes,
        multilabel=model.card.multilabel,
        thresholds=model.card.thresholds,
    )
    write_predictions(everything, out / "predictions.csv")
    write_labels(everything, out, classes=model.classes, multilabel=model.card.multilabel)
    splits = summarised(everything, prepared, classes=model.classes, multilabel=model.card.multilabel)
    for figures in (splits["external"], splits["external"]["plain"]):
        figures["notes"] += [*notes, *overlap]
    metrics = {
        **{name: value for name, value in metrics_of(run).items() if name in ("task", "arm", "seed")},
        "external": {"data": Path(data.rstrip("/")).stem, "run": run.resolve().name},
        "model_sha256": file_sha256(weights_of(run)),
        "data_sha256": data_fingerprint(prepared),
        "answers": answers,
        "thresholds": model.card.thresholds,
        "averaged": say_averaged(model.card.members, mirrored=model.card.mirrored),
        "calibration": calibration_of(run),
        "splits": {name: splits[name] for name in ("external", "internal", "val") if name in splits},
        "keep": {"selector": selector, "keep": share},
        "cost": {**(metrics_of(run).get("cost") or {}), "images_per_s_predict": rate},
    }
    if (share, selector) == own_way(model.card):  # how the pooling was chosen
        patients = evaluate_units_elsewhere(everything, prepared, run, out, model=model)
        metrics |= {"patients": patients} if patients else {}
    write_json(out / "metrics.json", metrics)
    write_report(out)
    write_model_card(out)
    write_checklists(out)
    return metrics


def shown_by(answers: Rule, frame: pd.DataFrame, model: Model) -> pd.DataFrame:
    """The predictions with ``predicted`` by this rule."""
    if answers == "balanced":
        return frame
    card = model.card
    plain = with_plain(frame, model.classes, multilabel=card.multilabel, thresholds=card.thresholds)
    return plain.assign(predicted=plain[PLAIN])


def open_external(data: str, model: Model, settings: Settings) -> tuple[Manifest, list[str]]:
    """The external images, all of them test, their classes in the model's order; and sentences about classes without
    images. Whether the run's classes are grades is of no concern yet: DATA may hold one of them alone.

    Raises:
        UserError: DATA cannot be used, or its labels do not fit the model.
    """
    dataset = dataclasses.replace(settings.dataset, class_order="", ordinal=None)
    manifest = open_data(data, dataclasses.replace(settings, dataset=dataset))
    manifest = manifest.with_splits(["test"] * len(manifest))
    check_unit(settings.dataset.unit, manifest.table)
    notes = check_labels(manifest, model)
    return manifest.with_order([name for name in model.classes if name in manifest.classes]), notes


def check_labels(manifest: Manifest, model: Model) -> list[str]:
    """Hold the data's label map to the model's: sentences about classes without images.

    Raises:
        UserError: no label, a class the model does not know, or several labels per image where the model gives one.
    """
    if not manifest.classes:
        raise UserError(
            "no external image has a label: nothing can be measured",
            where=manifest.where,
            mend="name the label column (--dataset.label_column), or use `msmae predict`",
        )
    if manifest.multilabel and not model.card.multilabel:
        raise UserError(
            "the external images carry several labels each, and the model gives one",
            where=manifest.where,
            mend="give every image one label",
        )
    unknown = [name for name in manifest.classes if name not in model.classes]
    if unknown:
        raise UserError(
            f"the model knows no class {some(unknown)}; it knows {some(model.classes)}",
            where=manifest.where,
            mend=_rename(unknown, model.classes),
        )
    missing = [name for name in model.classes if name not in manifest.classes]
    return [f"the external data have no image of {some(missing)}"] if missing else []


def check_channels(manifest: Manifest, model: Model, *, wanted: int | None) -> None:
    """Raise ``UserError`` where the files have other channels than the model, unless the conversion is asked for."""
    expected = model.card.channels
    if wanted == expected:
        return
    found = common_channels(image_sources(manifest), workers=1)
    if found != expected:
        possible = {found, expected} == {1, 3}
        raise UserError(
            f"the external images have {count(found, 'channel')}, and the model was trained on {expected}",
            where=manifest.where,
            mend=f"convert them, or have it done with --model.channels {expected}" if possible else "convert them",
        )


def audit_against_pool(manifest: Manifest, run: Path, *, settings: Settings, source: str) -> tuple[Audit, list[str]]:
    """Audit the external images as the test split beside the run's training and validation images.

    Also gives sentences about what could not be compared, and about images that are the run's own test images.
    """
    pool = Pool(read_manifest(run / "manifest.csv"), settings)
    found = audit_against(manifest, [pool], settings=settings, source=source)
    theirs = fingerprints(pool.manifest, settings)
    lost = int((~theirs.readable[pool.learned]).sum())
    notes = []
    if lost:
        notes.append(
            f"{count(lost, 'image')} of the run's {len(pool.learned):,} training and validation images cannot be read "
            "here, and were not compared with the external images"
        )
    tested = digests_of(theirs.select(pool.manifest.ids("test")))
    external = fingerprints(manifest, settings)
    seen = sum(digest.tobytes() in tested for digest in external.record["digest"][external.readable])
    if seen:
        notes.append(f"{count(seen, 'external image')} the same as an internal test image: the two are not independent")
    return found, notes


def prepare_external(manifest: Manifest, model: Model, *, settings: Settings, config: dict[str, Any]) -> Prepared:
    """The external images, decoded as the model wants them, under the run's own settings."""
    store = open_store(
        manifest,
        size=model.card.image_size,
        channels=model.card.channels,
        cache=cache_folder() / "stores",
        reading=reading_of(settings),
        on_error=settings.dataset.on_error,
        progress=ProgressBar("decoding images"),
    )
    card = model.card
    check_numbers(card, store.images.dtype.name, [str(manifest.path(0)), "..."])
    return Prepared(
        manifest, store, decide_order(settings, manifest), config["method"], config["seed"], card.mean, card.std
    )


def predict_external(model: Model, prepared: Prepared, *, share: float, selector: str) -> tuple[pd.DataFrame, float]:
    """Predictions of every labelled external image, calibrated as the run's, and the images predicted in a second."""
    frame, rate = evaluate(model, prepared, How(keep=share, selector=selector, splits=("test",)))
    columns = [f"prob_{name}" for name in model.classes]
    own = torch.from_numpy(frame[columns].to_numpy(dtype=np.float64))
    frame[columns] = model.calibrate(own, share, selector).numpy()
    return frame, rate


def own_predictions(run: Path, model: Model, *, share: float, selector: str) -> pd.DataFrame:
    """The run's predictions of validation and test images (as ``internal``), from the same token share."""
    path = run / "predictions.csv"
    if (share, selector) != own_way(model.card):
        path, known = run / "predictions_keep.csv", run / "metrics_keep.json"
        same = {"selector": selector, "keep": share}
        if not known.is_file() or read_mapping(known, mend="delete it").get("keep") != same:
            raise UserError(
                "the run's own images were not evaluated with this token share",
                where=str(run),
                mend=f"`msmae evaluate {run} --keep {share:g} --selector {selector}` first",
            )
    frame = read_predictions(path)
    lacking = [name for name in model.classes if f"prob_{name}" not in frame]
    if lacking:
        raise UserError(
            f"the run's predictions lack the classes {some(lacking)}",
            where=str(path),
            mend="`msmae evaluate RUN` first",
        )
    return frame[frame["split"].isin(["val", "test"])].replace({"split": {"test": "internal"}})


def describe(out: Path, run: Path, *, data: str, config: dict[str, Any], prepared: Prepared, model: Model) -> None:
    """Write what the folder is of: config.yaml, environment.json, manifest.csv and model.json."""
    data = str(Path(data).resolve()) if Path(data).exists() else data
    content = {
        **config,
        "format_version": FORMAT_VERSION,
        "data": data,
        "evaluated_run": str(run.resolve()),
        "trained_on": config["data"],
        "settings": {**config["settings"], "dataset": prepared.settings.to_dict()["dataset"]},
    }
    write_whole(out / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_json(out / "environment.json", environment())
    write_json(out / "model.json", dataclasses.asdict(model.card))
    prepared.manifest.write(out / "manifest.csv", record=True)


def weights_of(run: Path) -> Path:
    return run / "model" / "model.safetensors"


def metrics_of(run: Path) -> dict[str, Any]:
    """The run's metrics.json. Raises ``UserError`` where it was not evaluated."""
    path = run / "metrics.json"
    if not path.is_file():
        raise UserError("the run has no metrics.json", where=str(run), mend="`msmae evaluate RUN` first")
    return read_mapping(path, mend="`msmae evaluate RUN` writes it anew")


def calibration_of(run: Path) -> dict[str, Any]:
    """What the run did to its probabilities, with its own test images called internal."""
    record = dict(metrics_of(run).get("calibration") or {})
    if "errors" in record:
        record["errors"] = {{"test": "internal"}.get(name, name): errors for name, errors in record["errors"].items()}
    return record


def _rename(unknown: list[str], known: list[str]) -> str:
    """What to do about labels that the model does not know: its own name that is spelt the same but for case and
    signs, where there is one. A name that merely looks alike is not offered: ``none`` is no ``node``."""
    spelt = {_letters(name): name for name in known}
    meant = [f"{name!r} to {spelt[_letters(name)]!r}" for name in unknown if _letters(name) in spelt]
    hint = f"rename {some(meant)} in a CSV" if meant else "map them to the model's names in a CSV"
    return f"{hint}, or leave these images out"


def _letters(name: str) -> str:
    """A name without case, spaces and signs."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
