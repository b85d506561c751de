"""Losses of a quarter, pooled: paired within a run, averaged over seeds, data sets weighing the same."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from study_tables.pooled_difference import Gain
from study_tables.pooled_loss import gain_table, losses, not_inferior, runs_of, table

from msmae.statistics.paired import matched, resample_together
from msmae.statistics.predictions import read_predictions, write_predictions
from msmae.statistics.seeds import difference_over_seeds
from saved_run import make_predictions

BOTH = ("keep", "keep-even")
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
    collected(tmp_path / "knees+keep", seeds=1, wrong=5)
    lines = table(tmp_path).splitlines()
    assert lines[2].startswith("| knees (patients only; not pooled) | 1 | +")
    assert lines[3].startswith("| lungs | 3 | +")
    assert lines[3].endswith("| no masks |")
    assert lines[4].startswith("| moles | 2 | +")
    assert lines[4].endswith("| 93.0 % |")
    assert lines[5].startswith("| **2 data sets, equal weights** |")
    assert "not shown for balanced accuracy" in lines[-1]
    collected(tmp_path / "hips+early+keep", seeds=2, wrong=5)
    collected(tmp_path / "lungs+early+keep", seeds=2, wrong=5)
    variants = table(tmp_path).splitlines()
    assert variants[2].startswith("| hips+early | 2 |")  # nothing else has its patients
    assert variants[4].startswith("| lungs+early (not pooled: the same patients) | 2 |")
    assert variants[-3].startswith("| **3 data sets, equal weights** |")


def test_one_changed_prediction_changes_the_table(tmp_path: Path):
    folder = collected(tmp_path / "moles+keep", seeds=2, wrong=10)
    before = table(tmp_path)
    spoil_again = folder / "msmae" / "1" / "predictions_quarter.csv"
    write_predictions(spoilt(read_predictions(spoil_again), 9), spoil_again)
    assert table(tmp_path) != before


def test_a_loss_is_all_patches_less_the_quarter_and_has_the_intervals_of_any_difference(tmp_path: Path):
    folder = collected(tmp_path / "a", seeds=3, wrong=4)
    runs = runs_of(folder)
    lost = losses(runs, seed=0)["auroc"]
    pairs = [[read_predictions(run / f"predictions_{name}.csv") for name in ("all", "quarter")] for run in runs]
    frames = [frame for pair in pairs for frame in pair]
    sampled = resample_together(matched(frames, classes=CLASSES, split="test"), seed=0)
    expected = difference_over_seeds(sampled[::2], sampled[1::2], "auroc")
    assert lost.value == pytest.approx(expected["value"], abs=1e-12)
    assert lost.value > 0.02
    assert lost.interval() == pytest.approx((expected["low"], expected["high"]), abs=1e-9)


def test_not_being_worse_must_be_shown():
    assert not_inferior(Gain(0.002, ((1e-6, 50.0),))) == "shown"
    assert not_inferior(Gain(0.002, ((4e-4, 50.0),))) == "not shown"  # it may be: nobody knows
    assert not_inferior(Gain(0.002, ((1e-6, 50.0), (1e-5, 2.0)))) == "not shown"  # the seeds disagree
    assert not_inferior(Gain(0.02, ((1e-6, 50.0),))) == "not shown"


def test_what_choosing_gains_is_told_of_the_runs_that_have_both(tmp_path: Path):
    assert gain_table(tmp_path) == "*Not run yet.*"
    for name, seeds in (("moles", 3), ("lungs", 2)):
        collected(tmp_path / f"{name}+keep", seeds=seeds, wrong=20)
        collected(tmp_path / f"{name}+keep-even", seeds=2, wrong=3)
    collected(tmp_path / "knees+keep-even", seeds=2, wrong=3)  # never chosen
    _, _, lungs, moles, both = gain_table(tmp_path).splitlines()
    assert lungs.startswith("| lungs | 2 | +")
    assert moles.startswith("| moles | 2 | +")
    assert both.startswith("| **2 data sets, equal weights** | | +")
    pairs = [
        [read_predictions(tmp_path / f"moles+{name}" / "msmae" / seed / "predictions_quarter.csv") for name in BOTH]
        for seed in "01"
    ]
    frames = [frame for pair in pairs for frame in pair]
    sampled = resample_together(matched(frames, classes=CLASSES, split="test"), seed=0)
    expected = difference_over_seeds(sampled[::2], sampled[1::2], "balanced_accuracy")
    assert f"| {100 * expected['value']:+.2f} (" in moles
