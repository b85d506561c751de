"""What dropping patches costs and saves: measured on validation, chosen there, and told on test."""

from __future__ import annotations

import shutil
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from msmae.data.manifest import NO_FINDING
from msmae.errors import UserError
from msmae.evaluation.calibrate import calibrate
from msmae.evaluation.evaluate import predict_rows, predictions_frame
from msmae.evaluation.panels import draw_selections
from msmae.inference.model import Model, kept_tokens, load, own_way, selection_with
from msmae.reporting.report import write_report
from msmae.runs.checkpoint import FILE, read_card, with_keep, write_card
from msmae.runs.folder import write_json
from msmae.selection.cost import selection_macs
from msmae.selection.selectors import Selection
from msmae.statistics import token_shares
from msmae.training.prepare import Prepared

BATCH = 64
ROUNDS = 5


@dataclass(frozen=True)
class Point:
    """A way to look at an image."""

    selector: str
    keep: float


def check_answers(model: Model, prepared: Prepared) -> None:
    """Raise ``UserError`` for a model that answers the same whatever it sees: by seeing less nothing can be lost."""
    frame = predict_split(model, prepared, own_point(model), split="val")
    answers = set(frame["predicted"])
    if len(answers) == 1 and frame["label"].nunique() > 1:
        answer = answers.pop()
        raise UserError(
            f"the model answers {'no finding' if answer == NO_FINDING else repr(answer)} for every validation image: "
            "by seeing less nothing can be lost",
            where=prepared.manifest.where,
            mend="train it longer first",
        )


def measure(folder: Path, prepared: Prepared, *, margin: float, points: list[Point]) -> dict[str, Any]:
    """Measure the points, all patches first; choose one, tell what it does on test. RUN/budget.json comes last."""
    model, whole = load(folder), points[0]
    asked: dict[str, Any] = {
        "classes": prepared.manifest.classes,
        "multilabel": prepared.manifest.multilabel,
        "resamples": prepared.settings.evaluate.resamples,
        "seed": prepared.seed,
    }
    fitted = {point: calibrate(predict_split(model, prepared, point, split="val"), prepared) for point in points}
    found = token_shares.losses(fitted[whole][0], [fitted[point][0] for point in points], **asked)
    found[0] |= {"low": 0.0, "high": 0.0}  # against itself
    speeds = images_per_second(model, prepared, points)
    rows = [
        {
            **asdict(point),
            "gmacs": selection_macs(*looking(model, point)).total / 1e9,
            "images_per_s": speeds[point],
            "speedup": speeds[point] / speeds[whole],
            **measured,
        }
        for point, measured in zip(points, found, strict=True)
    ]
    number = token_shares.choose(rows, margin=margin)
    chosen = points[number]
    calibrations = [
        {**asdict(point), "calibration": asdict(calibrator) if calibrator else {}}
        for point, (_, calibrator, _) in fitted.items()
        if point is not whole
    ]
    card = with_keep(model.card, choice=asdict(chosen), calibrations=calibrations)
    write_card(folder / "model", card)
    content = {
        "margin": margin,
        "prepared": {k: v for k, v in card.keep.items() if k not in ("choice", "calibrations", "sha256")} or None,
        "images_at_a_time": BATCH,
        "rows": rows,
        "rival": token_shares.rival(rows),
        "choice": {
            "margin": margin,
            **rows[number],
            "test": tell_on_test(model, prepared, whole=whole, chosen=chosen, margin=margin, asked=asked),
        },
    }
    draw_selections(prepared, folder, asdict(chosen))
    write_json(folder / "budget.json", content)
    if (folder / "metrics.json").is_file():
        write_report(folder)
    return content


def points_of(model: Model, *, shares: list[float], selectors: list[str]) -> list[Point]:
    """What is measured: the model's own way of looking, usually at all patches; then every selector at every share that
    leaves a patch to look at."""
    points = [own_point(model)]
    for name in selectors:
        if name == "locator" and model.prepared is None:
            continue
        for share in shares:
            selection = selection_with(model.network, model.prepared, name)
            if share * selection.model.encoder.patches >= selection.coarse + 1:
                points.append(Point(name, share))
    return list(dict.fromkeys(points))


def own_point(model: Model) -> Point:
    """How a model looks unless told otherwise."""
    share, selector = own_way(model.card)
    return Point(selector, share)


def looking(model: Model, point: Point) -> tuple[Selection, int]:
    """The module of a point, and how many tokens it keeps."""
    selection = selection_with(model.network, model.prepared, point.selector)
    return selection, kept_tokens(selection, point.keep)


@torch.inference_mode()
def images_per_second(model: Model, prepared: Prepared, points: list[Point]) -> dict[Point, float]:
    """Throughput of every point on the same decoded images, the choosing of the patches included; all points in turn,
    the median of the rounds."""
    rows = np.resize(prepared.ids("val"), BATCH)
    images = next(model.prepared_batches(prepared.store.fetch(rows).astype(np.float32), BATCH))
    seconds: dict[Point, list[float]] = {point: [] for point in points}
    for turn in range(ROUNDS + 1):
        for point in points:
            selection, kept = model.selection(point.selector), looking(model, point)[1]
            began = time.perf_counter()
            selection(images, kept)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                seconds[point].append(time.perf_counter() - began)
    return {point: BATCH / statistics.median(times) for point, times in seconds.items()}


def predict_split(model: Model, prepared: Prepared, point: Point, *, split: str) -> pd.DataFrame:
    """The network's own predictions of one split."""
    rows = prepared.ids(split)
    return predictions_frame(
        predict_rows(model, prepared, rows, keep=point.keep, selector=point.selector), prepared, rows
    )


def tell_on_test(
    model: Model, prepared: Prepared, *, whole: Point, chosen: Point, margin: float, asked: dict[str, Any]
) -> dict[str, Any] | None:
    """What the choice does on the test images, class by class; they are looked at here only.

    Probabilities are calibrated on validation, each point's own, as they are wherever the model predicts.
    """
    if not len(prepared.ids("test")):
        return None
    both = [
        pd.concat([predict_split(model, prepared, point, split=split) for split in ("val", "test")], ignore_index=True)
        for point in (whole, chosen)
    ]
    frames = [calibrate(frame, prepared)[0] for frame in both]
    by_class = token_shares.loss_by_class(*frames, **asked)
    (found,) = token_shares.losses(frames[0], frames[1:], split="test", **asked)
    return {**found, "per_class": by_class, "cautions": token_shares.cautions(by_class, margin=margin)}


def forget_selection(folder: Path) -> None:
    """Remove what was prepared and chosen; the model itself stays."""
    forget_measured(folder)
    (folder / "model" / FILE).unlink(missing_ok=True)
    write_card(folder / "model", replace(read_card(folder / "model"), keep={}))


def forget_measured(folder: Path) -> None:
    """Remove from a run what was measured and drawn from some of the patches, and unfinished preparing."""
    for name in ("budget.json", "metrics_keep.json", "predictions_keep.csv"):
        (folder / name).unlink(missing_ok=True)
    for name in ("keep", "looks"):
        shutil.rmtree(folder / name, ignore_errors=True)
