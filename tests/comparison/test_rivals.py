"""The rivals that are no networks: what they say of a rare class."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from msmae.comparison.baselines import BASELINE, predict_pca_svm
from msmae.config import make_settings
from msmae.data.opening import divide
from msmae.training.prepare import prepare

pytestmark = pytest.mark.slow


def test_pca_svm_says_how_common_a_rare_class_is_and_answers_as_if_it_were_not_rare(data: Path) -> None:
    settings = make_settings("tiny")
    prepared = prepare(divide(data, settings=settings, seed=0), settings=settings, method="pca-svm")
    val, rows = prepared.ids("val"), prepared.ids("test")
    grey = prepared.store.fetch(np.arange(len(prepared.manifest))).mean(axis=(1, 2, 3))
    rare = (grey + np.random.default_rng(0).normal(0, 2 * grey.std(), len(grey)) > np.quantile(grey, 0.95)).astype(int)
    lit = dataclasses.replace(prepared)
    lit.__dict__["targets"] = rare
    share = np.bincount(rare[val], minlength=4) / len(val)
    np.testing.assert_allclose(predict_pca_svm(lit, val).mean(axis=0), share, atol=1e-3)
    answers = BASELINE["pca-svm"].predict(lit, Path(), rows)
    weighed = answers.probabilities[:, :2] / share[:2]
    assert answers.favoured[:, :2].argmax(axis=1).tolist() == weighed.argmax(axis=1).tolist()
    assert (weighed.argmax(axis=1) == 1).sum() > (answers.probabilities.argmax(axis=1) == 1).sum()
