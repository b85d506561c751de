"""Rows of predictions: names that stay text, who is a patient, what a split says and why not, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from msmae.errors import UserError
from msmae.statistics.metrics import prepare
from msmae.statistics.predictions import (
    Predictions,
    check_columns,
    class_index,
    classes_of,
    cluster_count,
    identity_columns,
    is_multilabel,
    names_patient,
    probability_columns,
    read_predictions,
    to_arrays,
    write_predictions,
)
from msmae.statistics.summary import (
    OF_ONE_CLASS,
    figures_by,
    one_class,
    summarise,
    summarise_arrays,
    summarise_rows,
    with_both_rules,
)
from simulated import as_frame, draw

AB = ("a", "b")


def rows(*cells: tuple[str, str, str, float], **columns: object) -> pd.DataFrame:
    """(patient, label, predicted, probability of b) of images 0.png, 1.png, ... of the test split."""
    frame = pd.DataFrame(
        {
            "image_path": [f"{n}.png" for n in range(len(cells))],
            "patient_id": [cell[0] for cell in cells],
            "split": "test",
            "label": [cell[1] for cell in cells],
            "predicted": [cell[2] for cell in cells],
            "prob_a": [1 - cell[3] for cell in cells],
            "prob_b": [cell[3] for cell in cells],
        }
    )
    return frame.assign(**columns)


# --- rows


def test_a_table_is_read_by_its_name_as_text_and_names_stay_text(tmp_path: Path) -> None:
    frame = rows(("007", "a", "b", 0.25), ("NA", "", "a", 0.1), ("1e3", "b", "b", 1 / 3))
    frame = frame.assign(cluster=["08", "", "near-1"])
    write_predictions(frame, str(tmp_path / "p.csv"))
    for path in (str(tmp_path / "p.csv"), tmp_path / "p.csv"):
        read = read_predictions(path)
        assert read.to_dict("list") == frame.to_dict("list")
    with pytest.raises(UserError, match="no such predictions file"):
        read_predictions(str(tmp_path / "q.csv"))


def test_a_gap_is_nan_and_what_is_no_number_is_refused_by_its_column(tmp_path: Path) -> None:
    frame = rows(("p", "a", "b", 0.25), ("q", "b", "b", 0.5))
    frame.assign(prob_b=["", "0.5"]).to_csv(tmp_path / "gap.csv", index=False)
    assert read_predictions(tmp_path / "gap.csv")["prob_b"].tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)
    frame.assign(prob_b=["much", "0.5"]).to_csv(tmp_path / "word.csv", index=False)
    with pytest.raises(UserError, match="column prob_b cannot be read"):
        read_predictions(tmp_path / "word.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="not a predictions file"):
        read_predictions(tmp_path / "empty.csv")


def test_who_is_a_patient() -> None:
    """Named, else the cluster, else the image; the numbers follow the names in their order."""
    frame = rows(
        ("q", "a", "a", 0.1), ("", "a", "a", 0.1), ("", "b", "a", 0.1), ("", "b", "b", 0.9), ("p", "a", "a", 0)
    )
    arrays = to_arrays(frame.assign(cluster=["", "near-9", "near-9", "", "near-9"]), classes=AB)
    assert arrays.patient_names.tolist() == ["3.png", "near-9", "p", "q"]
    assert arrays.patients.tolist() == [3, 1, 1, 0, 2]
    assert (arrays.images, arrays.patient_count, arrays.clustered) == (5, 4, True)
    alone = to_arrays(frame, classes=AB)
    assert alone.patient_names.tolist() == ["1.png", "2.png", "3.png", "p", "q"]
    assert not alone.clustered
    slices = frame.assign(image_path="v.nii", axis="0", index=["3", "10", "2", "1", "0"])
    assert identity_columns(slices) == ["image_path", "axis", "index"]
    assert to_arrays(slices, classes=AB).patient_names.tolist() == ["p", "q", "v.nii#0#1", "v.nii#0#10", "v.nii#0#2"]
    assert identity_columns(frame.assign(frame="1")) == ["image_path", "frame"]


def test_a_cluster_is_no_patient() -> None:
    frame = rows(
        ("p", "a", "a", 0), ("near-1", "a", "a", 0), ("", "a", "a", 0), ("", "a", "a", 0), ("pnear-", "a", "a", 0)
    )
    assert names_patient(frame).tolist() == [True, False, False, False, True]
    assert cluster_count(frame) == 1
    assert cluster_count(frame.assign(cluster=["near-5", "", "near-2", "x", "near-6"])) == 2
    assert cluster_count(frame.head(1)) == 0


def test_columns_name_the_classes_in_their_order() -> None:
    frame = rows(("p", "a", "b", 0.25)).assign(**{"prob_x_y": 0.0})
    assert probability_columns(frame) == ["prob_a", "prob_b", "prob_x_y"]
    assert classes_of(frame) == ("a", "b", "x_y")
    assert [class_index(("a", "b", "x"), name) for name in ("a", "x")] == [0, 2]
    with pytest.raises(UserError, match="no class 'c'"):
        class_index(AB, "c")
    assert [is_multilabel(rows(("p", label, said, 0))) for label, said in (("a", "b"), ("a;", "b"), ("a", "a;b"))] == [
        False, True, True
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["image_path", "patient_id", "split", "label", "predicted", "prob_b"])
def test_a_frame_that_lacks_a_column_or_a_value_is_refused(column: str) -> None:
    frame = rows(("p", "a", "b", 0.25), ("q", "b", "b", 0.5))
    check_columns(frame, AB)
    check_columns(frame.iloc[:0], AB)
    with pytest.raises(UserError, match=f"lack the column {column}"):
        check_columns(frame.drop(columns=column), AB)
    if column != "prob_b":
        for wrong in (frame.assign(**{column: [None, "x"]}), frame.assign(**{column: [1, 2]})):
            with pytest.raises(UserError, match=f"column {column} holds something other"):
                check_columns(wrong, AB)
    with pytest.raises(UserError, match="lack the columns patient_id, prob_c"):
        check_columns(frame.drop(columns="patient_id"), ("a", "c"))


def test_an_image_twice_in_a_split_is_refused_with_its_name() -> None:
    frame = rows(*[("p", "a", "b", 0.25)] * 4, image_path=["x", "y", "y", "y"])
    with pytest.raises(UserError, match="2 rows for an image that the predictions have already") as refused:
        check_columns(frame, AB)
    assert "y" in str(refused.value)
    check_columns(frame.assign(index=["0", "0", "1", "2"]), AB)
    check_columns(frame.assign(split=["test", "test", "val", "train"]), AB)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [(np.nan, 0.5, "not a finite"), (np.inf, 0.5, "not a finite"), (1.1, -0.1, "outside 0..1"), (-0.1, 0.5, "outside"),
     (0.5, 0.502, "do not sum to one"), (0.4, 0.5, "do not sum to one")],
)  # fmt: skip
def test_a_probability_that_cannot_be_is_refused_with_its_image_and_how_many(a: float, b: float, said: str) -> None:
    frame = rows(*[("p", "a", "a", 0.25)] * 5)
    frame.loc[[2, 4], ["prob_a", "prob_b"]] = [a, b]
    with pytest.raises(UserError, match=said) as refused:
        to_arrays(frame, classes=AB)
    assert "2.png, and 1 more rows" in str(refused.value)


def test_a_thousandth_beside_one_is_rounding() -> None:
    frame = rows(("p", "a", "a", 0.5), ("q", "b", "a", 0.0))
    frame.loc[0, "prob_a"] = 0.5009
    assert to_arrays(frame, classes=AB).probabilities.tolist() == [[0.5009, 0.5], [1.0, 0.0]]
    free = to_arrays(frame.assign(prob_a=0.9), classes=AB, multilabel=True)
    assert free.probabilities[:, 0].tolist() == [0.9, 0.9]


def several(*labels: str) -> Predictions:
    frame = rows(*[(f"p{n // 2}", label, "a;b", 0.25) for n, label in enumerate(labels)])
    return to_arrays(frame, classes=AB)


def test_labels_that_are_not_known_are_neither_there_nor_absent() -> None:
    p = several("a; b", "?a;b", ";", "?b", "a;?b;?other", "b")
    assert p.truth.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0], [1, 0], [0, 1]]
    assert p.judged.tolist() == [[1, 1], [0, 1], [1, 1], [1, 0], [1, 0], [1, 1]]
    assert p.predicted.tolist() == [[True, True]] * 6
    about = p.about(0)
    assert about.truth.tolist() == p.truth[[0, 2, 3, 4, 5]].tolist()
    assert about.patients.tolist() == [0, 1, 1, 2, 2]
    assert (about.patient_names.tolist(), about.multilabel) == (["p0", "p1", "p2"], True)
    last = p.about(1)
    assert (last.patients.tolist(), last.patient_names.tolist()) == ([0, 0, 1, 2], ["p0", "p1", "p2"])
    assert last.judged.tolist() == p.judged[[0, 1, 2, 5]].tolist()
    whole = several("a;", "b", "a;b")
    assert whole.known is None
    assert whole.about(0) is whole
    for wrong in ("a;c", "?"):
        if wrong == "?":
            assert several("a;b", "?").truth.tolist() == [[True, True], [False, False]]
            continue
        with pytest.raises(UserError, match="label 'c' is not a class"):
            several("a", wrong)
    with pytest.raises(UserError, match=r"predicted '\?a' is not a class"):
        to_arrays(rows(("p", "a;b", "?a", 0.5)), classes=AB)
    with pytest.raises(UserError, match=r"label '\?a' is not a class"):
        to_arrays(rows(("p", "?a", "a", 0.5)), classes=AB)


# --- what a split says


def reasons(split: dict[str, Any]) -> dict[str, str]:
    return {name: entry["reason"] for name, entry in split["metrics"].items() if entry["value"] is None}


def test_a_figure_that_is_undefined_says_of_what_kind() -> None:
    constant = summarise(rows(*[(f"p{n}", AB[n % 2], "a", 0.25) for n in range(8)]), classes=AB, resamples=10)["test"]
    assert "predicted to have one class" in reasons(constant)["mcc"]
    assert "kappa" not in reasons(constant)
    for name, entry in constant["per_class"]["b"].items():
        if name in ("ppv", "mcc"):
            assert entry["reason"] == "no image is predicted to have this class"
    assert "every image is predicted" in constant["per_class"]["a"]["npv"]["reason"]
    assert [note for note in constant["notes"] if "never predicted" in note] == ["never predicted: b"]
    absent = summarise(
        rows(*[(f"p{n}", AB[n % 2], AB[n % 2], 0.25) for n in range(8)]).assign(prob_c=0.0),
        classes=(*AB, "c"),
        resamples=10,
    )["test"]
    assert absent["per_class"]["c"]["sensitivity"]["reason"].startswith(
        "no image has this class; no image is predicted"
    )
    assert absent["per_class"]["c"]["n"] == 0
    assert [note for note in absent["notes"] if "no image of c" in note]
    assert not any("never predicted" in note for note in absent["notes"])


def test_where_every_image_is_of_one_class_only_figures_of_one_class_are_left() -> None:
    frame = rows(*[(f"p{n}", "b", AB[n % 2], 0.25) for n in range(8)])
    split = summarise(frame, classes=AB, resamples=10)["test"]
    assert {name for name, entry in split["metrics"].items() if entry["value"] is not None} == OF_ONE_CLASS & set(
        split["metrics"]
    )
    assert split["metrics"]["accuracy"]["value"] == 0.5
    assert all("one class, b" in reason for reason in reasons(split).values())
    assert split["per_class"]["b"]["specificity"]["reason"] == "every image has this class"
    assert one_class(to_arrays(frame, classes=AB)) == "b"
    assert one_class(to_arrays(frame, classes=AB, multilabel=True)) == ""
    assert one_class(to_arrays(frame.assign(label=["a", *["b"] * 7]), classes=AB)) == ""


def test_several_labels_without_any_have_their_reasons() -> None:
    frame = rows(*[(f"p{n}", ";", ";", 0.25) for n in range(4)])
    split = summarise(frame, classes=AB, resamples=10)["test"]
    assert "none is predicted" in reasons(split)["f1_micro"]
    assert "no class has both" in reasons(split)["auroc"]
    assert "one class" in reasons(split)["kappa"]
    unknown = summarise(frame.assign(label="?a;"), classes=AB, resamples=10)["test"]
    assert unknown["per_class"]["a"]["sensitivity"]["reason"].startswith("of no image it is known")
    assert unknown["notes"][0].endswith("left out of the figures of their class: 4 labels")


def test_notes_count_the_rows_without_label_or_patient() -> None:
    frame = rows(*[("", AB[n % 2], "a", 0.25) for n in range(6)], *[("p", "", "a", 0.25)] * 3)
    split = summarise_rows(frame, classes=AB, resamples=10, multilabel=False)
    assert (split["n"], split["patients"]) == (6, None)
    assert "clusters" not in split
    assert any(note == "left out, without a label: 3 images" for note in split["notes"])
    (note,) = (note for note in split["notes"] if "patient id" in note)
    assert note.startswith("no patient id: 6 of 6 images")
    assert "of near" not in note
    some = frame.assign(patient_id=["q", "near-1", "near-1", "", "", "q", "", "", ""])
    split = summarise_rows(some, classes=AB, resamples=10, multilabel=False)
    assert (split["patients"], split["clusters"]) == (4, 1)
    (note,) = (note for note in split["notes"] if "patient id" in note)
    assert note.startswith("no patient id: 4 of 6 images")
    assert "1 cluster of near" in note
    none = summarise_rows(frame.tail(3), classes=AB, multilabel=False)
    assert (none["n"], none["patients"], none["resamples"], none["metrics"], none["per_class"]) == (0, None, 0, {}, {})
    assert "no image of 3 has a label" in none["notes"][0]


def test_a_summary_is_of_two_thousand_draws_and_seed_0_unless_said_and_splits_are_in_order() -> None:
    p = draw(np.random.default_rng(0), patients=8)
    given = summarise_arrays(p)
    assert given == summarise_arrays(p, resamples=2000, seed=0, ordinal=False, areas=True)
    assert given["resamples"] == 2000
    assert "kappa_quadratic" not in given["metrics"]
    frame = pd.concat([as_frame(p, split=split) for split in ("zoo", "train", "external", "val", "test")])
    found = summarise(frame, classes=("c0", "c1"))
    assert list(found) == ["test", "val", "train", "external", "zoo"]
    assert found["val"]["metrics"] == given["metrics"]
    by_row = summarise_rows(as_frame(p), classes=("c0", "c1"), multilabel=False)
    assert by_row["metrics"] == given["metrics"]
    one = summarise_arrays(draw(np.random.default_rng(0), patients=1, images_each=4))
    assert (one["resamples"], one["patients"]) == (0, 1)
    values = prepare(p).as_is()
    assert given["metrics"]["brier"]["value"] == values.overall["brier"][0]
    assert [given["per_class"][name]["n"] for name in ("c0", "c1")] == p.truth.sum(axis=0).tolist()


def two_splits(seed: int = 0, patients: int = 50) -> pd.DataFrame:
    parts = [as_frame(draw(np.random.default_rng(seed + n), patients=patients), split=s) for n, s in enumerate(("val", "test"))]  # fmt: skip  # noqa: E501
    return pd.concat(parts, ignore_index=True)


def test_both_rules_are_kept_apart() -> None:
    frame = two_splits(patients=20)
    turned = frame.assign(predicted_plain=frame["predicted"].where(frame["split"] == "val", "c1"))
    options = {"classes": ("c0", "c1"), "resamples": 30, "multilabel": False}
    balanced = summarise(frame, **options)
    both = with_both_rules(balanced, turned, **options)
    alone = summarise(frame.assign(predicted="c1"), **options)["test"]
    assert set(both["test"]["plain"]) == {"metrics", "per_class", "notes"}
    assert both["test"]["plain"]["metrics"]["accuracy"] == alone["metrics"]["accuracy"]
    assert both["test"]["plain"]["notes"] == alone["notes"] != both["test"]["notes"]
    assert not {"auroc", "brier", "ece"} & set(both["test"]["plain"]["metrics"])
    assert "n" not in both["test"]["plain"]["per_class"]["c0"]
    assert both["val"]["plain"]["metrics"]["accuracy"] == balanced["val"]["metrics"]["accuracy"]
    assert figures_by(both["test"], "balanced") == both["test"]
    assert figures_by(balanced["test"], "plain") == balanced["test"]
    plain = figures_by(both["test"], "plain")
    assert plain["metrics"]["auroc"] == balanced["test"]["metrics"]["auroc"]
    assert plain["per_class"]["c0"]["sensitivity"]["value"] == 0.0
    assert plain["per_class"]["c0"]["n"] == balanced["test"]["per_class"]["c0"]["n"]
    assert plain["notes"] == alone["notes"]
