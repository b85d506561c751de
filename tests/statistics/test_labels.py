"""Wrong labels that were put in are found again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msmae.statistics.labels import labels_to_check
from saved_run import make_predictions

CLASSES = ("benign", "malignant", "normal")


def with_wrong_labels(frame: pd.DataFrame, share: float = 0.05) -> tuple[pd.DataFrame, set[str]]:
    """The frame with this share of other labels, and the paths of those images."""
    draw, frame = np.random.default_rng(1), frame.copy()
    wrong = draw.permutation(len(frame))[: round(share * len(frame))]
    for row in wrong:
        others = [name for name in CLASSES if name != frame.loc[row, "label"]]
        frame.loc[row, "label"] = others[int(draw.integers(len(others)))]
    return frame, set(frame.loc[wrong, "image_path"])


def test_injected_wrong_labels_are_contradicted_by_a_good_model():
    """A model that is right of 97 % of 800 images; 5 % of their labels are wrong."""
    frame, wrong = with_wrong_labels(make_predictions(patients=200, separation=5))
    table = labels_to_check(frame, classes=CLASSES, multilabel=False)
    found = table[table["contradicted"] == "yes"]
    assert len(wrong) == 40
    assert found["image_path"].isin(wrong).mean() >= 0.5
    assert len(wrong & set(found["image_path"])) >= 0.7 * len(wrong)
    assert table["contradicted"].tolist() == sorted(table["contradicted"], reverse=True)
    assert found["probability"].is_monotonic_increasing
    assert (found["suggested"] != found["label"]).all()


def test_twenty_are_listed_where_nothing_is_contradicted_and_training_images_never():
    frame = make_predictions(patients=30, separation=50, splits=("train", "val", "test"))
    table = labels_to_check(frame, classes=CLASSES, multilabel=False)
    assert len(table) == 20
    assert set(table["contradicted"]) == {"no"}
    assert set(table["split"]) <= {"val", "test"}
    assert labels_to_check(frame[frame["split"] == "train"], classes=CLASSES, multilabel=False).empty


def test_with_several_labels_the_class_believed_least_is_named():
    frame = make_predictions(patients=40, multilabel=True)
    for name in CLASSES:
        frame[f"prob_{name}"] = [0.9 if name in label.split(";") else 0.2 for label in frame["label"]]
    true = frame["label"][7]
    named = {piece for piece in true.split(";") if piece}
    frame.loc[7, "label"] = ";".join(sorted(named ^ {"normal"})) or ";"
    first = labels_to_check(frame, classes=CLASSES, multilabel=True).iloc[0]
    assert first["image_path"] == frame["image_path"][7]
    pair = ("not normal", "normal") if "normal" in named else ("normal", "not normal")
    assert (first["label"], first["suggested"]) == pair
    assert first["probability"] == pytest.approx(1 - first["suggested_probability"])


def test_a_class_that_is_not_known_of_an_image_is_no_label_to_check():
    frame = make_predictions(patients=40, multilabel=True)
    for name in CLASSES:
        frame[f"prob_{name}"] = [0.9 if name in label.split(";") else 0.2 for label in frame["label"]]
    frame.loc[7, "prob_normal"] = 0.99
    frame.loc[7, "label"] = "?normal;"
    assert labels_to_check(frame, classes=CLASSES, multilabel=True).iloc[0]["label"] != "not normal"
    frame.loc[7, "label"] = ";"
    assert labels_to_check(frame, classes=CLASSES, multilabel=True).iloc[0]["label"] == "not normal"
