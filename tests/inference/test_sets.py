"""Sets of classes come from images of which all labels are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msmae.errors import UserError
from msmae.inference.sets import sets_of_run
from msmae.statistics.predictions import write_predictions

CLASSES = ["edema", "mass"]


def write_run(folder: Path, truth: np.ndarray, known: np.ndarray, probabilities: np.ndarray) -> None:
    """RUN/predictions.csv of images with several labels, the first half of them for validation."""
    labels = []
    for row, sure in zip(truth, known, strict=True):
        pieces = [f"{'' if s else '?'}{name}" for name, t, s in zip(CLASSES, row, sure, strict=True) if t or not s]
        labels.append(";".join(pieces) + (";" if len(pieces) < 2 else ""))
    half = len(truth) // 2
    frame = pd.DataFrame({"image_path": [f"{row}.png" for row in range(len(truth))], "patient_id": ""})
    frame["split"] = ["val"] * half + ["test"] * (len(truth) - half)
    frame["label"] = labels
    frame["predicted"] = ";"
    for number, name in enumerate(CLASSES):
        frame[f"prob_{name}"] = probabilities[:, number]
    folder.mkdir()
    write_predictions(frame.astype({"patient_id": object}), folder / "predictions.csv")


def test_a_class_that_an_image_may_have_does_not_make_sets_smaller(tmp_path: Path) -> None:
    """Where half of the labels are not known, sets hold the true classes as often as asked, not rarely."""
    draw = np.random.default_rng(0)
    truth = draw.random((2000, 2)) < 0.5
    probabilities = 1 / (1 + np.exp(-(1.5 * draw.normal(size=(2000, 2)) + 3 * truth - 1.5)))
    known = draw.random((2000, 2)) < 0.5
    write_run(tmp_path / "run", truth, known, probabilities)
    sets = sets_of_run(tmp_path / "run", CLASSES, multilabel=True, coverage=0.9)
    covered = ((probabilities >= sets.level) | ~truth).all(axis=1).mean()  # of all images, by the truth
    assert covered == pytest.approx(0.9, abs=0.02)
    assert sets.on_test == pytest.approx(0.9, abs=0.04)
    assert sets.images == known[:1000].all(axis=1).sum()


def test_without_an_image_whose_labels_are_all_known_there_are_no_sets(tmp_path: Path) -> None:
    truth, probabilities = np.array([[True, False]] * 8), np.full((8, 2), 0.5)
    known = np.array([[True, False]] * 8)
    write_run(tmp_path / "run", truth, known, probabilities)
    with pytest.raises(UserError, match="all labels are known"):
        sets_of_run(tmp_path / "run", CLASSES, multilabel=True, coverage=0.9)
    known[4:] = True  # of the test images alone
    write_run(tmp_path / "other", truth[::-1], known[::-1], probabilities)
    assert sets_of_run(tmp_path / "other", CLASSES, multilabel=True, coverage=0.9).on_test is None
