"""A finished run's folder, written without training: for the tests of what is built from it."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from msmae.statistics.predictions import write_predictions
from msmae.statistics.summary import summarise


def make_predictions(
    *,
    classes: Sequence[str] = ("benign", "malignant", "normal"),
    patients: int = 40,
    images_each: int = 2,
    splits: Sequence[str] = ("val", "test"),
    multilabel: bool = False,
    separation: float = 2.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Predictions of a fair model: the images of a patient share their label."""
    generator = np.random.default_rng(seed)
    rows = []
    for split in splits:
        for patient in range(patients):
            truth = generator.random(len(classes)) < 0.4
            if not multilabel:
                truth = np.arange(len(classes)) == patient % len(classes)
            for image in range(images_each):
                score = generator.normal(size=len(classes)) + separation * truth
                odds = np.exp(score)
                share = odds / (1 + odds) if multilabel else odds / odds.sum()
                said = share > 0.5 if multilabel else share == share.max()
                rows.append(
                    {
                        "image_path": f"images/{split}-{patient:03}-{image}.png",
                        "patient_id": f"{split}-p{patient:03}",
                        "split": split,
                        "label": named(classes, truth, multilabel=multilabel),
                        "predicted": named(classes, said, multilabel=multilabel),
                        **{f"prob_{name}": float(p) for name, p in zip(classes, share, strict=True)},
                    }
                )
    return pd.DataFrame(rows)


def named(classes: Sequence[str], flags: np.ndarray, *, multilabel: bool) -> str:
    """The classes that are true, as a label."""
    return ";".join(name for name, flag in zip(classes, flags, strict=True) if flag) or (";" if multilabel else "")


def write_run(
    folder: Path,
    frame: pd.DataFrame,
    *,
    multilabel: bool = False,
    columns: dict[str, Sequence[str]] | None = None,
    resamples: int = 100,
) -> Path:
    """Write RUN as `msmae run` leaves it; ``columns`` are added to the manifest, one value an image in ``frame``."""
    classes = [name.removeprefix("prob_") for name in frame.columns if name.startswith("prob_")]
    (folder / "model").mkdir(parents=True)
    write_predictions(frame, folder / "predictions.csv")
    (folder / "record.json").unlink()  # tests damage these files to see what is said of each damage
    manifest = frame[["image_path", "label", "patient_id", "split"]].copy()
    manifest["image_path"] = "/data/set/" + manifest["image_path"]  # the manifest in RUN has absolute paths
    manifest = manifest.assign(**{"mask_path": "", "site": "", **(columns or {})})
    manifest.to_csv(folder / "manifest.csv", index=False, errors="surrogateescape")
    put(
        folder / "metrics.json",
        {
            "task": "multi-label classification" if multilabel else "classification",
            "arm": "msmae",
            "seed": 3,
            "model_sha256": "a" * 64,
            "data_sha256": "b" * 64,
            "splits": summarise(frame, classes=classes, resamples=resamples, multilabel=multilabel),
            "cost": {
                "parameters": 810628,
                "gmacs_train": 0.056,
                "gmacs_predict": 0.056,
                "gmacs_predict_kept": 0.0138,
                "gmacs_pretrain": None,
                "images_per_s_predict": 795.7,
                "seconds_pretrain": 46.7,
                "seconds_finetune": 5400.0,
            },
        },
    )
    put(
        folder / "environment.json",
        {"msmae": "0.1.0", "python": "3.11", "gpus": [], "cpu_threads": 2, "packages": {"torch": "2.13.0"}},
    )
    put(
        folder / "model" / "config.json",
        {
            "kind": "classifier",
            "method": "msmae",
            "classes": classes,
            "multilabel": multilabel,
            "image_size": [64, 64],
            "patch_size": 8,
            "channels": 1,
            "width": 128,
            "depth": 4,
            "heads": 4,
            "pool": "cls",
            "mean": [75.0],
            "std": [51.5],
        },
    )
    config = {
        "format_version": 1,
        "data": "/data/set",
        "method": "msmae",
        "seed": 3,
        "init": None,
        "settings": {
            "dataset": {"val_fraction": 0.15, "test_fraction": 0.2, "on_error": "stop"},
            "pretrain": {"epochs": 30, "batch_size": 128, "base_lr": 0.001, "crop_scale": [0.5, 1.0], "flip": 0.5},
            "finetune": {"epochs": 15, "batch_size": 64, "base_lr": 0.004, "balance": "auto", "ema": 0.99},
            "evaluate": {"resamples": resamples},
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for stage, log in (
        ("pretrain", "epoch,step,reconstruction\n0,9,1.5\n1,19,0.9\n"),
        ("finetune", "epoch,step,loss,val_loss\n0,9,1.1,\n0,9,,1.2\n1,19,0.8,\n1,19,,0.7\n"),
    ):
        (folder / "logs" / stage / "csv").mkdir(parents=True)
        (folder / "logs" / stage / "csv" / "metrics.csv").write_text(log, encoding="utf-8")
    return folder


def put(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_metrics(run: Path, change: Any) -> None:
    """Read metrics.json, let ``change`` work on it, and write it back."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    change(metrics)
    put(run / "metrics.json", metrics)


def tiny_png(bytes_more: int = 0) -> bytes:
    """A PNG of one pixel, made longer by a comment of so many bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    comment = chunk(b"tEXt", b"Comment\0" + b"x" * bytes_more) if bytes_more else b""
    return b"\x89PNG\r\n\x1a\n" + header + comment + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def add_panels(run: Path, panels: Sequence[dict[str, Any]], *, bytes_more: int = 0) -> None:
    """Write RUN/panels with these captions."""
    (run / "panels").mkdir()
    for panel in panels:
        (run / "panels" / Path(panel["file"]).name).write_bytes(tiny_png(bytes_more))
    put(run / "panels" / "panels.json", {"panels": list(panels)})
