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


def listed(*cells: tuple[str, float], multilabel: bool, at_least: int = 20, split: str = "val") -> list[list[object]]:
    """(label, probability of b) of images 0.png, 1.png, ...: the rows of the table without patient and split."""
    frame = pd.DataFrame(cells, columns=["label", "prob_b"])
    frame = frame.assign(image_path=[f"{n}.png" for n in range(len(cells))], patient_id="p", split=split, predicted="b")
    frame["prob_a"] = 0.0 if multilabel else 1 - frame["prob_b"]
    classes = ["a", "b"] if not multilabel else ["b"]
    table = labels_to_check(frame, classes=classes, multilabel=multilabel, at_least=at_least)
    assert table.columns.tolist()[:3] == ["image_path", "patient_id", "split"]
    return table.drop(columns=["patient_id", "split"]).to_numpy().tolist()


def test_as_sure_as_the_mean_of_the_other_label_is_a_contradiction() -> None:
    """Images of b are believed b with 0.75 on average; one of a with just so much is contradicted, with less not."""
    others = [("b", 0.75), ("b", 0.5), ("b", 1.0)]
    found = listed(("a", 0.75), *others, multilabel=False)
    assert found[0] == ["0.png", "a", 0.25, "b", 0.75, "yes"]
    assert [row[-1] for row in found] == ["yes", "no", "no", "no"]
    assert [row[0] for row in found] == ["0.png", "2.png", "1.png", "3.png"]
    assert listed(("a", 0.75 - 2**-30), *others, multilabel=False)[0][-1] == "no"
    assert listed(("a", 0.5), ("b", 0.5), multilabel=False)[0] == ["0.png", "a", 0.5, "b", 0.5, "no"]  # no surer
    assert listed(("a", 0.75), ("b", 0.25), multilabel=False)[0][-1] == "yes"
    assert listed(("a", 0.99), ("a", 0.1), multilabel=False)[0][-1] == "no"  # nobody shows how sure one is of b
    assert listed(("a", 1.0), multilabel=False)[0][-1] == "yes"


def test_present_or_absent_is_contradicted_by_the_mean_of_the_other_answer() -> None:
    others = [(";", 0.25), (";", 0.5), (";", 0.0)]  # believed absent: 0.75, 0.5 and 1, on average 0.75
    found = listed(("b", 0.25), *others, multilabel=True)
    assert found[0] == ["0.png", "b", 0.25, "not b", 0.75, "yes"]
    assert found[1] == ["2.png", "not b", 0.5, "b", 0.5, "no"]
    assert listed(("b", 0.25 + 2**-30), *others, multilabel=True)[0][-1] == "no"
    assert listed(("b", 0.5), (";", 0.5), multilabel=True)[0][-1] == "no"  # as good as a coin
    assert listed(("b", 0.5 - 2**-30), (";", 0.5), multilabel=True)[0][-1] == "yes"
    assert listed(("b", 0.01), ("b", 0.9), multilabel=True)[0][-1] == "no"
    assert listed((";", 1.0), ("b", 0.75), multilabel=True)[0] == ["0.png", "not b", 0.0, "b", 1.0, "yes"]


def test_all_contradictions_are_listed_and_else_as_many_as_asked_for() -> None:
    rows = [("a", 0.9)] * 4 + [("b", 0.6)] * 3 + [("a", 0.3)] * 20
    assert [row[-1] for row in listed(*rows, multilabel=False, at_least=2)] == ["yes"] * 4
    assert [row[0] for row in listed(*rows, multilabel=False, at_least=6)] == [
        "0.png", "1.png", "2.png", "3.png", "4.png", "5.png"
    ]  # fmt: skip
    assert len(listed(*rows, multilabel=False)) == 20
    assert len(listed(*rows[:5], multilabel=False)) == 5
    for split, count in (("train", 0), ("test", 5), ("external", 5), ("internal", 5), ("val", 5)):
        assert len(listed(*rows[:5], multilabel=False, split=split)) == count
    assert len(listed(*rows[:5], ("", 0.5), multilabel=False)) == 5
    empty = labels_to_check(
        pd.DataFrame(columns=["image_path", "index", "patient_id", "split", "label", "prob_a"]), classes=["a"],
        multilabel=False,
    )  # fmt: skip
    assert empty.columns.tolist() == [
        "image_path", "index", "patient_id", "split", "label", "probability", "suggested", "suggested_probability",
        "contradicted",
    ]  # fmt: skip
