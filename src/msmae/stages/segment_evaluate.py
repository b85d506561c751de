"""Evaluation of a segmenter on validation and test: segmentation.csv, metrics.json, pictures and the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.evidence.report import write_report
from msmae.evidence.segmentation import measure, summarise_segmentation
from msmae.exchange.checkpoint import file_sha256
from msmae.stages.evaluate import seconds_spent
from msmae.stages.folder import write_json
from msmae.stages.pictures import draw_outlines
from msmae.stages.predictor import load
from msmae.stages.prepare import Prepared, data_fingerprint
from msmae.stages.segment_data import class_masks
from msmae.stages.segment_predictor import SegmentationModel

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
    frame, answers, rate = measure_splits(model, prepared)
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
    frame.to_csv(run / "segmentation.csv", index=False)
    draw_cases(prepared, run, frame, answers)
    write_json(run / "metrics.json", metrics)
    write_report(run)
    return metrics


def measure_splits(model: SegmentationModel, prepared: Prepared) -> tuple[pd.DataFrame, dict[int, np.ndarray], float]:
    """A row for each validation and test image and class; the masks predicted, by sample id; images in a second."""
    ids = np.concatenate([prepared.ids(split, labelled=False) for split in ("val", "test")])
    rows: list[dict[str, Any]] = []
    answers: dict[int, np.ndarray] = {}
    seconds = 0.0
    for start in range(0, len(ids), 64):
        chosen = ids[start : start + 64]
        images = prepared.store.fetch(chosen).astype(np.float32)
        began = time.perf_counter()
        predicted = model.masks(model.predict(images))
        seconds += time.perf_counter() - began
        for sample, reference, answer in zip(chosen.tolist(), class_masks(prepared, chosen), predicted, strict=True):
            answers[sample] = answer
            rows += measured(prepared, sample, reference, answer)
    return pd.DataFrame(rows).round(DIGITS), answers, len(ids) / seconds


def measured(prepared: Prepared, sample: int, reference: np.ndarray, answer: np.ndarray) -> list[dict[str, Any]]:
    """The rows of one image, one a class."""
    table, settings = prepared.manifest.table, prepared.settings.segment
    places = [name for name in ("axis", "index", "frame") if name in table]
    who = {name: table.at[sample, name] for name in ("image_path", "patient_id", "split", *places)}
    return [
        {"sample": sample, **who, "class": name, "share": float((reference == number).mean())}
        | measure(reference == number, answer == number, tolerance=settings.tolerance)
        for number, name in enumerate(settings.class_names, start=1)
    ]


def draw_cases(prepared: Prepared, run: Path, frame: pd.DataFrame, answers: dict[int, np.ndarray]) -> None:
    """RUN/panels: the best, the middle and the worst test images by their mean Dice, with both outlines."""
    folder = run / "panels"
    folder.mkdir(exist_ok=True)
    dice = frame[frame["split"] == "test"].groupby("sample")["dice"].mean().dropna().sort_values(ascending=False)
    each, middle = min(4, len(dice) // 3), len(dice) // 2
    cases = {
        "best": dice[:each],
        "median": dice[middle - each // 2 : middle - each // 2 + each],
        "worst": dice[len(dice) - each :],
    }
    captions: list[dict[str, Any]] = []
    for kind in KINDS:
        for sample, value in cases[kind].items():
            rows = np.array([sample])
            name = f"{len(captions):02d}-{kind}.png"
            reference = class_masks(prepared, rows)[0]
            draw_outlines(
                folder / name, prepared.store.fetch(rows)[0], predicted=answers[int(rows[0])], reference=reference
            )
            image = prepared.manifest.table.at[sample, "image_path"]
            captions.append({"image_path": image, "dice": float(value), "kind": kind, "file": name})
    write_json(folder / "panels.json", {"panels": captions})
