"""Evaluation of a segmenter on validation and test: segmentation.csv, metrics.json, pictures and the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.evaluation.evaluate import seconds_spent
from msmae.evaluation.pictures import draw_outlines
from msmae.files import fill_csv, own_folder, whole
from msmae.inference.model import load
from msmae.inference.segmentation import SegmentationModel
from msmae.reporting.report import write_report
from msmae.runs.checkpoint import file_sha256
from msmae.runs.folder import write_json
from msmae.statistics.predictions import image_names
from msmae.statistics.segmentation import measure, summarise_segmentation
from msmae.training.prepare import Prepared, data_fingerprint
from msmae.training.segment_data import class_layers

KINDS = ("best", "median", "worst")
DIGITS = 5
"""Decimals of segmentation.csv; metrics.json is made from what that file says."""


def evaluate_segmenter(prepared: Prepared, run: Path) -> dict[str, Any]:
    """Write RUN/segmentation.csv, metrics.json, panels and the report; the test split is read once.

    Images and masks are compared at the size the model sees, so that distances are in its pixels.
    Returns the content of metrics.json.
    """
    model = load(run)
    assert isinstance(model, SegmentationModel)
    settings = prepared.settings
    frame, rate = measure_splits(model, prepared)
    splits = summarise_segmentation(
        frame, classes=model.classes, resamples=settings.evaluate.resamples, seed=prepared.seed
    )
    parts = {"encoder": model.network.encoder, "decoder": model.network.decoder}
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    metrics = {
        "task": "segmentation",
        "arm": prepared.method,
        "seed": prepared.seed,
        "model_sha256": file_sha256(run / "model" / "model.safetensors"),
        "data_sha256": data_fingerprint(prepared),
        "measured_at": {"image_size": list(prepared.image_size), "tolerance_px": settings.segment.tolerance},
        "splits": splits,
        "cost": {
            "parameters": sum(sizes.values()),
            "parameters_encoder": sizes["encoder"],
            "parameters_decoder": sizes["decoder"],
            "images_per_s_predict": rate,
            "seconds_pretrain": None,
            "seconds_finetune": seconds_spent(run)["seconds_finetune"],
        },
    }
    with whole(run / "segmentation.csv") as unfinished:
        fill_csv(unfinished, frame)
    draw_cases(model, prepared, run, frame)
    write_json(run / "metrics.json", metrics)
    write_report(run)
    return metrics


def measure_splits(model: SegmentationModel, prepared: Prepared) -> tuple[pd.DataFrame, float]:
    """A row for each validation and test image and class; images predicted in a second."""
    ids = np.concatenate([prepared.ids(split, labelled=False) for split in ("val", "test")])
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for start in range(0, len(ids), 64):
        chosen = ids[start : start + 64]
        images = prepared.store.fetch(chosen).astype(np.float32)
        began = time.perf_counter()
        predicted = model.layers(model.predict(images))  # [B, C, H, W]
        seconds += time.perf_counter() - began
        for sample, reference, answer in zip(chosen.tolist(), class_layers(prepared, chosen), predicted, strict=True):
            rows += measured(prepared, sample, reference, answer)
    return pd.DataFrame(rows).round(DIGITS), len(ids) / seconds


def measured(prepared: Prepared, sample: int, reference: np.ndarray, answer: np.ndarray) -> list[dict[str, Any]]:
    """The rows of one image, one a class; reference and answer are bool [classes, H, W]."""
    manifest, settings = prepared.manifest, prepared.settings.segment
    table = manifest.table.assign(image_path=manifest.names)
    places = [name for name in ("axis", "index", "frame", "cluster") if name in table]
    who = {name: table.at[sample, name] for name in ("image_path", "patient_id", "split", *places)}
    return [
        {"sample": sample, **who, "class": name, "share": float(inside.mean())}
        | measure(inside, said, tolerance=settings.tolerance)
        for name, inside, said in zip(settings.class_names, reference, answer, strict=True)
    ]


def draw_cases(model: SegmentationModel, prepared: Prepared, run: Path, frame: pd.DataFrame) -> None:
    """RUN/panels: the best, the middle and the worst test images by their mean Dice, with both outlines."""
    folder = run / "panels"
    own_folder(folder)
    dice = frame[frame["split"] == "test"].groupby("sample")["dice"].mean().dropna().sort_values(ascending=False)
    each, middle = min(4, len(dice) // 3), len(dice) // 2
    cases = {
        "best": dice[:each],
        "median": dice[middle - each // 2 : middle - each // 2 + each],
        "worst": dice[len(dice) - each :],
    }
    captions: list[dict[str, Any]] = []
    names = image_names(prepared.manifest.table.assign(image_path=prepared.manifest.names))
    for kind in KINDS:
        for sample, value in cases[kind].items():
            rows = np.array([sample])
            name = f"{len(captions):02d}-{kind}.png"
            images = prepared.store.fetch(rows).astype(np.float32)
            predicted = model.layers(model.predict(images))[0]
            draw_outlines(folder / name, images[0], predicted=predicted, reference=class_layers(prepared, rows)[0])
            captions.append({"image_path": names.at[sample], "dice": float(value), "kind": kind, "file": name})
    write_json(folder / "panels.json", {"panels": captions})
