"""What a share of the tokens loses: the losses against means by hand, the choice, the rival and the cautions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from msmae.statistics.intervals import bca
from msmae.statistics.paired import difference, matched, resample_together
from msmae.statistics.token_shares import cautions, choose, loss_by_class, losses, plain, rival
from simulated import as_frame, draw, of

CLASSES = ("c0", "c1")


def runs(split: str = "val") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two sets of predictions of the same 40 patients; the second is the worse one."""
    whole = draw(np.random.default_rng(0), patients=40, images_each=2)
    noise = np.random.default_rng(1).normal(size=80) * 2
    odds = whole.probabilities[:, 1] / whole.probabilities[:, 0] * np.exp(noise)
    less = of(
        whole.truth.argmax(axis=1), np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1), patients=whole.patients
    )
    return as_frame(whole, split=split), as_frame(less, split=split)


def figures(frame: pd.DataFrame) -> tuple[float, float]:
    """Balanced accuracy and AUROC by scikit-learn."""
    found = balanced_accuracy_score(frame["label"], frame["predicted"])
    return found, roc_auc_score(frame["label"] == "c1", frame["prob_c1"])


def test_a_loss_is_the_figure_of_all_tokens_less_that_of_some() -> None:
    whole, less = runs()
    alone, same = losses(whole, [less, whole], classes=CLASSES, resamples=200)
    (accuracy, area), (accuracy_less, area_less) = figures(whole), figures(less)
    assert alone["balanced_accuracy"] == pytest.approx(accuracy_less)
    assert alone["auroc"] == pytest.approx(area_less)
    assert alone["loss"] == pytest.approx(accuracy - accuracy_less)
    assert alone["loss"] > 0
    assert alone["low"] < alone["loss"] < alone["high"]
    assert alone["auroc_loss"]["value"] == pytest.approx(area - area_less)
    assert set(alone["auroc_loss"]) == {"value", "low", "high"}
    assert (same["loss"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    assert same["balanced_accuracy"] == pytest.approx(accuracy)
    a, b = resample_together(matched([whole, less], classes=CLASSES, split="val"), resamples=200)
    for name, (low, high) in {
        "balanced_accuracy": (alone["low"], alone["high"]),
        "auroc": (alone["auroc_loss"]["low"], alone["auroc_loss"]["high"]),
    }.items():
        wanted = difference(a, b, name)
        assert (low, high) == pytest.approx((wanted["low"], wanted["high"]))
    ece = b.value.overall["ece"][0]
    assert alone["ece"] == pytest.approx(ece)


def test_losses_are_of_the_validation_split_two_thousand_draws_and_seed_0_unless_said() -> None:
    whole, less = (pd.concat([one, as_frame(draw(np.random.default_rng(7), patients=9))]) for one in runs())
    given = losses(whole, [less], classes=CLASSES)
    assert given == losses(whole, [less], classes=CLASSES, split="val", multilabel=False, resamples=2000, seed=0)
    assert given != losses(whole, [less], classes=CLASSES, resamples=2000, seed=1)
    (nothing,) = losses(whole, [less], classes=CLASSES, split="test", resamples=20)
    assert nothing["loss"] == 0.0


def several(split: str) -> pd.DataFrame:
    """Two labels an image that do not sum to one; no image has both, so that no label holds a ``;``."""
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 2, size=30)
    scores = np.where(np.eye(2)[truth] > 0, 0.8, 0.3) + generator.uniform(-0.15, 0.15, size=(30, 2))
    return pd.DataFrame(
        {
            "image_path": [f"{i}.png" for i in range(30)], "patient_id": [f"{i:03}" for i in range(30)],
            "split": split, "label": np.array(CLASSES)[truth], "predicted": np.array(CLASSES)[truth],
            "prob_c0": scores[:, 0], "prob_c1": scores[:, 1],
        }
    )  # fmt: skip


def test_several_labels_an_image_are_what_is_said() -> None:
    frame = several("val")
    (row,) = losses(frame, [frame], classes=CLASSES, multilabel=True, resamples=20)
    assert (row["balanced_accuracy"], row["loss"], row["high"]) == (1.0, 0.0, 0.0)
    rows = loss_by_class(several("test"), several("test"), classes=CLASSES, multilabel=True, resamples=20)
    assert [row["all"] for row in rows] == [1.0, 1.0]


def test_the_loss_of_a_class_is_a_difference_of_recalls() -> None:
    whole, less = runs("test")
    rows = loss_by_class(whole, less, classes=CLASSES, resamples=150)
    recalls = [recall_score(one["label"], one["predicted"], average=None) for one in (whole, less)]
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["n"] for row in rows] == [int((whole["label"] == name).sum()) for name in CLASSES]
    assert [row["all"] for row in rows] == pytest.approx(recalls[0])
    assert [row["kept"] for row in rows] == pytest.approx(recalls[1])
    assert [row["loss"]["value"] for row in rows] == pytest.approx(recalls[0] - recalls[1])
    a, b = resample_together(matched([whole, less], classes=CLASSES), resamples=150)
    for c, row in enumerate(rows):
        draws, left_out = (
            getattr(a, part).per_class["sensitivity"][:, c] - getattr(b, part).per_class["sensitivity"][:, c]
            for part in ("draws", "left_out")
        )
        wanted = bca(row["loss"]["value"], draws, left_out, units=40)
        assert (row["loss"]["low"], row["loss"]["high"]) == pytest.approx((wanted.low, wanted.high))
    default = loss_by_class(whole, less, classes=CLASSES)
    assert default == loss_by_class(
        whole, less, classes=CLASSES, split="test", multilabel=False, resamples=2000, seed=0
    )
    assert default != loss_by_class(whole, less, classes=CLASSES, resamples=2000, seed=1)


def test_a_class_without_an_image_has_no_loss() -> None:
    frame = as_frame(of(np.array([0, 1, 0, 1]), np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]] * 2)))
    *_, absent = loss_by_class(frame, frame, classes=("c0", "c1", "c2"), resamples=20)
    assert (absent["n"], absent["all"], absent["kept"]) == (0, None, None)
    assert (absent["loss"]["value"], absent["loss"]["low"], absent["loss"]["high"]) == (None, None, None)


def row(speed: float, high: float | None) -> dict[str, Any]:
    return {"images_per_s": speed, "high": high}


def test_the_fastest_row_whose_whole_interval_is_under_the_margin_is_chosen() -> None:
    first = row(1, None)
    assert choose([first, row(2, 0.01), row(3, 0.02), row(4, 0.03)], margin=0.02) == 2  # at the margin: within
    assert choose([first, row(2, 0.021), row(9, None)], margin=0.02) == 0
    assert choose([row(5, 0.5), row(2, 0.0)], margin=0.02) == 0  # the first counts whatever its interval
    assert choose([row(5, None), row(6, -0.1), row(5.5, -0.2)], margin=0.0) == 1


def patch(selector: str, keep: float, loss: float | None, speed: float = 10.0) -> dict[str, Any]:
    return {"selector": selector, "keep": keep, "loss": loss, "images_per_s": speed, "speedup": speed / 4}


def test_the_rival_of_a_share_is_the_smaller_image() -> None:
    rows = [
        patch("coarse", 0.5, 0.02, 12),
        patch("map", 0.5, 0.01, 8),
        patch("smaller", 0.5, 0.015, 10),
        patch("map", 0.25, 0.03, 16),
        patch("smaller", 0.25, 0.03, 20),
        patch("map", 0.75, 0.03),  # no smaller image to compare
        patch("smaller", 0.9, None),  # undefined
        patch("map", 0.9, 0.1),
        patch("smaller", 0.1, 0.2),  # alone
    ]
    quarter, half = rival(rows)
    assert quarter.startswith("keep 0.25:")
    assert quarter.endswith("take a smaller image")  # at no less cost
    assert "a smaller image loses 3.0 points, 5.0 times" in quarter
    assert half.startswith("keep 0.5:")
    assert half.endswith("take map")
    assert "a smaller image loses 1.5 points, 2.5 times" in half
    assert "map loses 1.0 points, 2.0 times" in half
    assert rival([]) == []


def test_of_equal_losses_the_faster_selector_stands_for_a_share() -> None:
    (line,) = rival([patch("a", 0.5, 0.01, 8), patch("b", 0.5, 0.01, 12), patch("smaller", 0.5, 0.02)])
    assert line.endswith("take b")


def lost(value: float | None, low: float | None) -> dict[str, Any]:
    return {"class": "ill", "n": 40, "all": 0.9, "kept": 0.85, "loss": {"value": value, "low": low}}


def test_a_class_that_loses_more_than_the_margin_is_named() -> None:
    assert cautions([lost(None, None), lost(0.05, 0.01), lost(-0.2, -0.3)], margin=0.05) == []
    (sure,) = cautions([lost(0.05, 0.01)], margin=0.02)
    for part in ("ill (40 ", "90.0 %", "85.0 %", "(significant)"):
        assert part in sure
    for low in (0.0, -0.01, None):
        assert "not significant" in cautions([lost(0.05, low)], margin=0.02)[0]


def test_what_is_undefined_is_none_in_json() -> None:
    assert plain(np.float64("nan")) is None
    assert plain(np.float64(0.0)) == 0.0
    assert type(plain(np.float64(0.5))) is float
