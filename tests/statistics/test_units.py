"""Images' answers pooled by patient, by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from msmae.errors import UserError
from msmae.statistics.summary import summarise
from msmae.statistics.units import (
    as_predictions,
    check_unit,
    decisive,
    gather,
    pool,
    unit_column,
    unit_predictions,
)

CLASSES = ("ill", "well")


def frame_of(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    """Patient, split, label, probability of the first class."""
    table = pd.DataFrame(rows, columns=["patient_id", "split", "label", "prob_ill"])
    paths = [f"{row}.png" for row in range(len(rows))]
    return table.assign(image_path=paths, predicted="well", prob_well=1 - table["prob_ill"])


FRAME = frame_of(
    ("b", "test", "ill", 0.9),
    ("a", "test", "well", 0.4),
    ("b", "test", "ill", 0.2),
    ("", "test", "well", 0.5),
    ("c", "test", "well", 0.1),
    ("c", "test", "ill", 0.2),
    ("b", "val", "well", 0.6),
    ("near-1", "test", "well", 0.6),
)


def test_a_unit_is_a_patient_of_a_split_and_what_has_no_one_label_is_left_out_and_counted():
    units = gather(FRAME, "patient_id", multilabel=False)
    assert units.table[["unit", "split", "label", "images"]].to_numpy().tolist() == [
        ["a", "test", "well", 1],
        ["b", "test", "ill", 2],
        ["b", "val", "well", 1],
    ]
    assert units.rows.tolist() == [1, 0, 2, 6]
    assert units.members.tolist() == [0, 1, 1, 2]
    assert [re.findall(r"\d+", note) for note in units.notes] == [
        ["1"],
        ["2"],
    ]  # patient c; the nameless and the cluster


def test_with_several_labels_an_image_a_patient_has_those_of_all():
    units = gather(frame_of(("a", "test", "ill;well", 0.4), ("a", "test", ";", 0.4)), "patient_id", multilabel=True)
    assert units.table["label"].tolist() == ["ill;well"]
    assert units.flags(CLASSES).tolist() == [[True, True]]
    assert gather(frame_of(("a", "test", ";", 0.1)), "patient_id", multilabel=True).table["label"].tolist() == [";"]


def test_what_one_image_shows_is_known_of_the_patient_though_another_is_unsure():
    """Ten patients with an ill image and one of which that is not known, ten with none, all answered rightly."""
    rows = [(f"p{number:02}", "test", label, 0.9) for number in range(10) for label in ("?ill", "ill;")]
    rows += [(f"q{number:02}", "test", label, 0.1) for number in range(10) for label in (";", ";")]
    frame = frame_of(*rows, ("r", "test", "?ill;well", 0.9), ("r", "test", "?ill;", 0.9)).assign(prob_well=0.1)
    units = gather(frame, "patient_id", multilabel=True)
    assert units.table["label"].tolist() == ["ill"] * 10 + [";"] * 10 + ["?ill;well"]
    flags = units.flags(CLASSES)
    assert flags[:20].tolist() == [[1, 0]] * 10 + [[0, 0]] * 10
    assert (np.isnan(flags[20, 0]), flags[20, 1]) == (True, 1)
    pooled = pool(frame[["prob_ill", "prob_well"]].to_numpy(), units.members, 21, "mean", multilabel=True)
    for kept in (units, replace(units, table=units.table.replace({"label": {"ill": "?ill;ill"}}))):  # by hand: both
        table = unit_predictions(kept, frame, pooled, CLASSES, multilabel=True)
        found = summarise(as_predictions(table), classes=CLASSES, multilabel=True, resamples=20)["test"]["per_class"]
        figures = {name: found["ill"][name]["value"] for name in ("prevalence", "accuracy", "sensitivity", "f1", "mcc")}
        assert figures == pytest.approx({"prevalence": 0.5, "accuracy": 1, "sensitivity": 1, "f1": 1, "mcc": 1})


def test_pooling_by_hand():
    probabilities, members = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), np.array([1, 1, 0])
    mean = pool(probabilities, members, 2, "mean", multilabel=False)
    np.testing.assert_allclose(mean, [[0.4, 0.6], [0.55, 0.45]])
    largest = pool(probabilities, members, 2, "max", multilabel=False)
    np.testing.assert_allclose(largest, [[0.4, 0.6], [0.9 / 1.7, 0.8 / 1.7]])
    np.testing.assert_allclose(pool(probabilities, members, 2, "max", multilabel=True)[1], [0.9, 0.8])


def test_the_image_that_decided_is_named_with_its_share():
    first, share = decisive(np.array([0.2, 0.5, 0.3, 1.0]), np.array([1, 1, 1, 0]), 2)
    assert first.tolist() == [3, 1]
    np.testing.assert_allclose(share, [1, 0.5])
    units = gather(FRAME, "patient_id", multilabel=False)
    pooled = np.array([[0.4, 0.6], [0.55, 0.45], [0.6, 0.4]])
    table = unit_predictions(units, FRAME, pooled, CLASSES, multilabel=False)
    assert table["decided_by"].tolist() == ["1.png", "0.png", "6.png"]
    assert table["predicted"].tolist() == ["well", "ill", "ill"]
    assert table["decided_share"][1] == pytest.approx(0.9 / 1.1, abs=1e-4)
    weighed = unit_predictions(units, FRAME, pooled, CLASSES, multilabel=False, weights=np.array([1.0, 0.3, 0.7, 1.0]))
    assert weighed["decided_by"].tolist() == ["1.png", "2.png", "6.png"]
    several = unit_predictions(units, FRAME, np.full((3, 2), 0.9), CLASSES, multilabel=True)
    assert several["decided_by"].tolist() == ["1.png", "0.png", "6.png"]  # by the first class of the answer


def test_a_column_that_is_not_there_or_empty_is_refused():
    assert unit_column(FRAME, "auto") == "patient_id"
    assert unit_column(FRAME, "none") is None
    assert unit_column(FRAME.assign(patient_id=""), "auto") is None
    assert unit_column(FRAME.assign(lesion="a"), "lesion") == "lesion"
    for asked, said in (("lesion", "no column 'lesion'"), ("empty", "is empty")):
        with pytest.raises(UserError, match=said):
            unit_column(FRAME.assign(empty=""), asked)


def test_the_interval_agrees_with_a_bootstrap_over_patients_written_by_hand():
    draw = np.random.default_rng(0)
    rows = []
    for patient in range(120):
        ill = bool(draw.random() < 0.5)
        for _ in range(3):
            chance = float(np.clip(draw.normal(0.58 if ill else 0.42, 0.15), 0, 1))
            rows.append((f"p{patient:03}", "test", "ill" if ill else "well", chance))
    frame = frame_of(*rows)
    units = gather(frame, "patient_id", multilabel=False)
    own = frame[["prob_ill", "prob_well"]].to_numpy()[units.rows]
    pooled = pool(own, units.members, len(units), "mean", multilabel=False)
    table = unit_predictions(units, frame, pooled, CLASSES, multilabel=False)
    found = summarise(as_predictions(table), classes=CLASSES, resamples=500)["test"]["metrics"]["balanced_accuracy"]
    ill, right = (table["label"] == "ill").to_numpy(), (table["label"] == table["predicted"]).to_numpy()
    by_hand = []
    for _ in range(2000):
        again = draw.integers(0, len(table), len(table))
        by_hand.append((right[again][ill[again]].mean() + right[again][~ill[again]].mean()) / 2)
    low, high = np.percentile(by_hand, [2.5, 97.5])
    assert found["value"] == pytest.approx((right[ill].mean() + right[~ill].mean()) / 2)
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.025), pytest.approx(high, abs=0.025))


def test_without_a_unit_nothing_is_pooled():
    units = gather(frame_of(("", "test", "ill", 0.9), ("", "test", "", 0.1)), "patient_id", multilabel=False)
    assert (len(units), units.flags(CLASSES).shape) == (0, (0, 2))
    assert pool(np.empty((0, 2)), units.members, 0, "mean", multilabel=True).shape == (0, 2)
    assert FRAME.iloc[units.rows].empty


def test_a_unit_of_another_column_has_a_patient_where_its_images_have_one():
    frame = FRAME.assign(lesion=["7", "7", "", "7", "10", "10", "7", "x"], index=["0"] * 8)
    units = gather(
        frame.assign(label=["ill", "ill", "ill", "ill", "well", "ill", "well", ""]), "lesion", multilabel=False
    )
    assert units.table.to_numpy().tolist() == [["7", "", "test", "ill", 3], ["7", "b", "val", "well", 1]]
    assert (units.rows.tolist(), units.members.tolist(), len(units)) == ([0, 1, 3, 6], [0, 0, 0, 1], 2)
    assert [re.findall(r"\d+", note) for note in units.notes] == [["1"], ["1"]]
    assert "lesion" in units.notes[1]
    assert gather(frame.assign(label="ill", lesion="l"), "lesion", multilabel=False).notes == []
    assert gather(frame.assign(label="ill", lesion=""), "lesion", multilabel=False).flags(CLASSES).shape == (0, 2)
    several = gather(
        frame.assign(label=["ill;well", ";", "ill", "well;", "ill", "ill", "ill", "ill"]), "lesion", multilabel=True
    )
    assert several.table["label"].tolist() == ["ill", "ill;well", "ill", "ill"]
    assert several.flags(("well", "ill")).tolist() == [[False, True], [True, True], [False, True], [False, True]]


def test_which_column_names_the_units():
    assert unit_column(FRAME, "auto") == "patient_id"
    assert unit_column(FRAME.assign(patient_id=["near-1", ""] * 4), "auto") is None
    assert unit_column(FRAME.drop(columns="patient_id"), "auto") is None
    assert unit_column(FRAME, "none") is None
    assert unit_column(FRAME.assign(lesion=["", "l"] * 4), "lesion") == "lesion"
    for asked in ("auto", "none"):
        check_unit(asked, FRAME.drop(columns="patient_id"))
    with pytest.raises(UserError, match="no column 'lesion'"):
        check_unit("lesion", FRAME)
    with pytest.raises(UserError, match="'lesion' is empty"):
        check_unit("lesion", FRAME.assign(lesion=""))


def test_the_image_with_the_largest_weight_decides_and_of_equals_the_first():
    weights, members = np.array([0.2, 0.5, 0.5, 0.1, 0.0]), np.array([1, 0, 0, 1, 2])
    first, share = decisive(weights, members, 3)
    assert first.tolist() == [1, 0, 4]
    assert share.tolist() == pytest.approx([0.5, 2 / 3, 0.0])


def test_the_table_of_units_names_the_image_that_decided():
    frame = FRAME.assign(axis="", index=["0", "1", "2", "3", "4", "5", "6", "7"])
    units = gather(frame, "patient_id", multilabel=False)
    pooled = pool(frame[["prob_ill", "prob_well"]].to_numpy()[units.rows], units.members, 3, "mean", multilabel=False)
    table = unit_predictions(units, frame, pooled, CLASSES, multilabel=False)
    assert table["predicted"].tolist() == ["well", "ill", "ill"]
    assert table["decided_by"].tolist() == ["1.png#1", "0.png#0", "6.png#6"]
    assert table["decided_share"].tolist() == [1.0, round(0.9 / 1.1, 4), 1.0]
    assert table["prob_ill"].tolist() == pytest.approx([0.4, 0.55, 0.6])
    assert table["answers"].tolist() == ["plain"] * 3
    attention = unit_predictions(
        units, frame, pooled, CLASSES, multilabel=False, weights=np.array([1.0, 0.3, 0.6, 2.0])
    )
    assert attention["decided_by"].tolist() == ["1.png#1", "2.png#2", "6.png#6"]
    assert attention["decided_share"].tolist() == [1.0, 0.6667, 1.0]
    nobody = unit_predictions(units, frame, np.full((3, 2), 0.1), CLASSES, multilabel=True)
    assert nobody["predicted"].tolist() == [";"] * 3
    assert nobody["decided_by"].tolist() == ["1.png#1", "0.png#0", "6.png#6"]  # the surest of anything
    assert nobody["decided_share"].tolist() == [1.0, round(0.9 / 1.7, 4), 1.0]
    both = unit_predictions(units, frame, np.full((3, 2), 0.9), CLASSES, multilabel=True)
    assert both["predicted"].tolist() == ["ill;well"] * 3
    again = as_predictions(table)
    assert again["image_path"].tolist() == ["a", "b", "b"]
    assert again["patient_id"].tolist() == ["a", "b", "b"]
