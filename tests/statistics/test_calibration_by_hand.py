"""Calibration at its limits, and the calibration line and diagram against formulas written out here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from scipy.stats import t as student

from msmae.statistics import reliability as module
from msmae.statistics.calibration import Calibrator, calibration_errors, fit_calibrator, recalibrate
from msmae.statistics.intervals import no_interval, wilson
from msmae.statistics.metrics import prepare
from msmae.statistics.predictions import Predictions, to_arrays
from msmae.statistics.reliability import calibration_line, clustered_share, reliability
from simulated import as_frame, draw, of

# --- recalibration


def pair(scale: float, images: int = 100, right: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Every image is given the same odds, so that the best scale is known: logit(share right) / logit(p)."""
    p = expit(logit(right / images) / scale)
    return np.tile([p, 1 - p], (images, 1)), np.eye(2, dtype=bool)[np.r_[np.zeros(right, int), np.ones(20, int)]]


@pytest.mark.parametrize("scale", [0.0501, 0.5, 1.0, 3.0, 19.9])
def test_a_scale_between_a_twentieth_and_twenty_is_found(scale: float) -> None:
    probabilities, truth = pair(scale)
    fitted = fit_calibrator(probabilities, truth)
    assert fitted.scale == pytest.approx((scale, scale), rel=1e-5)
    assert (fitted.method, fitted.bias, fitted.multilabel, fitted.images, fitted.note) == (
        "temperature", (0.0, 0.0), False, 100, None
    )  # fmt: skip
    np.testing.assert_allclose(fitted(probabilities), np.tile([0.8, 0.2], (100, 1)))
    several = fit_calibrator(probabilities, truth, multilabel=True)
    assert several.scale == pytest.approx((scale, scale), rel=1e-5)
    assert several.multilabel
    np.testing.assert_allclose(several(probabilities), np.tile([0.8, 0.2], (100, 1)))


def test_beyond_these_scales_it_is_said() -> None:
    sharp, flat = (fit_calibrator(*pair(scale)) for scale in (20.1, 0.0499))
    assert sharp.scale == (1.0, 1.0)
    assert flat.scale == (0.05, 0.05)
    assert sharp.note
    assert "20" in (flat.note or "")
    assert fit_calibrator(*pair(3.0), method="none").scale == (1.0, 1.0)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_fit_is_the_likeliest_after_weights_are_undone(multilabel: bool) -> None:
    generator = np.random.default_rng(0)
    p = draw(generator, patients=150, classes=3, sureness=2.5)
    weights = np.array([0.5, 2.0, 3.0])
    shift = -np.log(weights)
    logits = (logit if multilabel else np.log)(p.probabilities) + shift

    def loss(scale: np.ndarray) -> float:
        if multilabel:
            return float(np.sum(np.logaddexp(0, np.where(p.truth, -1, 1) * scale[0] * logits)))
        return float(-np.log(softmax(scale[0] * logits, axis=1)[p.truth]).sum())

    best = float(minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}).x[0])
    fitted = fit_calibrator(p.probabilities, p.truth, class_weights=weights.tolist(), multilabel=multilabel)
    assert fitted.scale == pytest.approx([best] * 3, abs=1e-5)
    assert fitted.bias == pytest.approx((best * shift).tolist(), abs=1e-5)
    expected = expit(fitted.scale[0] * logits) if multilabel else softmax(fitted.scale[0] * logits, axis=1)
    np.testing.assert_allclose(fitted(p.probabilities), expected)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0), (1.0, 0.0), (1.0, -1.0)])
def test_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(Exception, match="class weights"):
        fit_calibrator(*pair(1.0), class_weights=weights)
    assert fit_calibrator(*pair(1.0), class_weights=(0.01, 1.0), method="none").bias[0] == pytest.approx(np.log(100))


def test_zero_and_one_stay_finite() -> None:
    sure = np.array([[0.0, 1.0], [1.0, 0.0]])
    for multilabel in (False, True):
        found = Calibrator("none", (0.5, 0.5), (0.0, 0.0), multilabel, 2)(sure)
        assert np.isfinite(found).all()
        assert found.argmax(axis=1).tolist() == [1, 0]
    tiny = np.finfo(np.float32).tiny
    np.testing.assert_allclose(
        Calibrator("none", (0.5, 0.5), (0.0, 0.0), False, 2)(sure)[0, 0], tiny**0.5 / (1 + tiny**0.5)
    )
    eps = np.finfo(np.float64).eps
    np.testing.assert_allclose(
        Calibrator("none", (1.0, 1.0), (0.0, 0.0), True, 2)(sure), [[eps, 1 - eps], [1 - eps, eps]], rtol=1e-9
    )


def three_splits() -> pd.DataFrame:
    parts = [
        as_frame(draw(np.random.default_rng(n), patients=60, sureness=3), split=split)
        for n, split in enumerate(("val", "test", "train"))
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[[0, 61], "label"] = ""
    return frame


def test_all_rows_get_what_the_labelled_validation_rows_say() -> None:
    frame = three_splits()
    columns = ["prob_c0", "prob_c1"]
    after, fitted = recalibrate(frame, classes=("c0", "c1"), class_weights=(1.0, 2.0))
    rows = to_arrays(frame.iloc[1:60], classes=("c0", "c1"))
    wanted = fit_calibrator(rows.probabilities, rows.truth, class_weights=(1.0, 2.0))
    assert fitted.scale == pytest.approx(wanted.scale)
    assert (fitted.images, fitted.multilabel, fitted.method) == (59, False, "temperature")
    np.testing.assert_allclose(after[columns], wanted(frame[columns].to_numpy()))
    assert after.drop(columns=columns).equals(frame.drop(columns=columns))
    assert frame.equals(three_splits())
    plain, _ = recalibrate(frame, classes=("c0", "c1"), method="none")
    np.testing.assert_allclose(plain[columns], frame[columns])
    assert recalibrate(frame, classes=("c0", "c1"), multilabel=True)[1].multilabel
    assert recalibrate(frame.assign(predicted=frame["predicted"] + ";"), classes=("c0", "c1"))[1].multilabel


def test_errors_before_and_after_are_those_of_each_split() -> None:
    before = three_splits()
    after, _ = recalibrate(before, classes=("c0", "c1"))
    unlabelled = before.assign(label=before["label"].where(before["split"] != "train", ""))
    same_labels = after.assign(label=unlabelled["label"])
    found = calibration_errors(unlabelled, same_labels, classes=("c0", "c1"), multilabel=False)
    assert list(found) == ["val", "test"]
    for split, errors in found.items():
        for when, frame in (("before", before), ("after", after)):
            rows = frame[(frame["split"] == split) & (frame["label"] != "")]
            values = prepare(to_arrays(rows, classes=("c0", "c1"))).as_is().overall
            assert {name: error[when] for name, error in errors.items()} == pytest.approx(
                {name: values[name][0] for name in ("ece", "log_loss", "brier")}
            )
        assert errors["log_loss"]["after"] < errors["log_loss"]["before"]


# --- the line


def sandwich(x: np.ndarray, y: np.ndarray, patients: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Slope and intercept in the large with robust ends, by a general optimiser and sums written out."""
    count = len(set(patients.tolist()))

    def ends(design: np.ndarray, offset: np.ndarray) -> tuple[float, float, float]:
        def loss(b: np.ndarray) -> float:
            z = design @ b + offset
            return float(np.sum(np.logaddexp(0, z) - y * z))

        b = minimize(loss, np.zeros(design.shape[1]), method="BFGS", options={"gtol": 1e-9}).x
        p = expit(design @ b + offset)
        bread = np.linalg.inv(sum(q * (1 - q) * np.outer(row, row) for q, row in zip(p, design, strict=True)))
        meat = np.zeros_like(bread)
        for name in set(patients.tolist()):
            pull = sum((y[i] - p[i]) * design[i] for i in np.flatnonzero(patients == name))
            meat += np.outer(pull, pull)
        error = np.sqrt((bread @ meat @ bread)[0, 0] * count / (count - 1))
        reach = student.ppf(0.975, count - 1) * error
        return b[0], b[0] - reach, b[0] + reach

    slope = ends(np.stack([x, np.ones(len(x))], axis=1), np.zeros(len(x)))
    return slope, ends(np.ones((len(x), 1)), x)


@pytest.mark.parametrize("turned", [1, -1])
@pytest.mark.parametrize("images_each", [1, 4])
def test_slope_and_intercept_with_their_ends_by_hand(turned: int, images_each: int) -> None:
    """Turned round, the slope is under -1 and the intercept far from nothing: the fit arrives all the same."""
    generator = np.random.default_rng(1)
    x = generator.normal(0, 1.2, 240)
    y = generator.random(240) < expit(turned * 1.6 * x - 2.2)
    patients = np.arange(240) // images_each
    line = calibration_line(expit(x), y, patients)
    for entry, wanted in zip(line.values(), sandwich(x, y.astype(float), patients), strict=True):
        assert (entry["value"], entry["low"], entry["high"]) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        assert entry["method"] == "cluster-robust"
    assert turned * line["calibration_slope"]["value"] > 1.2


@pytest.mark.parametrize(("given", "share"), [(0.9, 0.2), (0.2, 0.9), (0.5, 0.5)])
def test_the_intercept_of_one_answer_is_the_difference_of_the_log_odds(given: float, share: float) -> None:
    truth = np.arange(50) < 50 * share
    line = calibration_line(np.full(50, given), truth, np.arange(50))
    assert line["calibration_intercept"]["value"] == pytest.approx(logit(share) - logit(given), abs=1e-9)
    reach = student.ppf(0.975, 49) * np.sqrt(50 / 49 / (50 * share * (1 - share)))
    assert line["calibration_intercept"]["high"] == pytest.approx(logit(share) - logit(given) + reach)
    assert line["calibration_slope"]["value"] is None


def test_a_line_needs_both_outcomes_two_patients_and_scores_that_overlap() -> None:
    score, truth = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    for line in (
        calibration_line(score, truth & False, np.arange(4)),
        calibration_line(score, truth | True, np.arange(4)),
        calibration_line(score, truth, np.zeros(4)),
    ):
        assert [entry["value"] for entry in line.values()] == [None, None]
    for separated in (score, 1 - score):  # the two sides touch at 0.4 only
        line = calibration_line(separated, truth, np.arange(4))
        assert line["calibration_slope"]["value"] is None
        assert line["calibration_intercept"]["value"] is not None
    overlap = calibration_line(np.array([0.1, 0.5, 0.4, 0.8]), truth, np.arange(4))
    assert overlap["calibration_slope"]["value"] is not None


def test_a_fit_that_does_not_arrive_is_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_fit_logistic", lambda *arguments: None)
    score, truth = np.array([0.1, 0.5, 0.4, 0.8]), np.array([False, False, True, True])
    for entry in calibration_line(score, truth, np.arange(4)).values():
        assert (entry["value"], entry["low"], entry["high"]) == (None, None, None)
        assert entry["reason"]


# --- the diagram


def test_a_bin_holds_its_upper_edge_and_its_own_figures() -> None:
    scores = np.array([0.0, 0.25, 0.3, 0.5, 0.5, 0.75, 1.0, 1.0])
    truth = np.array([0, 1, 0, 1, 0, 1, 1, 1])
    p = of(truth, np.stack([1 - scores, scores], axis=1), patients=np.array([0, 1, 0, 2, 2, 3, 1, 1]))
    table = reliability(p, of="c1", bins=4)
    assert table["from"].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert table["to"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert table["images"].tolist() == [2, 3, 1, 2]
    assert table["patients"].tolist() == [2, 2, 1, 1]
    assert table["probability"].tolist() == pytest.approx([0.125, 1.3 / 3, 0.75, 1.0])
    assert table["observed"].tolist() == pytest.approx([0.5, 1 / 3, 1.0, 1.0])
    assert table["low"].isna().tolist() == table["high"].isna().tolist() == [False, False, True, True]
    for row in (0, 1):
        inside = [[0, 1], [2, 3, 4]][row]
        wanted = clustered_share(p.truth[inside, 1], p.patients[inside])
        assert (table["low"][row], table["high"][row]) == (wanted.low, wanted.high)
    assert len(reliability(p).query("`from` < 0.4")) == 0  # the largest of two probabilities is a half at least
    first = reliability(p, bins=2)
    assert first["probability"].tolist() == pytest.approx([0.5, np.mean([1, 0.75, 0.7, 0.75, 1, 1])])
    assert first["observed"].tolist() == pytest.approx([0.5, 5 / 6])


def test_a_diagram_of_a_class_leaves_out_what_is_not_known_of_it() -> None:
    truth = np.array([[True, False], [False, True], [True, True]])
    p = Predictions(
        classes=("a", "b"), truth=truth, predicted=truth, probabilities=np.array([[0.9, 0.1], [0.2, 0.7], [0.6, 0.6]]),
        patients=np.arange(3), patient_names=np.array(list("uvw"), dtype=object), multilabel=True,
        known=np.array([[True, True], [True, False], [True, True]]),
    )  # fmt: skip
    assert reliability(p, of="b")["images"].sum() == 2
    assert reliability(p, of="a")["images"].sum() == 3
    assert len(reliability(p, of="a", bins=1)) == 1


def test_a_share_of_clusters_counts_as_so_many_images_by_hand() -> None:
    truth = np.array([1, 1, 0, 0, 1, 0, 1, 1, 1], dtype=bool)
    patients = np.array([5, 5, 5, 7, 7, 9, 9, 11, 11])
    share = 6 / 9
    sums = [sum(truth[patients == name] - share) for name in (5, 7, 9, 11)]
    variance = 4 / 3 * sum(x**2 for x in sums) / 81
    effective = min(9, share * (1 - share) / variance)
    wanted = wilson(share * effective, effective)
    found = clustered_share(truth, patients)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    even = clustered_share(np.array([1, 0, 1, 0], dtype=bool), np.array([0, 0, 1, 1]))
    assert (even.low, even.high) == pytest.approx((wilson(2, 4).low, wilson(2, 4).high))  # no variance: all images
    nobody = clustered_share(np.zeros(6, dtype=bool), np.array([0, 0, 1, 1, 2, 2]))
    assert nobody == wilson(0, 3)
    assert clustered_share(truth, np.zeros(9)) == no_interval("one patient only")
