"""Answers for patients: those of a run, of an external test and of new images, by hand and without training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

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


@pytest.mark.parametrize("asked", ["auto", "study"])
def test_an_external_test_joins_no_units_of_another_kind(tmp_path: Path, asked: str):
    """A run of lesions (two images each, two of a patient), and an external test by patient or by its own studies."""
    frame = make_predictions(classes=CLASSES, images_each=4, separation=0.8)
    frame["lesion"] = frame["patient_id"] + np.where(frame.index % 4 < 2, "-left", "-right")
    entry = evaluate_units(frame, prepared_as(frame, unit="lesion"), tmp_path)
    put(tmp_path / "metrics.json", {"patients": entry})
    column, out = ("patient_id" if asked == "auto" else asked), tmp_path / "out"
    out.mkdir()
    external = make_predictions(classes=CLASSES, splits=("test",), patients=30, images_each=2, seed=1)
    external = external.assign(split="external", patient_id="x" + external["patient_id"])
    external["study"] = external["patient_id"].str.replace("p", "s")
    own = frame.replace({"split": {"test": "internal"}})
    everything = pd.concat([external, own], ignore_index=True)
    everything = everything.drop(columns="study" if asked == "auto" else [])
    found = evaluate_units_elsewhere(everything, prepared_as(frame, unit=asked), tmp_path, out, model=MODEL)
    assert found is not None
    assert any("lesion" in note for note in found["notes"])
    table = read_predictions(out / "predictions_patients.csv")
    known = everything.dropna(subset=column)
    mean = known.groupby(["split", column])[[f"prob_{name}" for name in CLASSES]].mean()
    assert set(zip(table["split"], table["unit"], strict=True)) == set(mean.index)
    assert {split: one["n"] for split, one in found["splits"].items()} == mean.groupby("split").size().to_dict()
    rows = mean.loc[[*zip(table["split"], table["unit"], strict=True)]].to_numpy()
    scale = 1.0
    if asked == "auto":  # the temperature with the least log loss of the run's validation patients
        truth = (table["label"].to_numpy()[:, None] == np.array(CLASSES))[val := (table["split"] == "val").to_numpy()]
        scale = minimize_scalar(
            lambda s: -log_softmax(s * np.log(rows[val]), axis=1)[truth].mean(), bounds=(0.05, 20), method="bounded"
        ).x
    by_hand = softmax(scale * np.log(rows), axis=1)
    np.testing.assert_allclose(table[[f"prob_{name}" for name in CLASSES]].to_numpy(), by_hand, atol=1e-4)


def test_answers_of_other_units_do_not_stay(tmp_path: Path):
    frame = make_predictions(classes=CLASSES, patients=6)
    single = frame.drop_duplicates("patient_id")
    for asked, rows in (("none", frame), ("auto", single), ("auto", frame.assign(patient_id=""))):
        (tmp_path / "predictions_patients.csv").write_text("of the evaluation before")
        assert evaluate_units(rows, prepared_as(frame, unit=asked), tmp_path) is None
        assert not (tmp_path / "predictions_patients.csv").exists()
