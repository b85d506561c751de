"""Split conformal sets cover what they promise, whatever the model is worth."""

from __future__ import annotations

import numpy as np
import pytest

from msmae.statistics.conformal import conformal_level, conformal_level_several, conformal_sets


def answers(count: int, skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 4, count)
    scores = draw.normal(size=(count, 4)) + skill * np.eye(4)[truth]
    odds = np.exp(3 * scores)  # far too sure of itself
    return odds / odds.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("skill", [0.0, 1.0])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_mean_coverage_is_the_one_asked_for(skill: float, coverage: float) -> None:
    probabilities, truth = answers(600, skill, seed=1)
    draw = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        order = draw.permutation(600)
        level = conformal_level(probabilities[order[:300]], truth[order[:300]], coverage=coverage)
        sets = conformal_sets(probabilities[order[300:]], level)
        covered.append(sets[np.arange(300), truth[order[300:]]].mean())
    assert abs(np.mean(covered) - coverage) < 0.01


def test_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    truth = np.array([0, 1, 1, 1])  # scores 0.1, 0.2, 0.6, 0.3; the ceil(5 * 0.6) = 3rd smallest is 0.3
    assert conformal_level(probabilities, truth, coverage=0.6) == pytest.approx(0.7)
    sets = conformal_sets(np.array([[0.75, 0.25], [0.6, 0.4], [0.5, 0.5]]), 0.7)
    assert sets.tolist() == [[True, False], [True, False], [True, True]]


def test_too_few_images_for_the_coverage_keep_every_class() -> None:
    assert conformal_level(np.array([[0.9, 0.1]] * 8), np.zeros(8, int), coverage=0.9) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_level(np.array([[0.9, 0.1]]), np.zeros(1, int), coverage=1.0)


def test_of_several_labels_the_least_likely_one_counts() -> None:
    probabilities = np.array([[0.9, 0.2], [0.8, 0.6], [0.3, 0.7], [0.4, 0.1]])
    truth = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=bool)  # scores 0.1, 0.4, 0.3, 0
    for coverage, level in ((0.2, 1.0), (0.4, 0.9), (0.6, 0.7), (0.8, 0.6), (0.9, 0.0)):  # ceil(5 x coverage)-th of 4
        assert conformal_level_several(probabilities, truth, coverage=coverage) == pytest.approx(level)
    single = np.eye(2, dtype=bool)[[0, 1, 1, 0]]
    by_number = conformal_level(probabilities, np.array([0, 1, 1, 0]), coverage=0.6)
    assert conformal_level_several(probabilities, single, coverage=0.6) == by_number
    for coverage in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            conformal_level_several(probabilities, truth, coverage=coverage)


@pytest.mark.parametrize("percent", [10, 35, 50, 70, 80, 90, 95])
def test_the_rank_is_the_whole_number_from_the_share_on(percent: int) -> None:
    """Of n scores the smallest rank that is at least (n + 1) times the share, in whole numbers."""
    for n in range(1, 45):
        right = np.linspace(0.05, 0.95, n)
        rank = -(-(n + 1) * percent // 100)
        level = 0.0 if rank > n else sorted(right, reverse=True)[rank - 1]
        probabilities = np.stack([right, 1 - right], axis=1)
        assert conformal_level(probabilities, np.zeros(n, int), coverage=percent / 100) == pytest.approx(level)
        several = np.tile([True, False], (n, 1))
        assert conformal_level_several(probabilities, several, coverage=percent / 100) == pytest.approx(level)


def test_nine_tenths_are_covered_unless_said_and_the_limits_are_none() -> None:
    right = np.linspace(0.1, 0.9, 19)
    probabilities, truth = np.stack([right, 1 - right], axis=1), np.zeros(19, int)
    assert conformal_level(probabilities, truth) == conformal_level(probabilities, truth, coverage=0.9)
    several = np.eye(2, dtype=bool)[truth]
    assert conformal_level_several(probabilities, several) == pytest.approx(conformal_level(probabilities, truth))
    for coverage in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            conformal_level(probabilities, truth, coverage=coverage)


def test_a_set_holds_what_reaches_the_level_but_for_rounding_and_always_the_likeliest() -> None:
    rows = np.array([[0.5, 0.3, 0.2], [0.3 - 5e-13, 0.3 - 2e-12, 0.7], [0.4, 0.4, 0.2]])
    assert conformal_sets(rows, 0.3).tolist() == [[True, True, False], [True, False, True], [True, True, False]]
    assert conformal_sets(rows, 0.9).tolist() == [[True, False, False], [False, False, True], [True, True, False]]
    assert conformal_sets(rows, 0.0).all()
