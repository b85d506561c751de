"""A comparison's folder as `msmae compare` leaves it, of made-up predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from msmae.statistics.predictions import write_predictions
from saved_run import make_predictions

CLASSES = ("benign", "malignant", "normal")


def write_folder(
    folder: Path, *, arms: dict[str, float], seeds: Sequence[int], patients: str = "", **plan: object
) -> Path:
    """Arms by how far apart their scores set the classes; all have the same images, and patients of this name."""
    for arm, separation in arms.items():
        for seed in seeds:
            run = folder / arm / str(seed)
            run.mkdir(parents=True)
            frame = make_predictions(splits=("test",), separation=separation, seed=10 * seed)
            write_predictions(frame.assign(patient_id=patients + frame["patient_id"]), run / "predictions.csv")
            (run / "metrics.json").write_text(
                json.dumps(
                    {"arm": arm, "splits": {"test": {"n": len(frame), "metrics": {}}}, "cost": {"parameters": 7}}
                )
            )
    content = {
        "format_version": 1, "data": "moles", "arms": list(arms), "seeds": list(seeds), "folds": 0,
        "budget": {"kind": "epochs", "statement": "Every run saw 3 epochs."}, "classes": list(CLASSES),
    }  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps({**content, **plan}))
    return folder
