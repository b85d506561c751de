"""Differences between two arms, pooled over data sets: from predictions, data sets weighing the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student
from study_tables.pooled_difference import (
    Draws,
    Gain,
    common_seeds,
    differences,
    gain,
    own_seed,
    points,
    pooled,
    table,
    together,
)

from msmae.statistics.paired import matched, resample_together
from msmae.statistics.predictions import classes_of, read_predictions, write_predictions
from msmae.statistics.seeds import difference_over_seeds
from saved_run import make_predictions


def table_of(results: Path, first: str, second: str) -> str:
    """The table of what one arm gains over another."""
    return table(differences(results, first, second, Draws()), first, second)


def collected(folder: Path, *, seeds: int, better: float, worse: float = 1.0, patients: str = "") -> Path:
    """Runs of two arms on the same patients, of which the first separates the classes better; the patients are the
    folder's own unless others are named.
    """
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text("{}")
    for seed in range(seeds):
        for arm, separation in (("msmae", better), ("supmae", worse)):
            frame = make_predictions(patients=60, splits=("test",), separation=separation, seed=100 * seed)
            frame["patient_id"] = (patients or folder.name.partition("+")[0]) + frame["patient_id"]
            run = folder / arm / str(seed)
            run.mkdir(parents=True)
            write_predictions(frame, run / "predictions.csv")
    return folder


def test_one_data_sets_interval_is_the_comparisons_own(tmp_path: Path) -> None:
    folder = collected(tmp_path / "a", seeds=3, better=2.0)
    found = gain(folder, "msmae", "supmae", ["0", "1", "2"], Draws())
    frames = [read_predictions(folder / arm / s / "predictions.csv") for s in "012" for arm in ("msmae", "supmae")]
    sampled = resample_together(matched(frames, classes=classes_of(frames[0]), split="test"), seed=own_seed(folder))
    expected = difference_over_seeds(sampled[::2], sampled[1::2], "balanced_accuracy")
    assert found.value == pytest.approx(expected["value"], abs=1e-12)
    assert found.interval() == pytest.approx((expected["low"], expected["high"]), abs=1e-9)


def test_the_pooled_mean_has_the_variance_of_a_mean_of_independent_parts() -> None:
    pooled = together([Gain(0.02, ((1e-4, 50.0), (3e-4, 2.0))), Gain(0.06, ((2e-4, 80.0),))])
    variance = (1e-4 + 3e-4 + 2e-4) / 4
    freedom = variance**2 / (((1e-4 / 4) ** 2) / 50 + ((3e-4 / 4) ** 2) / 2 + ((2e-4 / 4) ** 2) / 80)
    reach = student.ppf(0.975, freedom) * np.sqrt(variance)
    assert pooled.value == pytest.approx(0.04)
    assert pooled.interval() == pytest.approx((0.04 - reach, 0.04 + reach))


def test_a_data_set_of_one_seed_is_shown_and_not_pooled(tmp_path: Path) -> None:
    assert table_of(tmp_path, "msmae", "supmae") == "*msmae − supmae: not run yet.*"
    collected(tmp_path / "lungs", seeds=2, better=2.0)
    collected(tmp_path / "moles", seeds=1, better=2.0)
    lines = table_of(tmp_path, "msmae", "supmae").splitlines()
    assert lines[2].startswith("| lungs | 2 | +")
    assert lines[3].startswith("| moles | 1 | ")
    assert lines[3].endswith("(patients only; not pooled) |")
    assert len(lines) == 4
    collected(tmp_path / "skin", seeds=3, better=1.5)
    assert table_of(tmp_path, "msmae", "supmae").splitlines()[-1].startswith("| **2 data sets, equal weights** | | **+")


def test_data_sets_of_the_same_patients_count_as_one(tmp_path: Path) -> None:
    """As two phantoms whose lesions differ in size alone: what luck they share is not averaged away."""
    collected(tmp_path / "large", seeds=3, better=2.0, patients="phantom")
    collected(tmp_path / "small", seeds=2, better=1.5, patients="phantom")
    assert "equal weights" not in table_of(tmp_path, "msmae", "supmae")
    collected(tmp_path / "moles", seeds=3, better=1.2)
    rows = differences(tmp_path, "msmae", "supmae", Draws())
    large, moles, small = (row.gain for row in rows)
    found = pooled(rows)
    assert found is not None
    assert found.value == pytest.approx(((large.value + small.value) / 2 + moles.value) / 2)
    spread = [
        np.mean([part[0] ** 0.5 for part in parts]) for parts in zip(large.variances, small.variances, strict=True)
    ]
    expected = (sum(s**2 for s in spread) + sum(part for part, _ in moles.variances)) / 4
    assert sum(part for part, _ in found.variances) == pytest.approx(expected)
    assert found.variances[1][1] == 1  # degrees of freedom: those of the two seeds
    assert "| **2 data sets, equal weights; large and small, of the same patients, count as one** |" in table_of(
        tmp_path, "msmae", "supmae"
    )


def test_one_changed_prediction_changes_the_table(tmp_path: Path) -> None:
    folder = collected(tmp_path / "lungs", seeds=2, better=3.0)
    before = table_of(tmp_path, "msmae", "supmae")
    path = folder / "msmae" / "0" / "predictions.csv"
    frame = read_predictions(path)
    columns = [name for name in frame.columns if name.startswith("prob_")]
    right = frame.index[frame["predicted"] == frame["label"]][0]
    frame.loc[right, columns] = np.roll(frame.loc[right, columns].to_numpy(dtype=float), 1)
    frame.loc[right, "predicted"] = columns[int(np.argmax(frame.loc[right, columns]))].removeprefix("prob_")
    write_predictions(frame, path)
    assert table_of(tmp_path, "msmae", "supmae") != before


def test_only_seeds_that_both_arms_have_are_compared(tmp_path: Path) -> None:
    folder = collected(tmp_path / "lungs", seeds=3, better=2.0)
    (folder / "supmae" / "1" / "predictions.csv").unlink()
    assert common_seeds(folder, "msmae", "supmae") == ["0", "2"]


def test_points_are_signed() -> None:
    assert points(Gain(-0.012, ((0.0, 1.0),))) == "−1.2 (−1.2 to −1.2)"


def test_a_variant_of_a_data_set_is_not_pooled_beside_it(tmp_path: Path) -> None:
    collected(tmp_path / "lungs", seeds=2, better=2.0)
    alone = table_of(tmp_path, "msmae", "supmae")
    collected(tmp_path / "lungs+gpu", seeds=2, better=1.2)
    assert table_of(tmp_path, "msmae", "supmae") == alone


def test_a_data_set_beside_another_leaves_its_interval_as_it_was(tmp_path: Path) -> None:
    collected(tmp_path / "lungs", seeds=2, better=2.0)
    alone = table_of(tmp_path, "msmae", "supmae").splitlines()[2]
    collected(tmp_path / "ankles", seeds=2, better=2.0)
    assert alone in table_of(tmp_path, "msmae", "supmae").splitlines()


def test_an_arms_variant_is_compared_with_the_data_set_it_varies(tmp_path: Path) -> None:
    collected(tmp_path / "lungs", seeds=3, better=2.0)
    collected(tmp_path / "lungs+half", seeds=2, better=2.6)
    collected(tmp_path / "moles", seeds=2, better=2.0)  # has no such variant
    rows = table_of(tmp_path, "msmae+half", "supmae").splitlines()
    frames = [
        read_predictions(tmp_path / folder / arm / seed / "predictions.csv")
        for seed in "01"
        for folder, arm in (("lungs+half", "msmae"), ("lungs", "supmae"))
    ]
    sampled = resample_together(matched(frames, classes=classes_of(frames[0]), split="test"), seed=0)
    expected = 100 * difference_over_seeds(sampled[::2], sampled[1::2], "balanced_accuracy")["value"]
    assert len(rows) == 3
    assert rows[2].startswith(f"| lungs | 2 | {expected:+.1f} (")


def test_draws_that_are_shared_give_the_same_tables(tmp_path: Path) -> None:
    collected(tmp_path / "lungs", seeds=3, better=2.0)
    collected(tmp_path / "lungs+half", seeds=2, better=1.5)
    shared = Draws()
    for first, second in (("msmae", "supmae"), ("msmae+half", "msmae"), ("msmae", "supmae")):
        rows = differences(tmp_path, first, second, shared)
        assert table(rows, first, second) == table_of(tmp_path, first, second)
    assert len(shared.known) == 3 + 3 + 2
