"""Recalibration finds what was done to the probabilities, from validation images alone; reliability counts by hand."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression

from msmae.errors import UserError
from msmae.statistics.calibration import Calibrator, fit_calibrator, recalibrate
from msmae.statistics.intervals import Interval, entry
from msmae.statistics.metrics import prepare
from msmae.statistics.predictions import Predictions
from msmae.statistics.reliability import calibration_line, clustered_share, reliability
from simulated import as_frame, draw, of

CLASSES = ("c0", "c1", "c2")


def loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.mean(np.log(probabilities[truth])))


def binary(n: int = 400, slope: float = 0.5, shift: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log odds must be taken times ``slope`` plus ``shift`` to be true."""
    generator = np.random.default_rng(2)
    x = 2 * generator.normal(size=n)
    return expit(x), generator.random(n) < expit(slope * x + shift)


def test_the_temperature_is_the_one_that_was_applied() -> None:
    sure = draw(np.random.default_rng(0), patients=40_000, classes=4, sureness=2.5)
    fitted = fit_calibrator(sure.probabilities, sure.truth)
    assert 1 / fitted.scale[0] == pytest.approx(2.5, rel=0.03)
    assert (len(set(fitted.scale)), fitted.bias, fitted.note) == (1, (0, 0, 0, 0), None)


def test_the_temperature_is_where_the_likelihood_is_level() -> None:
    sure = draw(np.random.default_rng(0), patients=300, classes=4, sureness=2.5)
    fitted = fit_calibrator(sure.probabilities, sure.truth)
    logits = np.log(sure.probabilities)
    gradient = np.mean(np.sum((softmax(logits * fitted.scale[0], axis=1) - sure.truth) * logits, axis=1))
    assert gradient == pytest.approx(0, abs=1e-10)
    calibrated = fitted(sure.probabilities)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), sure.probabilities.argmax(axis=1))
    assert loss(calibrated, sure.truth) < loss(sure.probabilities, sure.truth)


@pytest.mark.parametrize("method", ["none", "temperature"])
def test_class_weights_of_the_training_loss_are_undone(method: str) -> None:
    honest, weights = draw(np.random.default_rng(1), patients=5000, classes=3), (5.0, 2.0, 1.0)
    weighted = honest.probabilities * weights
    weighted /= weighted.sum(axis=1, keepdims=True)
    fitted = fit_calibrator(weighted, honest.truth, method=method, class_weights=weights)  # type: ignore[arg-type]
    tolerance = 1e-12 if method == "none" else 0.03
    np.testing.assert_allclose(fitted(weighted), honest.probabilities, atol=tolerance)
    blind = fit_calibrator(weighted, honest.truth, method=method)  # type: ignore[arg-type]
    assert loss(blind(weighted), honest.truth) > loss(fitted(weighted), honest.truth) + 0.05


def test_weights_are_undone_before_the_temperature_is_fitted() -> None:
    honest, weights = draw(np.random.default_rng(1), patients=20_000, classes=3), (5.0, 2.0, 1.0)
    model = softmax(2 * np.log(honest.probabilities) + np.log(weights), axis=1)
    fitted = fit_calibrator(model, honest.truth, class_weights=weights)
    np.testing.assert_allclose(fitted.scale, 0.5, atol=0.01)
    np.testing.assert_allclose(fitted(model), honest.probabilities, atol=0.02)


def test_positive_weights_of_several_labels_are_undone() -> None:
    honest = np.random.default_rng(0).random((50, 2)) * 0.9 + 0.05
    weighted = expit(logit(honest) + np.log([4.0, 0.5]))
    fitted = fit_calibrator(weighted, honest > 0.5, method="none", class_weights=(4.0, 0.5), multilabel=True)
    np.testing.assert_allclose(fitted(weighted), honest, atol=1e-12)


def test_labels_that_are_not_known_do_not_move_the_temperature() -> None:
    generator = np.random.default_rng(0)
    given = generator.random((80, 2))
    truth = (generator.random((80, 2)) < given).astype(float)
    hidden = np.concatenate([truth, np.full((20, 2), np.nan)])
    more = np.concatenate([given, generator.random((20, 2))])
    fitted = fit_calibrator(more, hidden, multilabel=True)
    np.testing.assert_allclose(fitted.scale, fit_calibrator(given, truth, multilabel=True).scale, rtol=1e-9)


def test_only_the_validation_rows_are_looked_at() -> None:
    generator = np.random.default_rng(3)
    val = as_frame(draw(generator, patients=200, classes=3, sureness=2.0), split="val")
    test = as_frame(draw(generator, patients=200, classes=3, sureness=2.0))
    calibrated, fitted = recalibrate(pd.concat([val, test]), classes=CLASSES)
    scrambled = test.assign(label="c0")
    again, refitted = recalibrate(pd.concat([val, scrambled]), classes=CLASSES)
    assert fitted == refitted
    assert fitted.images == 200
    columns = [f"prob_{name}" for name in CLASSES]
    np.testing.assert_array_equal(calibrated[columns], again[columns])
    np.testing.assert_allclose(calibrated[columns], fitted(pd.concat([val, test])[columns].to_numpy()))
    assert calibrated["predicted"].tolist() == [*val["predicted"], *test["predicted"]]
    before = prepare(of(np.array([CLASSES.index(x) for x in test["label"]]), test[columns].to_numpy())).as_is()
    after = prepare(
        of(np.array([CLASSES.index(x) for x in test["label"]]), calibrated.iloc[200:][columns].to_numpy())
    ).as_is()
    assert after.overall["ece"][0] < before.overall["ece"][0]
    assert after.overall["accuracy"][0] == before.overall["accuracy"][0]


def test_a_calibrator_survives_json() -> None:
    sure = draw(np.random.default_rng(0), patients=50, classes=3)
    fitted = fit_calibrator(sure.probabilities, sure.truth, class_weights=(1, 2, 3))
    again = Calibrator(**json.loads(json.dumps(asdict(fitted))))
    np.testing.assert_array_equal(again(sure.probabilities), fitted(sure.probabilities))


def test_what_cannot_be_fitted_is_said() -> None:
    perfect = of(np.array([0, 1, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]))
    fitted = fit_calibrator(perfect.probabilities, perfect.truth)
    assert fitted.scale == (1.0, 1.0)
    assert "every validation image correctly" in (fitted.note or "")
    hopeless = fit_calibrator(perfect.probabilities[::-1], perfect.truth)
    assert "say nothing" in (hopeless.note or "")
    with pytest.raises(UserError, match="2 class weights"):
        fit_calibrator(np.full((4, 3), 1 / 3), np.eye(3, dtype=bool)[[0, 1, 2, 1]], class_weights=(1, 2))
    with pytest.raises(UserError, match="no labelled validation image"):
        recalibrate(as_frame(perfect), classes=("c0", "c1"))


# --- reliability ---


def test_the_bins_add_up_to_the_ece() -> None:
    predictions = draw(np.random.default_rng(0), patients=100, images_each=3, classes=3, sureness=2.0)
    values = prepare(predictions).as_is()
    for of_class, expected in [(None, values.overall["ece"][0]), ("c1", values.per_class["ece"][0, 1])]:
        table = reliability(predictions, of=of_class)
        assert table["images"].sum() == predictions.images
        ece = (table["images"] * (table["probability"] - table["observed"]).abs()).sum() / predictions.images
        assert ece == pytest.approx(expected, abs=1e-12)
        assert ((table["from"] < table["probability"]) & (table["probability"] <= table["to"])).all()
        known = table.dropna()
        assert ((known["low"] <= known["observed"]) & (known["observed"] <= known["high"])).all()
        assert (table.loc[table["low"].isna(), "patients"] == 1).all()


def test_images_of_one_patient_count_for_less() -> None:
    truth = np.repeat([True, False, True, True, False, True], 10)
    alone = clustered_share(truth, np.arange(60))
    grouped = clustered_share(truth, np.arange(60) // 10)
    assert alone.low is not None
    assert grouped.low is not None
    assert grouped.low < alone.low - 0.15
    six = clustered_share(np.ones(60, dtype=bool), np.arange(60) // 10)
    assert six.low == clustered_share(np.ones(6, dtype=bool), np.arange(6)).low
    assert clustered_share(truth, np.zeros(60)).reason == "one patient only"


def test_the_calibration_line_is_logistic_regression() -> None:
    score, truth = binary()
    line = calibration_line(score, truth, np.arange(len(truth)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit(score)[:, None], truth)
    assert line["calibration_slope"]["value"] == pytest.approx(expected.coef_[0, 0], abs=1e-6)
    assert line["calibration_slope"]["low"] < 0.5 < line["calibration_slope"]["high"]
    intercept = line["calibration_intercept"]["value"]
    assert expit(logit(score) + intercept).mean() == pytest.approx(truth.mean(), abs=1e-9)
    assert not (line["calibration_slope"]["low"] < 1 < line["calibration_slope"]["high"])


def test_the_calibration_line_is_robust_to_clusters() -> None:
    """Every image ten times over is no new information: the interval hardly moves when the copies share their
    patient.
    """
    score, truth = binary(100)
    once = calibration_line(score, truth, np.arange(100))["calibration_slope"]
    copies = calibration_line(np.repeat(score, 10), np.repeat(truth, 10), np.repeat(np.arange(100), 10))
    assert copies["calibration_slope"] == pytest.approx(once)
    careless = calibration_line(np.repeat(score, 10), np.repeat(truth, 10), np.arange(1000))["calibration_slope"]
    assert careless["high"] - careless["low"] < 0.4 * (once["high"] - once["low"])


def test_no_line_through_nothing() -> None:
    score, truth = np.linspace(0.1, 0.9, 20), np.arange(20) >= 10
    assert "separates" in calibration_line(score, truth, np.arange(20))["calibration_slope"]["reason"]
    assert calibration_line(score, truth, np.arange(20))["calibration_intercept"]["value"] is not None
    assert (
        "the same probability"
        in calibration_line(np.full(20, 0.5), truth, np.arange(20))["calibration_slope"]["reason"]
    )
    assert calibration_line(score, truth | True, np.arange(20))["calibration_intercept"]["value"] is None
    assert calibration_line(score, truth, np.zeros(20))["calibration_slope"]["reason"] == "one patient only"
    rounded = np.full(20, 0.25) + np.where(np.arange(20) % 3 == 0, 1e-16, 0)  # the folds of a constant answer
    for last in (rounded, rounded.astype(np.float32) + np.float32(3e-8) * (np.arange(20) % 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (
                "same probability" in calibration_line(last, truth, np.arange(20) // 2)["calibration_slope"]["reason"]
            )
    certain = np.where(np.arange(20) % 3 == 0, 0.0, 1.0)  # wrong and sure of it
    assert np.isfinite(calibration_line(certain, truth, np.arange(20))["calibration_slope"]["value"])


def test_what_is_not_finite_is_not_written() -> None:
    assert entry(0.5, Interval(low=np.nan, high=1.0))["low"] is None
    assert "reason" in entry(np.nan, Interval(0.0, 1.0))
    assert entry(0.5, Interval(0.25, 1.0, "wilson")) == {"value": 0.5, "low": 0.25, "high": 1.0, "method": "wilson"}


def test_an_unknown_class_is_refused() -> None:
    predictions: Predictions = draw(np.random.default_rng(0), patients=10)
    with pytest.raises(UserError, match="no class 'c9'"):
        reliability(predictions, of="c9")
