"""Which cases a run pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmae.evaluation.panels import choose_cases


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
