"""Images' answers pooled by patient, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msmae.errors import UserError
from msmae.statistics.summary import summarise
from msmae.statistics.units import as_predictions, decisive, gather, pool, unit_column, unit_predictions

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
    assert [note.split()[0] for note in units.notes] == ["1", "2"]  # patient c; the nameless and the cluster


def test_with_several_labels_an_image_a_patient_has_those_of_all():
    units = gather(frame_of(("a", "test", "ill;well", 0.4), ("a", "test", ";", 0.4)), "patient_id", multilabel=True)
    assert units.table["label"].tolist() == ["ill;well"]
    assert units.flags(CLASSES).tolist() == [[True, True]]
    assert gather(frame_of(("a", "test", ";", 0.1)), "patient_id", multilabel=True).table["label"].tolist() == [";"]


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
