"""Losses of a quarter, pooled: paired within a run, averaged over seeds, data sets weighing the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msmae.evidence.pooled_loss import Loss, losses_of, mean, pool, shown_not_inferior, table
from msmae.evidence.predictions import write_predictions
from saved_run import make_predictions

CLASSES = ("benign", "malignant", "normal")


def collected(folder: Path, *, seeds: int, wrong: int, kept: float | None = None, patients: int = 40) -> Path:
    """Runs whose quarter answers every ``wrong``-th test image wrongly."""
    for seed in range(seeds):
        run = folder / "msmae" / str(seed)
        run.mkdir(parents=True)
        whole = make_predictions(patients=patients, splits=("test",), separation=6, seed=seed)
        write_predictions(whole, run / "predictions_all.csv")
        write_predictions(spoilt(whole, wrong), run / "predictions_quarter.csv")
        (run / "lesions.json").write_text(json.dumps({"kept": kept}))
    return folder


def spoilt(frame: pd.DataFrame, every: int) -> pd.DataFrame:
    frame = frame.copy()
    for i in range(0, len(frame) if every else 0, every or 1):
        other = next(name for name in CLASSES if name != frame.loc[i, "label"])
        frame.loc[i, ["predicted", *(f"prob_{name}" for name in CLASSES)]] = [
            other, *(0.8 if name == other else 0.1 for name in CLASSES)
        ]  # fmt: skip
    return frame


def test_a_table_of_what_was_collected(tmp_path: Path):
    assert table(tmp_path) == "*Not run yet.*"
    collected(tmp_path / "moles+keep", seeds=2, wrong=10, kept=0.93)
    collected(tmp_path / "lungs+keep", seeds=3, wrong=5)
    lines = table(tmp_path).splitlines()
    assert lines[2].startswith("| lungs | 3 | ")
    assert lines[2].endswith("| no masks |")
    assert lines[3].startswith("| moles | 2 | ")
    assert lines[3].endswith("| 93.0 % |")
    assert lines[4].startswith("| **all, equal weights** |")
    assert "balanced accuracy: not shown" in lines[-1]


def test_data_sets_weigh_the_same(tmp_path: Path):
    one = losses_of(collected(tmp_path / "a", seeds=1, wrong=4), seed=0)["balanced_accuracy"]
    other = losses_of(collected(tmp_path / "b", seeds=3, wrong=8, patients=90), seed=1)["balanced_accuracy"]
    together = pool([one, other])
    assert together[0] == pytest.approx((one[0] + other[0]) / 2)
    assert together[0] > 0.1
    assert together[1].std() < one[1].std()  # more patients, less chance
    assert together[3] == 130


def test_not_being_worse_must_be_shown():
    draws, left_out = np.random.default_rng(0).normal(size=(2, 500))

    def found(value: float, spread: float) -> Loss:
        return value, value + spread * draws, value + spread * left_out[:100] / 100, 100

    assert shown_not_inferior(found(0.002, 0.001)) == "shown"
    assert shown_not_inferior(found(0.002, 0.02)) == "not shown"  # it may be: nobody knows
    assert shown_not_inferior(found(0.02, 0.001)) == "not shown"


def test_seeds_are_averaged_draw_by_draw(tmp_path: Path):
    found = losses_of(collected(tmp_path / "a", seeds=2, wrong=4), seed=0)["balanced_accuracy"]
    assert mean([found, found])[0] == found[0]
    assert (mean([found, found])[1] == found[1]).all()
