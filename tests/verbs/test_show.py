"""What the terminal says below the table of figures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from msmae.statistics.summary import summarise
from msmae.verbs.show import doubts, show_result
from simulated import as_frame, draw


def test_classes_without_images_are_named_below_the_figures() -> None:
    frame = as_frame(draw(np.random.default_rng(0), patients=30, images_each=2, classes=3))
    splits = summarise(frame[frame["label"] != "c0"], classes=("c0", "c1", "c2"), resamples=50)
    assert "no image of c0: means over classes are over the other classes" in doubts(splits, ["test"])
    alone = summarise(frame[frame["label"] == "c1"], classes=("c0", "c1", "c2"), resamples=50)
    (line,) = [line for line in doubts(alone, ["test"]) if "every image is of one class, c1" in line]
    assert "balanced accuracy" in line
    both = doubts({"val": splits["test"], "test": splits["test"]}, ["val", "test"])
    assert "val, test: no image of c0: means over classes are over the other classes" in both


def test_a_figure_without_an_interval_says_why() -> None:
    alike = {"value": 1.0, "low": None, "high": None, "reason": "every resample gives the same value"}
    known = {"value": 0.9, "low": 0.8, "high": 1.0}
    metrics = {"lesion_sensitivity": alike, "dice": known, "iou": alike}
    (line,) = doubts({"test": {"metrics": metrics}}, ["test"])
    assert line == "every resample gives the same value: no interval of intersection over union, lesions found"


def test_one_image_of_one_patient_is_counted_as_one(tmp_path: Path) -> None:
    shown = io.StringIO()
    split = {"n": 1, "patients": 1, "metrics": {"accuracy": {"value": 1.0, "low": 0.2, "high": 1.0}}}
    metrics = {"arm": "vit", "seed": 0, "splits": {"test": split}}
    show_result(metrics, tmp_path, console=Console(file=shown, width=100))
    assert "test (1 image, 1 patient)" in shown.getvalue()


@pytest.mark.parametrize("rule", ["plain", "balanced"])
def test_the_table_says_which_rule_answers(rule: str, tmp_path: Path) -> None:
    shown = io.StringIO()
    metrics = {"arm": "vit", "seed": 0, "answers": rule, "splits": {}}
    show_result(metrics, tmp_path, console=Console(file=shown, width=100))
    assert f"{rule} answers" in " ".join(shown.getvalue().split())
