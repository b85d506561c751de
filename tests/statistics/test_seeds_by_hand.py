"""Means and differences over seeds by their formulas, and the table of a comparison against its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from msmae.errors import UserError
from msmae.statistics.comparison import PRIMARY, as_family, compare_arms, holm, unnamed
from msmae.statistics.intervals import bca, bca_p_value, draw_patients, leave_out
from msmae.statistics.metrics import Values, prepare
from msmae.statistics.paired import Resampled, difference, matched, not_comparable, resample_together
from msmae.statistics.seeds import difference_over_seeds, mean_over_seeds, satterthwaite, t_interval, variances
from simulated import as_frame, draw, of

CLASSES = ("c0", "c1")
NOTHING = Values(overall={}, per_class={})


def run_of(name: str, value: float, draws: list[float], left_out: Sequence[float] = (0, 1)) -> Resampled:
    """One run of which one metric is known."""
    metrics = prepare(draw(np.random.default_rng(0), patients=3))
    parts = {"value": [value], "draws": draws, "left_out": left_out}
    return Resampled(
        metrics=metrics,
        patients=9,
        **{part: replace(NOTHING, overall={name: np.array(found)}) for part, found in parts.items()},
    )


def by_formula(values: list[float], means: np.ndarray, patients: int) -> tuple[float, float, float, float]:
    """Mean, its interval and its p-value."""
    of_patients, of_seeds = means.var(ddof=1) * patients / (patients - 1), np.var(values, ddof=1) / len(values)
    variance = of_patients + of_seeds
    freedom = variance**2 / (of_patients**2 / (patients - 1) + of_seeds**2 / (len(values) - 1))
    reach = student.ppf(0.975, freedom) * variance**0.5
    middle = float(np.mean(values))
    return middle, middle - reach, middle + reach, 2 * student.sf(abs(middle) / variance**0.5, freedom)


def test_the_interval_over_seeds_is_its_formula() -> None:
    draws = np.random.default_rng(0).normal(0.3, 0.02, size=(3, 40))
    values = [0.31, 0.28, 0.35]
    runs = [run_of("accuracy", v, d.tolist()) for v, d in zip(values, draws, strict=True)]
    middle, low, high, p = by_formula(values, draws.mean(axis=0), 9)
    found = mean_over_seeds(runs, "accuracy")
    assert (found["value"], found["low"], found["high"]) == pytest.approx((middle, low, high))
    assert found["seed_sd"] == pytest.approx(np.std(values, ddof=1))
    assert found["by_seed"] == values
    interval, p_value = t_interval(np.array(values), draws, patients=9)
    assert (interval.low, interval.high, p_value) == pytest.approx((low, high, p))
    assert found["method"] == interval.method


def test_a_difference_over_seeds_pairs_them() -> None:
    first, second = np.random.default_rng(1).normal(0.5, 0.05, size=(2, 2, 30))
    a = [run_of("brier", v, d.tolist()) for v, d in zip([0.5, 0.6], first, strict=True)]
    b = [run_of("brier", v, d.tolist()) for v, d in zip([0.45, 0.7], second, strict=True)]
    found = difference_over_seeds(a, b, "brier")
    wanted = by_formula([0.05, -0.1], (first - second).mean(axis=0), 9)
    assert (found["value"], found["low"], found["high"], found["p_value"]) == pytest.approx(wanted)
    assert found["by_seed"] == pytest.approx([0.05, -0.1])
    assert found["seed_sd"] == pytest.approx(0.15 / 2**0.5)
    with pytest.raises(ValueError, match="zip"):
        difference_over_seeds(a, b[:1], "brier")


def test_one_seed_has_the_interval_of_its_patients_and_no_deviation() -> None:
    draws = np.random.default_rng(2).normal(0.4, 0.05, size=(2, 200))
    left_out = np.random.default_rng(3).normal(size=(2, 9))
    a, b = (
        run_of("mcc", value, d.tolist(), left.tolist())
        for value, d, left in zip((0.41, 0.38), draws, left_out, strict=True)
    )
    mean = mean_over_seeds([a], "mcc")
    wanted = bca(0.41, draws[0], left_out[0], units=9)
    assert (mean["value"], mean["low"], mean["high"]) == (0.41, wanted.low, wanted.high)
    assert (mean["seed_sd"], mean["by_seed"]) == (None, [0.41])
    found = difference_over_seeds([a], [b], "mcc")
    assert {name: found[name] for name in difference(a, b, "mcc")} == difference(a, b, "mcc")
    assert found["seed_sd"] is None
    assert found["by_seed"] == pytest.approx([0.03])
    wanted = bca(0.41 - 0.38, draws[0] - draws[1], left_out[0] - left_out[1], units=9)
    assert (found["low"], found["high"]) == (wanted.low, wanted.high)
    p = bca_p_value(draws[0] - draws[1], left_out[0] - left_out[1], 0.41 - 0.38, units=9)
    assert found["p_value"] == p


def test_what_is_undefined_for_a_seed_is_undefined_for_the_arm() -> None:
    draws = np.linspace(0, 1, 20).tolist()
    good, none = run_of("auroc", 0.8, draws), run_of("auroc", np.nan, draws)
    found = mean_over_seeds([good, none, none], "auroc")
    assert (found["value"], found["low"], found["seed_sd"], found["by_seed"]) == (None, None, None, [0.8, None, None])
    assert "2 of 3" in found["reason"]
    lost = difference_over_seeds([good, good], [good, none], "auroc")
    assert (lost["value"], lost["p_value"], lost["seed_sd"], lost["by_seed"]) == (None, None, None, [None, None])
    assert lost["reason"] == not_comparable(good, none, "auroc") is not None
    alone = difference_over_seeds([good], [none], "auroc")
    assert (alone["value"], alone["p_value"], alone["by_seed"]) == (None, None, [None])
    assert not_comparable(good, good, "auroc") is None


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("accuracy", 0.0, 1.0), ("mcc", -1.0, 1.0), ("kappa", -1.0, 1.0), ("kappa_quadratic", -1.0, 1.0),
     ("brier", 0.0, 2.0), ("log_loss", 0.0, np.inf), ("mean_absolute_error", 0.0, np.inf)],
)  # fmt: skip
def test_an_interval_of_a_mean_ends_where_the_metric_does(name: str, least: float, most: float) -> None:
    draws = np.random.default_rng(0).normal(0, 0.01, size=(2, 30)).tolist()
    for values in ([least, least + 0.5], [min(most, 7.0) - 0.5, min(most, 7.0)]):
        found = mean_over_seeds([run_of(name, v, d) for v, d in zip(values, draws, strict=True)], name)
        _, low, high, _ = by_formula(values, np.array(draws).mean(axis=0), 9)
        assert (found["low"], found["high"]) == pytest.approx((max(low, least), min(high, most)))
        assert low < least or high > most or most == np.inf


def test_no_interval_over_seeds_with_more_than_a_tenth_undefined_or_all_alike() -> None:
    draws = np.random.default_rng(0).normal(0.5, 0.1, size=(2, 100))
    draws[0, :5] = draws[1, 5:10] = np.nan
    interval, p = t_interval(np.array([0.5, 0.6]), draws, patients=9)
    _, low, high, wanted = by_formula([0.5, 0.6], draws[:, 10:].mean(axis=0), 9)
    assert (interval.low, interval.high, p) == pytest.approx((low, high, wanted))
    draws[0, 10] = np.nan
    interval, p = t_interval(np.array([0.5, 0.6]), draws, patients=9)
    assert (interval.low, interval.high, p) == (None, None, None)
    still = np.full((2, 50), 0.5)
    assert t_interval(np.array([0.5, 0.5]), still, patients=9)[0].low is None
    moved, _ = t_interval(np.array([0.5, 0.6]), still, patients=9)
    assert moved.low == pytest.approx(0.55 - student.ppf(0.975, 1) * 0.05)


def test_variances_of_patients_and_seeds_by_hand() -> None:
    means = np.array([1.0, 2.0, 6.0])
    assert variances(np.array([1.0, 3.0]), means, patients=5) == ((7 * 5 / 4, 4.0), (1.0, 1.0))
    assert variances(np.array([1.0]), means, patients=5) == ((7 * 5 / 4, 4.0),)
    assert satterthwaite([(2.0, 4.0), (1.0, 1.0)]) == (3.0, pytest.approx(9 / (4 / 4 + 1 / 1)))
    assert satterthwaite([(2.0, 4.0)]) == (2.0, 4.0)
    assert satterthwaite([(0.0, 4.0), (0.0, 1.0)]) == (0.0, np.inf)


# --- comparisons ---


def frames(seeds: int, noise: float, *, patients: int = 12, nameless: int = 0) -> list[pd.DataFrame]:
    base = draw(np.random.default_rng(0), patients=patients, images_each=2)
    found = []
    for seed in range(seeds):
        shift = np.random.default_rng(int(seed + 100 * noise)).normal(size=base.probabilities.shape)
        odds = base.probabilities * np.exp(noise * shift)
        frame = as_frame(of(base.truth.argmax(axis=1), odds / odds.sum(axis=1, keepdims=True), patients=base.patients))
        frame.loc[: nameless - 1, "patient_id"] = ""
        found.append(frame)
    return found


def test_a_comparison_is_made_of_its_arms_runs_under_the_same_draws() -> None:
    arms = {"x": frames(2, 0.5, nameless=3), "y": frames(2, 1.5, nameless=3), "z": frames(2, 1.0, nameless=3)}
    arms = {arm: [pd.concat([one, one.assign(split="val")]) for one in runs] for arm, runs in arms.items()}
    table = compare_arms(arms, classes=CLASSES, resamples=50, seed=4, metrics=("accuracy", "brier"))
    runs = [run for place in range(2) for run in matched([arms[name][place] for name in "xyz"], classes=CLASSES)]
    resampled = resample_together(runs, resamples=50, seed=4)
    of_arm = {name: resampled[number::3] for number, name in enumerate("xyz")}
    assert (table["n"], table["patients"], table["unnamed"], table["seeds"]) == (24, len(runs[0].patient_names), 3, 2)
    for arm in "xyz":
        for name in ("accuracy", "brier"):
            assert table["arms"][arm][name] == mean_over_seeds(of_arm[arm], name)
    assert [(row["first"], row["second"]) for row in table["differences"]] == [("x", "y"), ("x", "z"), ("y", "z")]
    for name in ("accuracy", "brier"):
        alone = [difference_over_seeds(of_arm[a], of_arm[b], name) for a, b in (("x", "y"), ("x", "z"), ("y", "z"))]
        corrected = holm([entry["p_value"] for entry in alone])
        for row, entry, p in zip(table["differences"], alone, corrected, strict=True):
            assert row["metrics"][name] == entry | {"p_holm": p}
    asked = compare_arms(arms, classes=CLASSES, resamples=50, pairs=[("z", "x")], split="val", metrics=("accuracy",))
    assert [(row["first"], row["second"]) for row in asked["differences"]] == [("z", "x")]
    assert asked["differences"][0]["metrics"]["accuracy"]["value"] == pytest.approx(
        asked["arms"]["z"]["accuracy"]["value"] - asked["arms"]["x"]["accuracy"]["value"]
    )


def test_a_comparison_is_of_the_test_split_two_thousand_draws_and_seed_0_unless_said() -> None:
    arms = {"x": frames(1, 0.5), "y": frames(1, 1.5)}
    given = compare_arms(arms, classes=CLASSES)
    options: dict[str, Any] = {
        "pairs": None, "metrics": PRIMARY, "split": "test", "resamples": 2000, "seed": 0, "ordinal": False,
        "multilabel": None,
    }  # fmt: skip
    assert given == compare_arms(arms, classes=CLASSES, **options)
    for change in ({"resamples": 1999}, {"seed": 1}):
        assert given != compare_arms(arms, classes=CLASSES, **(options | change))
    assert set(given["arms"]["x"]) == set(PRIMARY)
    with pytest.raises(UserError, match="no metric kappa_quadratic"):
        compare_arms(arms, classes=CLASSES, metrics=("kappa_quadratic",), resamples=5)
    ordered = compare_arms(arms, classes=CLASSES, metrics=("kappa_quadratic",), resamples=5, ordinal=True)
    assert ordered["arms"]["x"]["kappa_quadratic"]["value"] is not None


def test_draws_together_are_two_thousand_of_seed_0_unless_said() -> None:
    run = draw(np.random.default_rng(0), patients=6)
    (given,) = resample_together([run])
    (said,) = resample_together([run], resamples=2000, seed=0, ordinal=False, areas=True)
    assert len(given.draws.overall["auroc"]) == 2000
    np.testing.assert_array_equal(given.draws.overall["accuracy"], said.draws.overall["accuracy"])
    assert "kappa_quadratic" not in given.draws.overall


def test_runs_on_other_patients_share_those_that_they_share() -> None:
    """Patients are a, b, c in one run and b, c, d in the other: a draw weighs each wherever it is."""
    one, other = (draw(np.random.default_rng(seed), patients=3, images_each=4) for seed in (0, 1))
    one = replace(one, patient_names=np.array(list("abc"), dtype=object))
    other = replace(other, patient_names=np.array(list("bcd"), dtype=object))
    a, b = resample_together([one, other], resamples=30, seed=2)
    weights = np.concatenate(list(draw_patients(4, width=1, resamples=30, seed=2)))
    kept = np.concatenate(list(leave_out(4, width=1, seed=2)))
    assert (a.patients, b.patients) == (4, 4)
    for found, run, columns in ((a, one, [0, 1, 2]), (b, other, [1, 2, 3])):
        metrics = prepare(run)
        np.testing.assert_allclose(found.draws.overall["brier"], metrics(weights[:, columns]).overall["brier"])
        np.testing.assert_allclose(found.left_out.overall["brier"], metrics(kept[:, columns]).overall["brier"])
        np.testing.assert_allclose(found.value.overall["auroc"], metrics.as_is().overall["auroc"])


def test_images_without_a_patient_are_counted_in_their_split() -> None:
    frame = pd.DataFrame(
        {"split": ["test"] * 4 + ["val"], "label": ["a", "a", "", "b", "a"], "patient_id": ["", "p", "", "", ""]}
    )
    assert (unnamed(frame, split="test"), unnamed(frame, split="val"), unnamed(frame, split="train")) == (2, 1, 0)


def test_a_family_is_corrected_metric_by_metric_and_left_as_it_was() -> None:
    rows = [
        {"first": a, "second": b, "metrics": {"m": {"p_value": m}, "n": {"p_value": n}}}
        for a, b, m, n in (("x", "y", 0.01, None), ("x", "z", 0.04, 0.2), ("y", "z", 0.03, 0.5))
    ]
    found = as_family(rows)
    assert [row["metrics"]["m"]["p_holm"] for row in found] == pytest.approx([0.03, 0.06, 0.06])
    assert [row["metrics"]["n"]["p_holm"] for row in found] == [None, 0.4, 0.5]
    assert all("p_holm" not in entry for row in rows for entry in row["metrics"].values())
    assert as_family([]) == []


def test_runs_are_matched_row_by_row() -> None:
    frame = frames(1, 0.5)[0]
    frame.loc[5, "label"] = ""
    extra = frame.head(2).assign(split="val", patient_id="other")
    first, second = matched([pd.concat([extra, frame]), frame.sample(frac=1, random_state=1)], classes=CLASSES)
    kept = frame.drop(5)
    np.testing.assert_array_equal(first.probabilities, kept[["prob_c0", "prob_c1"]].to_numpy())
    np.testing.assert_array_equal(second.probabilities, first.probabilities)
    with pytest.raises(UserError, match="no labelled image of the train split"):
        matched([frame], classes=CLASSES, split="train")
    with pytest.raises(UserError, match="left and right cannot be compared"):
        matched([frame, frame.drop(3)], classes=CLASSES, names=["left", "right"])
    with pytest.raises(UserError, match="run 1 and run 3 cannot be compared"):
        matched([frame, frame, frame.drop(3)], classes=CLASSES)
    with pytest.raises(UserError, match="cannot be compared"):
        matched([frame.assign(index="0"), frame], classes=CLASSES)
    said = matched([frame.assign(label=frame["label"].replace("", ";"))], classes=CLASSES, multilabel=True)
    assert said[0].multilabel
    mixed = matched([frame, frame.assign(predicted=frame["predicted"] + ";")], classes=CLASSES)
    assert [run.multilabel for run in mixed] == [True, True]
