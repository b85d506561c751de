"""predictions.csv: written so that it reads back equal, and refused when no number should be made of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from msmae.errors import UserError
from msmae.statistics.predictions import (
    check_columns,
    classes_of,
    read_predictions,
    to_arrays,
    write_predictions,
)
from simulated import as_frame, draw

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
awkward = st.sampled_from(["NA", "007", "1e5", "nan", 'a "quoted", one', "два\nlines", "None", " spaced ", "-0"])


@pytest.fixture
def frame() -> pd.DataFrame:
    return as_frame(draw(np.random.default_rng(0), patients=6, images_each=2, classes=3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(names | awkward, names | awkward | st.just(""), awkward, st.floats(0, 1, allow_subnormal=True)),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_reads_back_equal_to_the_bit(tmp_path: Path, rows: list[tuple[str, str, str, float]]) -> None:
    frame = pd.DataFrame(
        {
            "image_path": [row[0] for row in rows],
            "patient_id": [row[1] for row in rows],
            "split": "test",
            "label": [row[2] for row in rows],
            "predicted": [row[2] for row in rows],
            "prob_NA": [row[3] for row in rows],
            "prob_other": [1 - row[3] for row in rows],
        }
    )
    path = tmp_path / "predictions.csv"
    write_predictions(frame, path)
    back = read_predictions(path)
    assert_frame_equal(back, frame, check_exact=True, check_dtype=False)
    assert back["prob_NA"].to_numpy().tobytes() == frame["prob_NA"].to_numpy().tobytes()
    assert classes_of(back) == ("NA", "other")
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "record.json"]  # nothing half-written stays behind


def test_single_precision_probabilities_read_back_equal(frame: pd.DataFrame, tmp_path: Path) -> None:
    columns = [name for name in frame.columns if name.startswith("prob_")]
    frame[columns] = frame[columns].astype(np.float32)
    write_predictions(frame, tmp_path / "p.csv")
    np.testing.assert_array_equal(read_predictions(tmp_path / "p.csv")[columns], frame[columns].astype(np.float64))


def test_a_file_that_is_not_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such predictions file"):
        read_predictions(tmp_path / "absent.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(UserError, match="not a predictions file"):
        read_predictions(tmp_path / "empty.csv")
    (tmp_path / "words.csv").write_text("image_path,prob_a\nx.png,high\n", encoding="utf-8")
    with pytest.raises(UserError, match="column prob_a cannot be read"):
        read_predictions(tmp_path / "words.csv")


def test_arrays_say_what_the_rows_say(frame: pd.DataFrame) -> None:
    arrays = to_arrays(frame, classes=("c0", "c1", "c2"))
    assert [arrays.classes[c] for c in arrays.truth.argmax(axis=1)] == frame["label"].tolist()
    assert [arrays.classes[c] for c in arrays.predicted.argmax(axis=1)] == frame["predicted"].tolist()
    assert arrays.patient_names[arrays.patients].tolist() == frame["patient_id"].tolist()
    assert (arrays.images, arrays.patient_count, arrays.clustered) == (12, 6, True)


def test_the_order_of_the_classes_is_the_callers(frame: pd.DataFrame) -> None:
    turned = to_arrays(frame, classes=("c2", "c0", "c1"))
    np.testing.assert_array_equal(turned.probabilities[:, 0], frame["prob_c2"])
    np.testing.assert_array_equal(turned.truth[:, 0], frame["label"] == "c2")


def test_an_image_of_an_unknown_patient_is_a_patient_of_its_own(frame: pd.DataFrame) -> None:
    frame.loc[:3, "patient_id"] = ""
    arrays = to_arrays(frame, classes=("c0", "c1", "c2"))
    assert arrays.patient_count == 4 + 4
    shuffled = to_arrays(frame.sample(frac=1, random_state=1), classes=("c0", "c1", "c2"))
    assert shuffled.patient_names.tolist() == arrays.patient_names.tolist()


def test_several_labels_of_one_image() -> None:
    frame = pd.DataFrame(
        {
            "image_path": ["a", "b"],
            "patient_id": ["1", "2"],
            "split": "test",
            "label": ["effusion; mass", "mass"],
            "predicted": ["", "effusion"],
            "prob_effusion": [0.2, 0.9],
            "prob_mass": [0.4, 0.1],
        }
    )
    arrays = to_arrays(frame, classes=("effusion", "mass"))
    assert arrays.multilabel
    assert arrays.truth.tolist() == [[True, True], [False, True]]
    assert arrays.predicted.tolist() == [[False, False], [True, False]]
    assert arrays.known is None
    partly = to_arrays(frame.assign(label=["?effusion;mass", "mass"]), classes=("effusion", "mass"))
    assert partly.truth.tolist() == [[False, True], [False, True]]
    assert partly.judged.tolist() == [[False, True], [True, True]]
    assert partly.about(0).patient_names.tolist() == ["2"]


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("prob_c1", np.nan, "not a finite number"),
        ("prob_c1", np.inf, "not a finite number"),
        ("prob_c1", -0.2, "outside 0..1"),
        ("prob_c1", 3.7, "outside 0..1"),
        ("label", "melanoma", "label 'melanoma' is not a class"),
        ("predicted", "", "predicted '' is not a class"),
    ],
)
def test_a_row_no_number_can_be_made_of_is_refused_by_name(
    frame: pd.DataFrame, column: str, value: object, complaint: str
) -> None:
    frame.loc[4, column] = value
    with pytest.raises(UserError, match=complaint) as refusal:
        to_arrays(frame, classes=("c0", "c1", "c2"))
    assert "test/00004.png" in str(refusal.value)
    assert refusal.value.mend


def test_probabilities_that_do_not_sum_to_one_are_refused_unless_there_are_several_labels(frame: pd.DataFrame) -> None:
    frame.loc[0, ["prob_c0", "prob_c1", "prob_c2"]] = [0.9, 0.9, 0.1]
    with pytest.raises(UserError, match="do not sum to one"):
        to_arrays(frame, classes=("c0", "c1", "c2"))
    assert to_arrays(frame, classes=("c0", "c1", "c2"), multilabel=True).images == 12


def test_a_missing_column_and_a_repeated_image_are_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="lack the column prob_c3"):
        check_columns(frame, ("c0", "c3"))
    frame.loc[1, "image_path"] = frame.loc[0, "image_path"]
    with pytest.raises(UserError, match="1 row for an image that the predictions have already"):
        check_columns(frame, ("c0",))
    with pytest.raises(UserError, match="column label holds something other than text"):
        check_columns(frame.assign(label=3), ("c0",))
    with pytest.raises(UserError, match="column patient_id holds something other than text"):
        check_columns(frame.assign(patient_id=[None, *frame["patient_id"][1:]]), ("c0",))
    check_columns(frame.assign(index=[str(i) for i in range(12)]), ("c0",))  # slices of one volume


def test_a_file_name_that_is_not_utf8_comes_back_as_it_is(frame: pd.DataFrame, tmp_path: Path) -> None:
    name = os.fsdecode(b"images/\xe9t\xe9.png")
    written = frame.copy()
    written["image_path"] = [name, *frame["image_path"].iloc[1:]]
    write_predictions(written, tmp_path / "predictions.csv")
    assert b"images/\xe9t\xe9.png" in (tmp_path / "predictions.csv").read_bytes()
    again = read_predictions(tmp_path / "predictions.csv")
    assert again["image_path"].tolist() == written["image_path"].tolist()
    assert to_arrays(again, classes=classes_of(again)).images == len(frame)
