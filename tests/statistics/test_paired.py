"""Comparing runs: Holm against its definition, differences against the metrics, coverage by simulation."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmae.errors import UserError
from msmae.statistics.comparison import compare_arms, holm
from msmae.statistics.metrics import Values
from msmae.statistics.paired import Resampled, difference, matched, resample_together
from msmae.statistics.predictions import Predictions
from msmae.statistics.seeds import difference_over_seeds, mean_over_seeds, satterthwaite, t_interval, variances
from simulated import as_frame, draw, of

CLASSES = ("c0", "c1", "c2")


def retrained(predictions: Predictions, generator: np.random.Generator, noise: float) -> Predictions:
    """Another model on the same images: the same log odds, with noise of its own."""
    odds = predictions.probabilities * np.exp(noise * generator.normal(size=predictions.probabilities.shape))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return of(predictions.truth.argmax(axis=1), probabilities, patients=predictions.patients)


def two_runs(*, worse: float = 1.5, patients: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    generator = np.random.default_rng(0)
    base = draw(generator, patients=patients, images_each=3, classes=3)
    return as_frame(base), as_frame(retrained(base, generator, worse))


def paired_differences(one: pd.DataFrame, other: pd.DataFrame, *, resamples: int = 2000) -> dict[str, Any]:
    """All metrics of the first run minus the second's, under the same draws of the same patients."""
    runs = matched([one, other], classes=CLASSES)
    a, b = resample_together(runs, resamples=resamples)
    return {name: difference(a, b, name) for name in a.value.overall}


# --- Holm ---


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm by its origin: a hypothesis falls when every set that holds it falls to Bonferroni."""
    n = len(p_values)
    sets = [chosen for size in range(1, n + 1) for chosen in combinations(range(n), size)]
    worst = [
        max(len(chosen) * min(p_values[i] for i in chosen) for chosen in sets if place in chosen) for place in range(n)
    ]
    return [min(1.0, p) for p in worst]


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(closed_testing(p_values), abs=1e-12)


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert holm([None, 0.01, 0.04, None, 0.03]) == [
        None,
        pytest.approx(0.03),
        pytest.approx(0.06),
        None,
        pytest.approx(0.06),
    ]
    assert holm([]) == []


# --- two runs ---


def test_a_difference_is_a_difference_of_the_metrics_and_turns_its_sign() -> None:
    good, bad = two_runs()
    forth = paired_differences(good, bad, resamples=400)
    back = paired_differences(bad, good, resamples=400)
    for name, entry in forth.items():
        assert entry["value"] == pytest.approx(-back[name]["value"], abs=1e-12), name
        assert entry["low"] == pytest.approx(-back[name]["high"], abs=1e-3), name
        assert (entry["low"] > 0 or entry["high"] < 0) == (entry["p_value"] < 0.05), name
    assert forth["auroc"]["low"] > 0
    assert forth["brier"]["high"] < 0


def test_pairing_is_worth_it() -> None:
    """The interval of the difference is narrower than of two unrelated runs, because the patients are the same."""
    good, nearly = two_runs(worse=0.2)
    paired = paired_differences(good, nearly, resamples=400)["auroc"]
    run = resample_together([draw(np.random.default_rng(0), patients=60, images_each=3, classes=3)], resamples=400)[0]
    unpaired = np.sqrt(2) * run.draws.overall["auroc"].std()
    assert (paired["high"] - paired["low"]) / (2 * 1.96) < 0.5 * unpaired


def test_without_areas_everything_else_is_the_same() -> None:
    runs = [draw(np.random.default_rng(seed), patients=30, images_each=3, classes=3) for seed in (0, 1)]
    whole, lean = (resample_together(runs, resamples=60, areas=areas) for areas in (True, False))
    for full, some in zip(whole, lean, strict=True):
        left = full.draws.overall.keys() - some.draws.overall.keys()
        assert left == {"auroc", "auprc", "auroc_micro", "auprc_micro"}
        for name, values in some.draws.overall.items():
            np.testing.assert_array_equal(values, full.draws.overall[name])
            np.testing.assert_array_equal(some.left_out.overall[name], full.left_out.overall[name])


def test_a_run_and_itself_do_not_differ() -> None:
    same, _ = two_runs()
    found = paired_differences(same, same.sample(frac=1, random_state=0), resamples=100)
    for name, entry in found.items():
        assert (entry["value"], entry["low"], entry["p_value"]) == (0.0, None, None), name
        assert entry["reason"], name


@pytest.mark.parametrize("change", ["fewer images", "other labels", "other names", "other patients"])
def test_runs_on_different_test_images_are_refused(change: str) -> None:
    one, other = two_runs()
    if change == "fewer images":
        other = other.iloc[3:]
    elif change == "other labels":
        other.loc[0, "label"] = "c1" if other.loc[0, "label"] == "c0" else "c0"
    elif change == "other names":
        other["image_path"] = "other/" + other["image_path"]
    else:
        other["patient_id"] = "q" + other["patient_id"]
    with pytest.raises(UserError, match="run 1 and run 2 cannot be compared"):
        paired_differences(one, other)


def test_means_over_different_classes_are_not_subtracted() -> None:
    one, other = two_runs()
    other["predicted"] = other["predicted"].replace("c0", "c1")
    found = paired_differences(one, other, resamples=100)
    assert found["ppv_macro"]["value"] is None
    assert "different classes" in found["ppv_macro"]["reason"]
    assert found["auroc"]["value"] is not None


# --- arms and seeds ---


def arms(seeds: int = 3) -> dict[str, list[pd.DataFrame]]:
    generator = np.random.default_rng(4)
    base = draw(generator, patients=70, images_each=2, classes=3)
    noise = {"good": 0.3, "same": 0.3, "bad": 1.5}
    return {arm: [as_frame(retrained(base, generator, size)) for _ in range(seeds)] for arm, size in noise.items()}


def test_an_arm_is_the_mean_of_its_seeds_and_pairs_are_corrected() -> None:
    table = compare_arms(arms(), classes=CLASSES, resamples=300, metrics=("accuracy", "auroc"))
    by_hand = [np.mean(frame["label"] == frame["predicted"]) for frame in arms()["bad"]]
    assert table["arms"]["bad"]["accuracy"]["value"] == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert table["arms"]["bad"]["accuracy"]["seed_sd"] == pytest.approx(np.std(by_hand, ddof=1), abs=1e-12)
    assert (table["n"], table["patients"], table["seeds"]) == (140, 70, 3)
    found = {(pair["first"], pair["second"]): pair["metrics"] for pair in table["differences"]}
    assert list(found) == [("good", "same"), ("good", "bad"), ("same", "bad")]
    for name in ("accuracy", "auroc"):
        alone = [metrics[name]["p_value"] for metrics in found.values()]
        assert [metrics[name]["p_holm"] for metrics in found.values()] == pytest.approx(closed_testing(alone))
        assert found["good", "bad"][name]["low"] > 0
        assert found["good", "same"][name]["p_holm"] > 0.05
        means = table["arms"]["good"][name]["value"] - table["arms"]["bad"][name]["value"]
        assert found["good", "bad"][name]["value"] == pytest.approx(means, abs=1e-12)


def test_one_seed_speaks_of_patients_only() -> None:
    table = compare_arms(arms(seeds=1), classes=CLASSES, resamples=300, metrics=("auroc",), pairs=[("good", "bad")])
    assert table["arms"]["good"]["auroc"]["seed_sd"] is None
    assert table["arms"]["good"]["auroc"]["method"] == "bca"
    assert table["differences"][0]["metrics"]["auroc"]["low"] > 0


def test_seeds_may_have_test_patients_of_their_own() -> None:
    generator = np.random.default_rng(8)
    runs = []
    for fold in range(2):
        part = draw(generator, patients=50, classes=3)
        names = np.array([f"fold {fold} patient {i}" for i in range(50)], dtype=object)
        runs.append(Predictions(**{**vars(part), "patient_names": names}))
    first, second = resample_together(runs, resamples=300)
    assert first.patients == 100
    assert abs(np.corrcoef(first.draws.overall["brier"], second.draws.overall["brier"])[0, 1]) < 0.2
    assert mean_over_seeds([first, second], "accuracy")["low"] is not None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pairs": [("good", "best")]}, "no arm best"),
        ({"metrics": ("acuracy",)}, "no metric acuracy"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        compare_arms(arms(), classes=CLASSES, resamples=20, **change)  # type: ignore[arg-type]


def test_missing_seeds_are_refused() -> None:
    unfinished = arms()
    unfinished["bad"].pop()
    with pytest.raises(UserError, match="different numbers of seeds"):
        compare_arms(unfinished, classes=CLASSES)


def test_an_undefined_seed_is_said() -> None:
    base = draw(np.random.default_rng(0), patients=30, classes=2)
    constant = of(base.truth.argmax(axis=1), np.tile([0.4, 0.6], (30, 1)))
    runs = resample_together([base, constant], resamples=50)
    assert mean_over_seeds(runs, "mcc")["reason"] == "undefined for 1 of 2 seeds"
    assert difference_over_seeds(runs, runs[::-1], "mcc")["p_value"] is None


def test_three_seeds_and_forty_patients_cover_the_truth() -> None:
    """2,000 studies of a mean with both kinds of luck; resampling the three seeds instead covers far less.

    False alarms: at a true coverage of 95 % the share leaves 93-97 % in 4 of 100,000 seeds.
    """
    generator = np.random.default_rng(0)
    held = resampled_held = 0
    for _ in range(2000):
        patients, seeds = generator.normal(size=40), 0.6 * generator.normal(size=3)
        table = patients + seeds[:, None] + 0.3 * generator.normal(size=(3, 40))  # [S, P], true mean 0
        chosen = generator.integers(40, size=(200, 40))
        draws = table[:, chosen].mean(axis=2)  # [S, 200]
        interval, p_value = t_interval(table.mean(axis=1), draws, patients=40)
        assert interval.low is not None
        assert interval.high is not None
        inside = interval.low <= 0 <= interval.high
        assert inside == ((p_value or 0) >= 0.05)
        held += inside
        which = generator.integers(3, size=(200, 3))
        low, high = np.quantile(np.take_along_axis(draws.T, which, axis=1).mean(axis=1), [0.025, 0.975])
        resampled_held += low <= 0 <= high
    assert 0.93 <= held / 2000 <= 0.97
    assert resampled_held / 2000 < 0.90


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("accuracy", 0, 1), ("auroc", 0, 1), ("mcc", -1, 1), ("kappa", -1, 1), ("kappa_quadratic", -1, 1),
     ("brier", 0, 2), ("log_loss", 0, np.inf), ("mean_absolute_error", 0, np.inf)],
)  # fmt: skip
def test_an_interval_over_seeds_ends_where_the_metric_does(name: str, least: float, most: float) -> None:
    base = prepared_once()

    def interval(values: tuple[float, float]) -> tuple[float, float]:
        spread = np.linspace(-2, 2, 101)
        runs = [
            Resampled(base.metrics, Values({name: np.array([value])}, {}), Values({name: value + spread}, {}),
                      base.left_out, patients=30)
            for value in values
        ]  # fmt: skip
        found = mean_over_seeds(runs, name)
        return found["low"], found["high"]

    low, high = interval((least + 0.1, least + 0.2))
    assert low == least < high
    if np.isfinite(most):
        assert interval((most - 0.1, most - 0.2))[1] == most
    else:
        assert interval((50, 51))[1] > 51


def prepared_once() -> Resampled:
    return resample_together([draw(np.random.default_rng(0), patients=10)], resamples=2)[0]


def test_the_freedom_of_a_sum_lies_between_its_parts_and_their_sum() -> None:
    assert satterthwaite([(2.0, 5.0)]) == (2.0, 5.0)
    assert satterthwaite([(1.0, 4.0), (1.0, 4.0)]) == (2.0, 8.0)
    assert satterthwaite([(3.0, 6.0), (1.0, 2.0)]) == (4.0, pytest.approx(16 / (9 / 6 + 1 / 2)))
    assert satterthwaite([(0.0, 5.0), (0.0, 2.0)]) == (0.0, np.inf)
    means = np.array([0.2, 0.4, 0.6])
    assert variances(np.array([0.4]), means, patients=5) == ((pytest.approx(0.04 * 5 / 4), 4.0),)
    (_, (seeds, freedom)) = variances(np.array([0.3, 0.5]), means, patients=5)
    assert (seeds, freedom) == (pytest.approx(0.02 / 2), 1.0)


def test_no_interval_over_seeds_where_the_draws_cannot_tell() -> None:
    draws = np.random.default_rng(0).normal(size=(2, 100))
    draws[0, :11] = np.nan
    assert t_interval(np.array([0.1, 0.2]), draws, patients=9)[1] is None
    draws[0, 0] = 0
    assert t_interval(np.array([0.1, 0.2]), draws, patients=9)[1] is not None
    none, p_value = t_interval(np.array([0.1, 0.1]), np.full((2, 100), 0.1), patients=9)
    assert (none.low, p_value) == (None, None)


def test_a_split_without_labels_and_a_single_patient_are_refused() -> None:
    one, other = two_runs()
    with pytest.raises(UserError, match="no labelled image of the val split"):
        matched([one, other], classes=CLASSES, split="val")
    with pytest.raises(UserError, match="no labelled image"):
        matched([one, other.assign(label="")], classes=CLASSES)
    with pytest.raises(UserError, match="one patient only"):
        resample_together(matched([one.assign(patient_id="p"), other.assign(patient_id="p")], classes=CLASSES))
