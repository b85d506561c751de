"""Intervals at their edges: by their formulas, where nine tenths of the draws are defined, and at the least p-value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, norm
from scipy.stats import t as student

from msmae.statistics import intervals
from msmae.statistics.intervals import (
    Interval,
    alike,
    bca,
    bca_p_value,
    bootstrap,
    clopper_pearson,
    draw_patients,
    entry,
    jackknife,
    leave_out,
    percentile,
    perfect_ranking,
    undefined,
    wilson,
)
from msmae.statistics.metrics import prepare
from msmae.statistics.predictions import Predictions
from msmae.statistics.uncertainty import ece_intervals, resample
from simulated import draw

MANY = 10**9


def drawn(size: int = 500, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(4, size=size)


def reference_bca(value: float, draws: np.ndarray, left_out: np.ndarray, units: int) -> tuple[float, float]:
    """Efron (1987) with Hesterberg's (2015) wider tails, written from the papers."""
    below = (np.sum(draws < value) + np.sum(draws == value) / 2) / len(draws)
    z0 = norm.ppf(below)
    pull = left_out.mean() - left_out
    a = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    wide = student.ppf(0.975, units - 1) * np.sqrt(units / (units - 1))
    return tuple(float(np.quantile(draws, norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))))) for z in (-wide, wide))  # type: ignore[return-value]


@pytest.mark.parametrize("units", [6, 15, 80])
def test_bca_is_the_formula_of_its_papers(units: int) -> None:
    draws, left_out = drawn(), np.random.default_rng(1).gamma(1.5, size=units)
    found = bca(4.3, draws, left_out, units=units)
    assert found.method == "bca"
    assert (found.low, found.high) == pytest.approx(reference_bca(4.3, draws, left_out, units))
    plain = percentile(draws, units=units)
    wide = student.ppf(0.975, units - 1) * np.sqrt(units / (units - 1))
    assert (plain.low, plain.high) == pytest.approx(tuple(np.quantile(draws, norm.cdf([-wide, wide]))))
    narrow = percentile(draws, units=units, level=0.5)
    wide = student.ppf(0.75, units - 1) * np.sqrt(units / (units - 1))
    assert (narrow.low, narrow.high) == pytest.approx(tuple(np.quantile(draws, norm.cdf([-wide, wide]))))


@pytest.mark.parametrize("value", [2.5, 4.0, 6.0])
@pytest.mark.parametrize("null", [3.0, 5.5])
def test_the_p_value_is_the_formula_inverted(value: float, null: float) -> None:
    draws, left_out, units = drawn() - null, np.random.default_rng(1).gamma(1.5, size=12), 12
    value -= null
    z0 = norm.ppf(np.mean(draws < value))
    pull = left_out.mean() - left_out
    a = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    at = norm.ppf(np.mean(draws < 0)) - z0
    reach = at / (1 + a * at) - z0
    wanted = 2 * student.sf(abs(reach) / np.sqrt(12 / 11), 11)
    assert bca_p_value(draws, left_out, value, units=units) == pytest.approx(max(wanted, 1 / 500))


def test_no_p_value_is_below_one_in_all_draws() -> None:
    """A positive bias pushes 0 further out than half a draw; the least p-value still is one draw."""
    draws, even = np.arange(1.0, 101.0), np.array([1.0, 2.0, 3.0])
    assert bca_p_value(draws, even, 70.0, units=MANY) == 1 / 100
    assert bca_p_value(-draws, even, -70.0, units=MANY) == 1 / 100
    skewed = np.array([0.0] * 30 + [30.0])  # so skewed that there is no room left
    assert bca_p_value(draws, -skewed, 50.0, units=MANY) == 1 / 100
    few = bca_p_value(draws, even, 50.5, units=3)
    assert few == pytest.approx(2 * student.sf(-norm.ppf(0.005) / np.sqrt(1.5), 2))
    assert bca_p_value(np.ones(50), even, 1.0, units=9) is None


def test_a_tenth_of_the_draws_may_be_undefined() -> None:
    draws = drawn(100)
    draws[:10] = np.nan
    rest = draws[10:]
    assert percentile(draws, units=MANY).low == pytest.approx(np.quantile(rest, 0.025), abs=1e-6)
    assert bca(4.0, draws, np.arange(5.0), units=9).low is not None
    draws[10] = np.nan
    for none in (percentile(draws, units=9), bca(4.0, draws, np.arange(5.0), units=9)):
        assert (none.low, none.high) == (None, None)
        assert "89 %" in (none.reason or "")
    assert bca_p_value(draws, np.arange(5.0), 4.0, units=9) is None


def test_draws_are_alike_within_rounding() -> None:
    assert alike(np.array([0.5, 0.5 + 5e-13]))
    assert not alike(np.array([0.5, 0.5 + 2e-12]))
    assert alike(np.array([1e6, 1e6 + 5e-7]))
    assert not alike(np.array([-1e6, -1e6 + 2e-6]))


def test_a_value_on_the_end_but_for_rounding_is_its_interval_s_end() -> None:
    draws = np.concatenate([np.full(90, 1.0), np.linspace(0, 1, 10)])
    for value in (1.0, 1.0 + 5e-13, 1.0 - 5e-13):
        found = bca(value, draws, np.arange(9.0), units=20)
        assert found.low is not None
        assert found.low <= value <= found.high  # type: ignore[operator]
    beside = bca(1.5, draws, np.arange(9.0), units=20)
    assert (beside.low, beside.high) == (None, None)
    assert "beside" in (beside.reason or "")
    under = bca(-0.5, draws, np.arange(9.0), units=20)
    assert under.low is None


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (2, 7), (2.5, 6.25)])
def test_wilson_and_clopper_pearson_by_their_equations(successes: float, trials: float) -> None:
    found = wilson(successes, trials)
    for end in (found.low, found.high):
        if end in (0.0, 1.0):
            continue
        z = (successes / trials - end) / np.sqrt(end * (1 - end) / trials)  # type: ignore[operator]
        assert abs(z) == pytest.approx(norm.ppf(0.975))
    exact = clopper_pearson(successes, trials)
    if successes:
        assert beta.cdf(exact.low, successes, trials - successes + 1) == pytest.approx(0.025)
    if successes < trials:
        assert beta.sf(exact.high, successes + 1, trials - successes) == pytest.approx(0.025)
    assert (found.low == 0.0, exact.low == 0.0) == (successes == 0,) * 2
    assert (found.high == 1.0, exact.high == 1.0) == (successes == trials,) * 2
    assert (found.method, exact.method) == ("wilson", "clopper-pearson")


def test_without_a_trial_there_is_no_interval() -> None:
    for none in (wilson(0, 0), clopper_pearson(0, 0)):
        assert (none.low, none.high) == (None, None)
        assert none.reason
    assert wilson(1, 1).low is not None
    for level in (0.8, 0.99):
        assert wilson(0, 4, level=level).high == pytest.approx(
            norm.ppf((1 + level) / 2) ** 2 / (4 + norm.ppf((1 + level) / 2) ** 2)
        )
        assert clopper_pearson(4, 4, level=level).low == pytest.approx(((1 - level) / 2) ** 0.25)
        assert perfect_ranking(1.0, 4, level=level).low == pytest.approx(((1 - level) / 2) ** 0.25)
        assert perfect_ranking(0.0, 4, level=level).high == pytest.approx(1 - ((1 - level) / 2) ** 0.25)


def test_an_entry_holds_numbers_or_a_reason() -> None:
    assert entry(0.5, Interval(0.25, 0.75, "bca")) == {"value": 0.5, "low": 0.25, "high": 0.75, "method": "bca"}
    none = entry(0.5, Interval(None, None, reason="why"))
    assert none == {"value": 0.5, "low": None, "high": None, "reason": "why"}
    for low, high in ((-np.inf, 1.0), (0.0, np.nan)):
        cut = entry(0.5, Interval(low, high, "bca"))
        assert (cut["value"], cut["low"], cut["high"]) == (0.5, None, None)
        assert cut["reason"]
    for value in (np.nan, np.inf):
        assert entry(value, Interval(0.0, 1.0, "bca"))["value"] is None
    assert undefined("why") == {"value": None, "low": None, "high": None, "reason": "why"}


def test_draws_are_whole_samples_of_the_generator() -> None:
    rows = np.concatenate(list(draw_patients(5, width=3, resamples=7, seed=2)))
    wanted = np.random.default_rng(2).integers(5, size=(7, 5))
    assert rows.tolist() == [[float((row == unit).sum()) for unit in range(5)] for row in wanted]


def test_chunks_follow_the_memory_and_no_more_than_200_groups_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "WORKING_SET", 1000)
    assert [len(part) for part in draw_patients(5, width=300, resamples=8, seed=0)] == [3, 3, 2]
    assert [len(part) for part in draw_patients(500, width=3, resamples=5, seed=0)] == [2, 2, 1]
    assert [len(part) for part in draw_patients(5, width=3000, resamples=2, seed=0)] == [1, 1]
    assert [len(part) for part in leave_out(7, width=300, seed=0)] == [3, 3, 1]
    assert [len(part) for part in leave_out(2, width=5000, seed=0)] == [1, 1]
    groups = np.concatenate(list(leave_out(450, width=1, seed=3)))
    assert groups.shape == (200, 450)
    assert (groups == 0).sum(axis=0).tolist() == [1] * 450
    assert sorted((groups == 0).sum(axis=1)) == [2] * 150 + [3] * 50
    single = np.concatenate(list(leave_out(6, width=1, seed=3)))
    assert sorted(map(tuple, single.tolist())) == sorted(map(tuple, (1 - np.eye(6)).tolist()))
    other = np.concatenate(list(leave_out(450, width=1, seed=4)))
    assert (other != groups).any()


def test_bootstrap_and_jackknife_are_the_metrics_of_their_weights() -> None:
    metrics = prepare(draw(np.random.default_rng(0), patients=9, images_each=2, classes=3))
    weights = np.concatenate(list(draw_patients(9, width=1, resamples=20, seed=6)))
    kept = np.concatenate(list(leave_out(9, width=1, seed=6)))
    for found, rows in ((bootstrap(metrics, resamples=20, seed=6), weights), (jackknife(metrics, seed=6), kept)):
        wanted = metrics(rows)
        assert set(found.overall) == set(wanted.overall)
        for name in wanted.overall:
            np.testing.assert_allclose(found.overall[name], wanted.overall[name])
        np.testing.assert_allclose(found.per_class["auroc"], wanted.per_class["auroc"])
    assert "auroc" not in bootstrap(metrics, resamples=3, seed=6, areas=False).overall
    assert "auroc" not in jackknife(metrics, seed=6, areas=False).overall


# --- which interval a metric has ---


def reference_ece(gaps: np.ndarray, images: np.ndarray, weights: np.ndarray, level: float) -> tuple[float, float]:
    """gaps [P, bins], images [P]: the value less the error, and the longest draw; one draw after another."""
    seen = gaps.sum(axis=0) / images.sum()
    drawn = [(w @ gaps) / (w @ images) for w in weights]
    error = np.quantile([np.abs(d - seen).sum() for d in drawn], (1 + level) / 2)
    length = np.quantile([np.abs(d).sum() for d in drawn], (1 + level) / 2)
    value = np.abs(seen).sum()
    return max(0.0, value - error), max(value, length)


def test_the_interval_of_a_calibration_error_by_hand() -> None:
    generator = np.random.default_rng(3)
    gaps, images = generator.normal(0.2, 0.4, size=(10, 2, 4)), generator.integers(1, 5, size=(10, 2)).astype(float)
    weights = np.concatenate(list(draw_patients(10, width=8, resamples=300, seed=1)))
    for level in (0.95, 0.6):
        found = ece_intervals(gaps, images, resamples=300, seed=1, level=level)
        for k in range(2):
            wanted = reference_ece(gaps[:, k], images[:, k], weights, level)
            assert (found[k].low, found[k].high) == pytest.approx(wanted)
            assert found[k].method == "triangle"
    shared = ece_intervals(gaps, images[:, 0], resamples=300, seed=1)
    assert (shared[1].low, shared[1].high) == pytest.approx(reference_ece(gaps[:, 1], images[:, 0], weights, 0.95))
    (nothing,) = ece_intervals(np.zeros((4, 1, 3)), np.ones(4), resamples=20, seed=0)
    assert (nothing.low, nothing.high) == (None, None)


def bins_of(scores: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    gaps = np.zeros((len(scores), 15))
    gaps[np.arange(len(scores)), np.clip(np.ceil(scores * 15).astype(int) - 1, 0, 14)] = scores - outcomes
    return gaps


def patients_sums(gaps: np.ndarray, patients: np.ndarray) -> np.ndarray:
    return np.stack([gaps[patients == unit].sum(axis=0) for unit in range(patients.max() + 1)])


@pytest.mark.parametrize("multilabel", [False, True])
def test_each_calibration_error_has_its_own_interval(multilabel: bool) -> None:
    p = draw(np.random.default_rng(2), patients=20, images_each=2, classes=3, sureness=2)
    p = Predictions(**{**vars(p), "multilabel": multilabel})
    found = resample(prepare(p), p, resamples=100, seed=5)
    weights = np.concatenate(list(draw_patients(20, width=1, resamples=100, seed=5)))
    each = [patients_sums(bins_of(p.probabilities[:, c], p.truth[:, c]), p.patients) for c in range(3)]
    for c in range(3):
        interval = found.of_class("ece", 0.1, c)
        assert (interval.low, interval.high) == pytest.approx(reference_ece(each[c], np.full(20, 2.0), weights, 0.95))
    if multilabel:
        wanted = reference_ece(np.concatenate(each, axis=1), np.full(20, 6.0), weights, 0.95)
    else:
        first = p.probabilities.argmax(axis=1)
        top = bins_of(p.probabilities.max(axis=1), p.truth[np.arange(40), first])
        wanted = reference_ece(patients_sums(top, p.patients), np.full(20, 2.0), weights, 0.95)
    interval = found.overall("ece", 0.1)
    assert (interval.low, interval.high) == pytest.approx(wanted)


def test_other_metrics_have_bca_of_their_own_draws() -> None:
    p = draw(np.random.default_rng(2), patients=20, images_each=2, classes=3)
    metrics = prepare(p)
    found = resample(metrics, p, resamples=100, seed=5)
    value, draws, left_out = metrics.as_is(), bootstrap(metrics, resamples=100, seed=5), jackknife(metrics, seed=5)
    for name in ("brier", "accuracy", "auroc", "log_loss"):
        at = float(value.overall[name][0])
        assert found.overall(name, at) == bca(at, draws.overall[name], left_out.overall[name], units=20)
    for name in ("f1", "sensitivity", "auprc"):
        for c in range(3):
            at = float(value.per_class[name][0, c])
            wanted = bca(at, draws.per_class[name][:, c], left_out.per_class[name][:, c], units=20)
            assert found.of_class(name, at, c) == wanted


def test_a_perfect_auroc_counts_pairs_of_patients() -> None:
    """Class 0: two patients only have it, one has images of both kinds, three only lack it: three pairs."""
    label, patients = np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 1, 2, 2, 3, 4, 5, 5])
    truth = np.eye(2, dtype=bool)[label]
    p = Predictions(
        classes=("a", "b"), truth=truth, predicted=truth, probabilities=np.where(truth, 0.9, 0.1), patients=patients,
        patient_names=np.array(list("uvwxyz"), dtype=object), multilabel=False,
    )  # fmt: skip
    found = resample(prepare(p), p, resamples=20, seed=0)
    assert found.of_class("auroc", 1.0, 0) == clopper_pearson(3, 3)
    assert found.of_class("auroc", 0.0, 1) == clopper_pearson(0, 3)
    assert found.overall("auroc", 1.0) == clopper_pearson(3, 3, level=1 - 0.05 / 2)
    assert found.overall("accuracy", 1.0) == clopper_pearson(6, 6)
    assert found.of_class("sensitivity", 1.0, 0) == clopper_pearson(3, 3)
    assert found.of_class("specificity", 1.0, 0) == clopper_pearson(4, 4)
    assert found.of_class("sensitivity", 0.0, 1) == clopper_pearson(0, 4)
    assert found.of_class("npv", 1.0, 0) == clopper_pearson(4, 4)
    assert found.of_class("ppv", 1.0, 0) == clopper_pearson(3, 3)
    assert found.of_class("prevalence", 1.0, 0) == clopper_pearson(6, 6)
