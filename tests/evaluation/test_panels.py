"""Which cases a run pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msmae.evaluation.panels import choose_cases, draw_panels
from msmae.inference.model import load
from msmae.method.masking import Draw, PatchPlan
from msmae.statistics.predictions import read_predictions
from msmae.training.prepare import prepare_again


def predictions(sure: list[float], answers: str, labels: str, splits: list[str] | None = None) -> pd.DataFrame:
    """Rows of predictions.csv of the classes a and b; ``sure`` is the probability of each answer."""
    shares = np.array(sure)
    is_a = np.array([answer == "a" for answer in answers])
    return pd.DataFrame(
        {
            "split": splits or ["test"] * len(sure),
            "label": list(labels),
            "predicted": list(answers),
            "prob_a": np.where(is_a, shares, 1 - shares),
            "prob_b": np.where(is_a, 1 - shares, shares),
        }
    )


def test_the_surest_right_and_wrong_and_the_least_sure_are_pictured() -> None:
    frame = predictions([0.6, 0.99, 0.9, 0.8, 0.55, 0.7], answers="aababb", labels="aabbbb")
    cases = choose_cases(frame, each=1)
    assert cases == [(1, "right"), (3, "wrong"), (4, "uncertain"), (0, "chosen"), (2, "chosen")]


def test_the_first_image_of_each_class_is_pictured_whatever_the_model_says() -> None:
    labels, splits = "abababab", ["val", "val", *["test"] * 6]
    one = predictions([0.9] * 8, answers=labels, labels=labels, splits=splits)
    other = predictions([0.6, 0.7, 0.8, 0.99, 0.6, 0.7, 0.8, 0.9], answers="bbbbaaaa", labels=labels, splits=splits)
    for frame in (one, other):
        assert {2, 3} <= {place for place, _ in choose_cases(frame, each=1)}
        assert len({place for place, _ in choose_cases(frame, each=1)}) == len(choose_cases(frame, each=1))


@pytest.mark.slow
def test_panels_show_the_plan_that_the_settings_draw(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare_again(finished)
    pretrain = dataclasses.replace(prepared.settings.pretrain, mask_ratio=0.25, throw_ratio=0.125)
    prepared = dataclasses.replace(prepared, settings=dataclasses.replace(prepared.settings, pretrain=pretrain))
    drawn: list[PatchPlan] = []
    plan = Draw.plan
    monkeypatch.setattr(Draw, "plan", lambda *given: drawn.append(plan(*given)) or drawn[-1])
    draw_panels(prepared, tmp_path, read_predictions(finished / "predictions.csv"), each=1, model=load(finished))
    (shown,) = drawn
    assert shown.mask.shape[1] == 64 // 4  # of 8 x 8 patches
    assert shown.keep.shape[1] == 64 - 64 // 4 - 64 // 8
    assert list((tmp_path / "panels").glob("*.png"))
