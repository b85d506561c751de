"""Rare classes: the weights do what they say, and the default is the one that is stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmae.errors import UserError
from msmae.training.balance import (
    advise,
    class_counts,
    class_weights,
    imbalance_ratio,
    logit_adjustment,
    positive_weights,
    sampling_weights,
)

COUNTS = st.lists(st.integers(1, 5000), min_size=2, max_size=9).map(np.array)
MULTILABEL = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [np.nan, np.nan]], dtype=np.float32)


def test_counts_leave_out_images_without_label():
    assert class_counts(np.array([0, 2, 2, -1]), classes=4).tolist() == [1, 0, 2, 0]
    assert class_counts(MULTILABEL, classes=2).tolist() == [3, 1]


@given(counts=COUNTS)
def test_full_weights_make_every_class_weigh_the_same(counts):
    weights = class_weights(counts)
    np.testing.assert_allclose(weights * counts, counts.sum() / len(counts))
    np.testing.assert_allclose(class_weights(counts, power=0), 1)
    half = class_weights(counts, power=0.5)
    assert (half * counts).sum() == pytest.approx(counts.sum())


@given(counts=COUNTS.filter(lambda counts: counts.sum() < 20000))
def test_sampling_draws_every_class_equally_often(counts):
    targets = np.repeat(np.arange(len(counts)), counts)
    weights = sampling_weights(targets, classes=len(counts))
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(targets, weights=weights), 1 / len(counts))


def test_sampling_gives_unlabelled_images_the_average_chance():
    weights = sampling_weights(np.array([0, 0, 0, 1, -1]), classes=2)
    assert weights[4] == pytest.approx(weights[:4].mean())


def test_sampling_of_several_labels_goes_by_the_rarest():
    weights = sampling_weights(MULTILABEL, classes=2)
    assert weights[2] == weights.max()
    assert weights[0] == weights[1] == weights[3]
    assert weights.sum() == pytest.approx(1)


def test_logit_adjustment_is_undone_by_leaving_it_out():
    """A model of p(class | x) for balanced classes, adjusted, gives the Bayes posterior of the training frequencies."""
    counts = np.array([900, 90, 10])
    likelihood = np.array([0.2, 0.3, 0.5])
    adjusted = np.exp(np.log(likelihood) + logit_adjustment(counts))
    posterior = likelihood * counts / (likelihood * counts).sum()
    np.testing.assert_allclose(adjusted / adjusted.sum(), posterior)
    np.testing.assert_allclose(logit_adjustment(counts, strength=0), 0)


def test_positive_weights_balance_each_class_against_its_absence():
    np.testing.assert_allclose(positive_weights(MULTILABEL), [1 / 3, 3])
    np.testing.assert_allclose(positive_weights(MULTILABEL, limit=2), [1 / 3, 2])
    everywhere = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert (positive_weights(everywhere) > 0).all()  # calibration takes the logarithm
    partly = np.array([[1, np.nan], [0, 1], [0, 0], [np.nan, 0]], dtype=np.float32)
    np.testing.assert_allclose(positive_weights(partly), [2, 2])


@pytest.mark.parametrize(
    ("counts", "multilabel", "remedy"),
    [
        ([100, 200], False, "none"),
        ([100, 201], False, "class_weights"),
        ([10, 5000], False, "class_weights"),
        ([100, 100], True, "class_weights"),
    ],
)
def test_the_stated_default(counts, multilabel, remedy):
    advice = advise(np.array(counts), multilabel=multilabel)
    assert advice.remedy == remedy
    assert advice.ratio == pytest.approx(counts[1] / counts[0])
    assert f"{advice.ratio:.1f} times" in advice.reason


def test_a_pretrained_start_takes_logit_adjustment_where_a_class_is_very_rare():
    assert advise(np.array([10, 101]), pretrained=True).remedy == "logit_adjustment"
    assert advise(np.array([10, 99]), pretrained=True).remedy == "class_weights"
    assert advise(np.array([10, 101]), pretrained=True, multilabel=True).remedy == "class_weights"


@pytest.mark.parametrize("use", [class_weights, logit_adjustment, imbalance_ratio, advise])
def test_a_class_without_images_is_named(use):
    with pytest.raises(UserError, match="no training image of class 1, 2"):
        use(np.array([5, 0, 0]))
