"""Thresholds are chosen on validation only, and are the best there; net benefit by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmae.errors import UserError
from msmae.statistics.intervals import draw_patients, wilson
from msmae.statistics.thresholds import (
    decision_curve,
    one_against_rest,
    operating_points,
    sweep,
    target_sensitivity,
    youden,
)
from simulated import as_frame, draw

questions = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({truth for _, truth in rows}) == 2
)


def shares(score: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[float, float]:
    called = score >= threshold
    return float(called[truth].mean()), float((~called[~truth]).mean())


@given(rows=questions, target=st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]))
def test_no_other_threshold_does_better(rows: list[tuple[int, bool]], target: float) -> None:
    score, truth = np.array([s for s, _ in rows]) / 9, np.array([t for _, t in rows])
    at, every = sweep(score, truth), [*np.unique(score), np.inf]
    tried = {threshold: shares(score, truth, threshold) for threshold in every}

    best = sum(shares(score, truth, youden(at)))
    assert best == pytest.approx(max(sum(both) for threshold, both in tried.items() if np.isfinite(threshold)))
    enough = [both for both in tried.values() if both[0] >= target]
    best = max(enough, key=lambda both: (both[1], both[0]))  # most specific, then most sensitive
    assert shares(score, truth, target_sensitivity(at, target)) == best


@given(rows=questions)
def test_a_threshold_lies_halfway_between_the_scores_that_it_parts(rows: list[tuple[int, bool]]) -> None:
    score, truth = np.array([s for s, _ in rows]) / 9, np.array([t for _, t in rows])
    threshold = youden(sweep(score, truth))
    called, others = score[score >= threshold], score[score < threshold]
    assert threshold == pytest.approx((called.min() + others.max()) / 2 if len(others) else score.min())


def test_scores_that_are_neighbouring_numbers_are_parted() -> None:
    low = 0.3
    scores = np.array([low, np.nextafter(low, 1)])
    assert youden(sweep(scores, np.array([False, True]))) == scores[1]


def test_a_score_at_the_threshold_is_called() -> None:
    predictions = draw(np.random.default_rng(0), patients=9, classes=3)
    score = predictions.probabilities[:, 1]
    question = one_against_rest(predictions, 1, float(np.sort(score)[4]))
    assert question.predicted[:, 1].sum() == 5
    np.testing.assert_array_equal(question.predicted[:, 0], ~question.predicted[:, 1])
    np.testing.assert_array_equal(question.truth[:, 1], predictions.truth[:, 1])


def test_of_equal_thresholds_the_one_with_fewer_alarms() -> None:
    at = sweep(np.array([0.9, 0.7, 0.5, 0.3]), np.array([True, False, True, False]))
    assert youden(at) == pytest.approx(0.8)


def both_splits(patients: int = 150) -> pd.DataFrame:
    generator = np.random.default_rng(6)
    parts = [as_frame(draw(generator, patients=patients, classes=3), split=split) for split in ("val", "test")]
    return pd.concat(parts, ignore_index=True)


def test_the_test_images_do_not_choose_the_threshold() -> None:
    frame = both_splits()
    spoiled = frame.copy()
    rows = frame["split"] == "test"
    spoiled.loc[rows, "label"] = frame.loc[rows, "label"].to_numpy()[::-1]
    chosen = operating_points(frame, classes=("c0", "c1", "c2"), of="c0", resamples=50)
    after = operating_points(spoiled, classes=("c0", "c1", "c2"), of="c0", resamples=50)
    assert [point["threshold"] for point in chosen] == [point["threshold"] for point in after]
    assert [point["test"]["metrics"] for point in chosen] != [point["test"]["metrics"] for point in after]


def test_an_operating_point_reports_what_happens_on_test() -> None:
    frame = both_splits()
    surely_wrong = frame.index[(frame["split"] == "val") & (frame["label"] == "c0")][0]
    frame.loc[surely_wrong, ["prob_c0", "prob_c1", "prob_c2"]] = [0.0, 0.0, 1.0]
    points = operating_points(
        frame,
        classes=("c0", "c1", "c2"),
        of="c2",
        sensitivities=(0.9,),
        resamples=100,
    )
    assert [point["rule"] for point in points] == ["youden", "sensitivity >= 0.9"]
    test = frame[frame["split"] == "test"]
    score, truth = test["prob_c2"].to_numpy(), (test["label"] == "c2").to_numpy()
    for point in points:
        assert point["threshold"] not in frame.loc[frame["split"] == "val", "prob_c2"].to_numpy()  # between two
        sensitivity, specificity = shares(score, truth, point["threshold"])
        found = point["test"]["metrics"]
        assert found["sensitivity"]["value"] == pytest.approx(sensitivity, abs=1e-12)
        assert found["specificity"]["value"] == pytest.approx(specificity, abs=1e-12)
        assert found["sensitivity"]["low"] == pytest.approx(
            wilson(round(sensitivity * truth.sum()), truth.sum()).low, abs=1e-12
        )
    assert points[1]["val"]["sensitivity"] >= 0.9


def test_what_cannot_be_chosen_is_refused() -> None:
    frame = both_splits(20)
    classes = ("c0", "c1", "c2")
    with pytest.raises(UserError, match="no labelled image of the val split"):
        operating_points(frame[frame["split"] == "test"], classes=classes, of="c0")
    with pytest.raises(UserError, match="no class 'c7'"):
        operating_points(frame, classes=classes, of="c7")
    without = frame[(frame["split"] == "test") | (frame["label"] != "c0")]
    with pytest.raises(UserError, match="0 images with the class"):
        operating_points(without, classes=classes, of="c0")
    at = sweep(np.array([0.1, 0.2]), np.array([False, True]))
    with pytest.raises(UserError, match="a target sensitivity of 95"):
        target_sensitivity(at, 95)


def test_net_benefit_by_hand() -> None:
    predictions = draw(np.random.default_rng(0), patients=40, images_each=3, classes=3)
    curve = decision_curve(predictions, of="c1", thresholds=(0.1, 0.25, 0.6), resamples=300).set_index("threshold")
    score, truth, n = predictions.probabilities[:, 1], predictions.truth[:, 1], predictions.images
    for t, row in curve.iterrows():
        found, alarms = np.sum(truth & (score >= t)), np.sum(~truth & (score >= t))
        assert row["model"] == pytest.approx(found / n - alarms / n * t / (1 - t), abs=1e-12)
        assert row["treat_all"] == pytest.approx(truth.mean() - (1 - truth.mean()) * t / (1 - t), abs=1e-12)
        assert row["treat_none"] == 0
        assert row["low"] < row["model"] < row["high"]


def test_a_decision_curve_of_one_patient_has_no_band() -> None:
    alone = draw(np.random.default_rng(0), patients=1, images_each=5)
    assert decision_curve(alone, of="c1", resamples=10)["low"].isna().all()
    with pytest.raises(UserError, match="a threshold probability outside"):
        decision_curve(alone, of="c1", thresholds=(0.0, 0.5))


def test_the_band_of_a_decision_curve_is_the_middle_95_percent_of_redrawn_patients() -> None:
    predictions = draw(np.random.default_rng(3), patients=40, classes=2)
    found = decision_curve(predictions, of=predictions.classes[1], thresholds=(0.3,), resamples=4000).iloc[0]
    truth, score, patients = predictions.truth[:, 1], predictions.probabilities[:, 1], predictions.patients
    worth = np.where(truth, 1.0, -0.3 / 0.7) * (score >= 0.3)
    generator = np.random.default_rng(0)
    redrawn = []
    for _ in range(4000):
        chosen = generator.integers(0, predictions.patient_count, predictions.patient_count)
        rows = np.concatenate([np.flatnonzero(patients == patient) for patient in chosen])
        redrawn.append(worth[rows].mean())
    low, high = np.quantile(redrawn, [0.025, 0.975])
    spread = np.std(redrawn)  # the two ends of 4,000 draws differ from draw to draw by some hundredths of it
    assert found["low"] == pytest.approx(low, abs=0.2 * spread)
    assert found["high"] == pytest.approx(high, abs=0.2 * spread)


def test_each_threshold_has_the_band_of_its_own_draws() -> None:
    predictions = draw(np.random.default_rng(3), patients=40, classes=2)
    at = (0.1, 0.3, 0.6)
    found = decision_curve(predictions, of="c1", thresholds=at, resamples=500, seed=4)
    weights = np.concatenate(list(draw_patients(40, width=3, resamples=500, seed=4)))  # a patient has one image
    truth, score = predictions.truth[:, 1], predictions.probabilities[:, 1]
    for threshold, low, high in zip(at, found["low"], found["high"], strict=True):
        worth = np.where(truth, 1.0, -threshold / (1 - threshold)) * (score >= threshold)
        assert (low, high) == pytest.approx(
            tuple(np.quantile(weights @ worth[predictions.patients.argsort()] / 40, [0.025, 0.975]))
        )


def test_several_labels_an_image_are_found_from_the_labels_unless_said() -> None:
    frame = both_splits()
    several = frame.assign(label=[f"{label};c2" if label != "c2" else label for label in frame["label"]])
    options = {"classes": ("c0", "c1", "c2"), "of": "c0", "resamples": 20}
    assert operating_points(several, **options) == operating_points(several, multilabel=True, **options)
    assert operating_points(frame, **options) == operating_points(frame, multilabel=False, **options)
    said = operating_points(frame.assign(predicted=frame["predicted"] + ";"), multilabel=True, **options)
    assert [point["rule"] for point in said] == [point["rule"] for point in operating_points(frame, **options)]
    with pytest.raises(UserError):
        operating_points(several, multilabel=False, **options)


def test_images_without_a_label_and_of_other_splits_choose_and_measure_nothing() -> None:
    frames = [
        as_frame(draw(np.random.default_rng(seed), patients=30, classes=2)).assign(split=split)
        for seed, split in enumerate(("val", "test", "train"))
    ]
    unknown = [frame.head(5).assign(label="", image_path=[f"x{row}" for row in range(5)]) for frame in frames[:2]]
    options = {"classes": [name[5:] for name in frames[0] if name.startswith("prob_")], "resamples": 50}
    options["of"] = options["classes"][1]
    plain = operating_points(pd.concat(frames[:2], ignore_index=True), **options)
    assert operating_points(pd.concat([*frames, *unknown], ignore_index=True), **options) == plain
