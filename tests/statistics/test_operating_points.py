"""Thresholds by hand: every score, the points chosen on validation, and net benefit with its band."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score

from msmae.errors import UserError
from msmae.statistics.calibration import recalibrate
from msmae.statistics.intervals import draw_patients
from msmae.statistics.predictions import to_arrays
from msmae.statistics.summary import summarise, summarise_arrays
from msmae.statistics.thresholds import (
    REPORTED,
    THRESHOLDS,
    decision_curve,
    one_against_rest,
    operating_points,
    sweep,
    target_sensitivity,
    youden,
)
from simulated import as_frame, draw, of


def test_every_distinct_score_is_a_threshold_from_the_highest_down() -> None:
    scores, truth = np.array([0.2, 0.9, 0.5, 0.5, 0.2, 0.1]), np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    at = sweep(scores, truth)
    assert at.thresholds.tolist() == [0.9, 0.5, 0.2, 0.1]
    assert (at.found.tolist(), at.alarms.tolist()) == ([1, 2, 3, 3], [0, 1, 2, 3])
    assert (at.positives, at.negatives) == (3, 3)
    assert at.sensitivity.tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert at.specificity.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert youden(at) == pytest.approx(0.7)  # of three equals the one with fewest alarms
    assert [target_sensitivity(at, share) for share in (0.3, 2 / 3, 0.7, 1.0)] == pytest.approx([0.7, 0.35, 0.15, 0.15])
    for share in (0.0, -0.5, 1.01):
        with pytest.raises(UserError, match="target sensitivity"):
            target_sensitivity(at, share)
    for one in (truth & False, truth | True):
        with pytest.raises(UserError, match="cannot be chosen"):
            sweep(scores, one)


def test_a_class_against_the_rest() -> None:
    p = draw(np.random.default_rng(0), patients=6, images_each=2, classes=3)
    score = p.probabilities[:, 1]
    found = one_against_rest(p, 1, float(score[3]))
    assert found.classes == ("rest", "c1")
    np.testing.assert_array_equal(found.truth, np.stack([~p.truth[:, 1], p.truth[:, 1]], axis=1))
    np.testing.assert_array_equal(found.predicted[:, 1], score >= score[3])
    np.testing.assert_array_equal(found.predicted.sum(axis=1), 1)
    np.testing.assert_allclose(found.probabilities, np.stack([1 - score, score], axis=1))
    assert not found.multilabel
    assert (found.patients.tolist(), found.patient_count) == (p.patients.tolist(), 6)


def two_splits(seed: int = 0, patients: int = 50) -> pd.DataFrame:
    parts = [as_frame(draw(np.random.default_rng(seed + n), patients=patients), split=s) for n, s in enumerate(("val", "test"))]  # fmt: skip  # noqa: E501
    return pd.concat(parts, ignore_index=True)


def test_operating_points_are_chosen_on_validation_and_measured_on_test() -> None:
    frame, options = two_splits(), {"classes": ("c0", "c1"), "of": "c1"}
    found = operating_points(frame, **options, resamples=25, seed=3)
    val, test = (to_arrays(frame[frame["split"] == split], classes=("c0", "c1")) for split in ("val", "test"))
    at = sweep(val.probabilities[:, 1], val.truth[:, 1])
    assert [point["rule"] for point in found] == ["youden", "sensitivity >= 0.9", "sensitivity >= 0.95"]
    thresholds = [youden(at), target_sensitivity(at, 0.9), target_sensitivity(at, 0.95)]
    assert [point["threshold"] for point in found] == thresholds
    for point, threshold in zip(found, thresholds, strict=True):
        assert (point["of"], point["chosen_on"], point["val"]["n"]) == ("c1", "val", 50)
        called = val.probabilities[:, 1] >= threshold
        assert point["val"]["sensitivity"] == pytest.approx(recall_score(val.truth[:, 1], called))
        assert point["val"]["specificity"] == pytest.approx(recall_score(~val.truth[:, 1], ~called))
        measured = summarise_arrays(one_against_rest(test, 1, threshold), resamples=25, seed=3)["per_class"]["c1"]
        assert point["test"] == {"n": 50, "patients": 50, "metrics": {name: measured[name] for name in REPORTED}}
        said = test.probabilities[:, 1] >= threshold
        assert measured["f1"]["value"] == pytest.approx(f1_score(test.truth[:, 1], said))
    other = operating_points(frame, **options, report="val", sensitivities=(0.5,), resamples=20)
    assert [point["rule"] for point in other] == ["youden", "sensitivity >= 0.5"]
    assert other[0]["val"]["n"] == 50
    few = two_splits(patients=9)
    assert operating_points(few, **options, sensitivities=()) == operating_points(
        few, **options, sensitivities=(), resamples=2000, seed=0
    )
    for lacking in ("val", "test"):
        with pytest.raises(UserError, match=f"no labelled image of the {lacking} split"):
            operating_points(frame[frame["split"] != lacking], **options)


def test_several_labels_in_one_split_are_several_in_both() -> None:
    """No validation image has two labels, and their probabilities do not sum to one."""
    frame = two_splits()
    frame["prob_c0"] = 0.9
    frame.loc[frame.index[-1], "label"] = "c0;c1"
    options = {"classes": ("c0", "c1"), "of": "c1", "resamples": 5}
    assert operating_points(frame, **options) == operating_points(frame, **options, multilabel=True)
    swapped = frame.assign(split=frame["split"].map({"val": "test", "test": "val"}))
    assert operating_points(swapped, **options) == operating_points(swapped, **options, multilabel=True)
    assert recalibrate(frame, classes=("c0", "c1"))[1].multilabel
    assert set(summarise(frame, classes=("c0", "c1"), resamples=5)["val"]["metrics"]) >= {"f1_micro"}


@pytest.mark.parametrize("at", [0.0, 1.0, -0.1, 1.5])
def test_a_threshold_probability_lies_between_0_and_1(at: float) -> None:
    with pytest.raises(UserError, match=r"outside 0\.\.1"):
        decision_curve(draw(np.random.default_rng(0), patients=4), of="c1", thresholds=(0.5, at))


def test_a_decision_curve_by_hand() -> None:
    p = draw(np.random.default_rng(0), patients=9, images_each=2)
    table = decision_curve(p, of="c0", thresholds=(0.2, float(p.probabilities[4, 0])), resamples=80, seed=6)
    weights = np.concatenate(list(draw_patients(9, width=2, resamples=80, seed=6)))
    for row in table.itertuples():
        worth = np.where(p.truth[:, 0], 1.0, -row.threshold / (1 - row.threshold))
        called = worth * (p.probabilities[:, 0] >= row.threshold)
        assert (row.model, row.treat_all, row.treat_none) == pytest.approx((called.mean(), worth.mean(), 0.0))
        heavy = weights[:, p.patients]
        drawn = heavy @ called / heavy.sum(axis=1)
        assert (row.low, row.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    whole = decision_curve(p, of="c1", resamples=3)
    assert whole["threshold"].tolist() == pytest.approx([n / 100 for n in range(1, 100)]) == list(THRESHOLDS)
    given = decision_curve(p, of="c1", thresholds=(0.3,))
    assert given.equals(decision_curve(p, of="c1", thresholds=(0.3,), resamples=2000, seed=0))
    alone = decision_curve(of(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), patients=np.zeros(2, int)), of="c1")
    assert alone["low"].isna().all()
    assert alone["high"].isna().all()
