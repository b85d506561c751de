"""Answers for patients: those of a run, of an external test and of new images, by hand and without training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from msmae.config import make_settings
from msmae.evaluation.units import Chosen, answer_units, evaluate_units, evaluate_units_elsewhere
from msmae.statistics.predictions import classes_of, read_predictions
from saved_run import make_predictions, put

CLASSES = ("benign", "malignant", "normal")
RARE = {"malignant": 0.2}
MODEL: Any = SimpleNamespace(classes=CLASSES, card=SimpleNamespace(multilabel=False, thresholds=RARE))


def prepared_as(frame: pd.DataFrame, *, unit: str = "auto") -> Any:
    """What the figures of units need of a run's data."""
    settings = make_settings("tiny", None, {"dataset": {"unit": unit}, "evaluate": {"resamples": 100}})
    manifest = SimpleNamespace(classes=classes_of(frame), multilabel=False)
    return SimpleNamespace(settings=settings, manifest=manifest, seed=0)


def test_a_threshold_of_the_run_holds_for_patients_everywhere(tmp_path: Path):
    frame = make_predictions(classes=CLASSES)
    entry = evaluate_units(frame, prepared_as(frame), tmp_path, thresholds=RARE)
    assert entry is not None
    put(tmp_path / "metrics.json", {"patients": entry})
    own = read_predictions(tmp_path / "predictions_patients.csv")
    elsewhere = frame.assign(split="external", patient_id="x" + frame["patient_id"])
    (tmp_path / "out").mkdir()
    assert evaluate_units_elsewhere(elsewhere, prepared_as(frame), tmp_path, tmp_path / "out", model=MODEL)
    external = read_predictions(tmp_path / "out" / "predictions_patients.csv")
    new = answer_units(Chosen.of(tmp_path, MODEL.card), frame, CLASSES, terms=None)
    assert new is not None
    for table in (own, external, new):
        others = np.where(table["prob_benign"] >= table["prob_normal"], "benign", "normal")
        by_hand = np.where(table["prob_malignant"] >= RARE["malignant"], "malignant", others)
        assert table["predicted"].tolist() == by_hand.tolist()
        plain = table[[f"prob_{name}" for name in CLASSES]].to_numpy().argmax(axis=1)
        assert (by_hand != np.array(CLASSES)[plain]).any()  # the threshold matters
    test = own[own["split"] == "test"]
    found, right = entry["splits"]["test"], (test["predicted"] == test["label"]).groupby(test["label"]).mean()
    assert found["per_class"]["malignant"]["sensitivity"]["value"] == right["malignant"]
    assert entry["poolings"]["test"][entry["pooling"]]["balanced_accuracy"] == right.mean()
