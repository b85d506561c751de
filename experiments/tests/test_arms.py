"""What experiments/arms.py asks of a comparison, at each scale."""

from __future__ import annotations

import argparse
import inspect

import pytest
from arms import settings_of
from studies import GPU, STUDIES

import msmae.config
from msmae.comparison.budgets import BUDGETS
from msmae.config import make_settings


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_what_is_equal_for_all_arms_is_the_studys_at_every_scale(scale: str) -> None:
    asked = argparse.Namespace(scale=scale, arms=["mae"], seeds=[0])
    studies = STUDIES
    words = {name: settings_of(study, asked) for name, study in studies.items()}
    assert {name: given["budget"] for name, given in words.items()} == {n: s.budget for n, s in studies.items()}
    assert words["phantom-small"]["budget"] == "gmacs"
    named = set(inspect.signature(msmae.compare).parameters)
    for given in words.values():
        assert given["preset"] == scale
        assert given["budget"] in BUDGETS
        groups = {name: value for name, value in given.items() if name not in named}
        assert make_settings(given["preset"], overrides=groups)
    assert words["phantom-small"]["model"] == {"depth": 4}
    assert words["phantom-small"]["pretrain"]["label_weight"] == 1.0


def test_arms_and_seeds_that_are_asked_for_are_run_on_a_gpu_too() -> None:
    study = STUDIES["pneumoniamnist"]
    given = settings_of(study, argparse.Namespace(scale="gpu", arms=["mae"], seeds=["3"]))
    assert (given["arms"], given["seeds"]) == (["mae"], ["3"])
    left_open = settings_of(study, argparse.Namespace(scale="gpu", arms=None, seeds=None))
    assert "resnet18" in left_open["arms"]
    assert len(left_open["seeds"]) == 5


def test_the_small_scale_shows_the_studys_images_to_the_arms_asked_for() -> None:
    asked = argparse.Namespace(scale="cpu", arms=["mae", "msmae"], seeds=[4])
    given = settings_of(STUDIES["phantom-small"], asked)
    assert (given["arms"], given["seeds"]) == (["mae", "msmae"], [4])
    assert given["pretrain"]["presentations"] == 60_000
    assert given["finetune"] == {
        "presentations": 20_000, "base_lr": 2e-3, "layer_decay": 0.85, "jitter": 0.0, "crop_scale": (0.6, 1.0)
    }  # fmt: skip


def test_every_study_asks_for_arms_that_there_are() -> None:
    known = {*msmae.config.ARMS, *msmae.config.BASELINES}
    asked = {arm for study in STUDIES.values() for arm in study.arms} | set(GPU["arms"])
    assert asked <= known
