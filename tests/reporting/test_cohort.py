"""Who is in the data, which group each prediction belongs to, and which cases went wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from html_page import Page
from msmae.evaluation.panels import choose_cases
from msmae.reporting.cases import confusion, failures, outcome, sort_panels
from msmae.reporting.cohort import age_bands, groups, match_rows, patients, split_order, table_one, years
from msmae.reporting.papers import fill_in
from msmae.reporting.report import write_report
from msmae.reporting.run_files import Panel, read_run_files
from msmae.reporting.sections.patients import cases
from msmae.reporting.subgroups import subgroups
from msmae.statistics.summary import summarise, summarise_rows
from saved_run import make_predictions, write_run


def manifest_of(frame: pd.DataFrame, **columns: list[str]) -> pd.DataFrame:
    return frame[["image_path", "label", "patient_id", "split"]].assign(mask_path="", **columns)


def test_predictions_find_their_image_under_another_root() -> None:
    manifest = pd.DataFrame({"image_path": ["/data/a/x.png", "/data/b/x.png", "/data/b/y.png", "/data/set.npz#test/3"]})
    predictions = pd.DataFrame({"image_path": ["b/x.png", "a/x.png", "y.png", "set.npz#test/3", "z.png"]})
    assert match_rows(manifest, predictions).tolist() == [1, 0, 2, 3, -1]


def test_a_path_that_fits_two_images_fits_none() -> None:
    manifest = pd.DataFrame({"image_path": ["/data/a/x.png", "/data/b/x.png"]})
    assert match_rows(manifest, pd.DataFrame({"image_path": ["x.png", "b/x.png"]})).tolist() == [-1, 1]


def test_slices_of_a_volume_are_told_apart() -> None:
    manifest = pd.DataFrame({"image_path": ["v/one.nii"] * 3, "axis": "0", "index": ["4", "5", "6"]})
    predictions = pd.DataFrame({"image_path": ["one.nii"] * 2, "axis": "0", "index": ["6", "4"]})
    assert match_rows(manifest, predictions).tolist() == [2, 0]


def test_ages_are_read_as_hospitals_write_them() -> None:
    ages = years(pd.Series(["45", "045Y", "018M", "60.0", "002W", "54,5", "", "unknown", "-3"]))
    np.testing.assert_allclose(ages, [45, 45, 1.5, 60, 14 / 365.25, 54.5, np.nan, np.nan, np.nan])
    bands = age_bands(pd.Series([0.0, 19.9, 20.0, 79.0, 80.0, 101.0, np.nan]))
    assert bands.tolist() == ["0–19", "0–19", "20–39", "60–79", "80+", "80+", ""]


def test_groups_are_columns_with_few_values() -> None:
    n = 30
    frame = pd.DataFrame(
        {
            "image_path": [f"{i}.png" for i in range(n)],
            "label": "a",
            "patient_id": "",
            "split": "test",
            "site": [""] * n,
            "sex": ["f", "m", ""] * 10,
            "age": [str(i * 3) for i in range(n)],
            "file_id": [str(i) for i in range(n)],
            "grade": [str(i % 12) for i in range(n)],
        }
    )
    found = {group.name: group.order for group in groups(frame)}
    assert found == {
        "sex": ("f", "m"),
        "age": ("0–19", "20–39", "40–59", "60–79", "80+"),
        "grade": tuple(str(grade) for grade in range(12)),  # 10 after 9
    }


def test_table_one_counts_images_by_split() -> None:
    frame = pd.DataFrame(
        {
            "image_path": list("abcdef"),
            "label": ["x", "y", "x", "x", "", "y"],
            "patient_id": ["p", "p", "q", "r", "r", ""],
            "split": ["train", "train", "train", "test", "test", ""],
            "age": ["10", "30", "", "50", "50", ""],
        }
    )
    heads, rows = table_one(frame, classes=("x", "y"), multilabel=False)
    assert split_order(frame) == ["train", "test", ""]
    assert heads == ["training", "test", "not used"]
    cells = {row.name: [cell[0] for cell in row.cells] for row in rows}
    assert cells["Images"] == ["3", "2", "1"]
    assert cells["Patients"] == ["2", "1", "unknown"]
    assert cells["x"] == ["2", "1", "0"]
    assert cells["no label"] == ["0", "1", "0"]
    shares = {row.name: [cell[1] for cell in row.cells] for row in rows}
    assert shares["x"] == ["66.7\u00a0%", "50.0\u00a0%", "0.0\u00a0%"]
    age = next(row for row in rows if row.name.startswith("mean ±"))
    assert age.cells == (("20.0 ± 14.1", "10 to 30; 1 unknown"), ("50.0 ± 0.0", "50 to 50"), ("unknown", ""))
    assert patients(frame[frame["patient_id"] == ""]) is None


def test_table_one_finds_labels_in_lists() -> None:
    frame = pd.DataFrame({"image_path": list("abc"), "label": ["x;xy", "xy", ";"], "patient_id": "", "split": "test"})
    _, rows = table_one(frame, classes=("x", "xy"), multilabel=True)
    assert {row.name: row.cells[0][0] for row in rows if row.name in ("x", "xy")} == {"x": "1", "xy": "2"}


def test_subgroup_figures_are_those_of_the_groups_rows() -> None:
    frame = make_predictions(classes=("a", "b"), splits=("test",), separation=1.0)
    sites = ["north" if i % 3 else "south" for i in range(len(frame))]
    shuffled = manifest_of(frame, site=sites).sample(frac=1, random_state=1).reset_index(drop=True)
    shuffled["image_path"] = "/somewhere/" + shuffled["image_path"]
    found, notes = subgroups(frame, shuffled, classes=("a", "b"), multilabel=False, resamples=100)
    assert notes == []
    assert [(group.column, group.value) for group in found] == [("site", "north"), ("site", "south")]
    for group in found:
        rows = frame[np.array(sites) == group.value]
        direct = summarise_rows(rows, classes=("a", "b"), resamples=100, multilabel=False)
        assert group.n == len(rows)
        assert group.patients == rows["patient_id"].nunique()
        assert group.metrics == {name: direct["metrics"][name] for name in group.metrics}


def test_images_without_a_group_and_without_a_place_are_told() -> None:
    frame = make_predictions(classes=("a", "b"), splits=("test",), patients=10)
    manifest = manifest_of(frame, site=["north", "", "south", "south"] * 5).iloc[:-2]
    found, notes = subgroups(frame, manifest, classes=("a", "b"), multilabel=False, resamples=100)
    assert [group.value for group in found] == ["north", "south", "not known"]
    assert notes == ["2 of 20 predictions have no image in manifest.csv: left out here"]


def frame_of(rows: list[tuple[str, str, float, float, float]]) -> pd.DataFrame:
    columns = ["label", "predicted", "prob_a", "prob_b", "prob_c"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(image_path=[f"{i}.png" for i in range(len(rows))], patient_id="p", split="test")


def test_failures_come_surest_first() -> None:
    frame = frame_of([("a", "b", 0.1, 0.6, 0.3), ("a", "a", 0.9, 0.1, 0.0), ("c", "a", 0.8, 0.1, 0.1),
                      ("", "b", 0.0, 1.0, 0.0)])  # fmt: skip
    found = failures(frame, classes=("a", "b", "c"), multilabel=False, panels=())
    assert [(case.image_path, case.confidence, case.true_probability) for case in found] == [
        ("2.png", 0.8, 0.1),
        ("0.png", 0.6, 0.1),
    ]


def test_failures_with_several_labels_are_as_sure_as_their_worst_mistake() -> None:
    frame = frame_of([("a;b", "b;a", 0.9, 0.8, 0.1), ("a;b", "a;c", 0.9, 0.2, 0.6), (";", "c", 0.1, 0.1, 0.7),
                      ("c", ";", 0.1, 0.1, 0.05)])  # fmt: skip
    found = failures(frame, classes=("a", "b", "c"), multilabel=True, panels=())
    assert [case.image_path for case in found] == ["3.png", "1.png", "2.png"]
    assert [round(case.confidence, 9) for case in found] == [0.95, 0.8, 0.7]
    assert (found[0].label, found[0].predicted) == ("c", "none of the classes")
    assert found[1].label == "a, b"


def test_an_answer_of_which_the_truth_is_not_known_is_no_failure() -> None:
    frame = frame_of([("?a;b", "a;b", 0.9, 0.8, 0.1), ("?a;", "c", 0.9, 0.2, 0.6)])
    (found,) = failures(frame, classes=("a", "b", "c"), multilabel=True, panels=())
    assert (found.image_path, found.label, round(found.confidence, 9)) == ("1.png", "none of the classes", 0.6)


@pytest.mark.parametrize(
    ("label", "predicted", "wrong"),
    [
        ("b;a", "a;b", False),
        ("?a;b", "b", False),
        ("?a;b", "a;b", False),
        ("?a;", ";", False),
        ("?a;", "b", True),
        ("?a;b", "a", True),
        ("a;?a", ";", True),
        ("a;?a", "a", False),
        (";", "a;b", True),
    ],
)
def test_patients_and_pictured_cases_are_judged_by_what_is_known(label: str, predicted: str, wrong: bool) -> None:
    frame = frame_of([(label, predicted, 0.9, 0.8, 0.1), ("a;b", "a;b", 0.6, 0.6, 0.1)]).assign(split="test")
    assert bool(failures(frame[:1], classes=("a", "b", "c"), multilabel=True, panels=())) == wrong
    assert [kind for row, kind in choose_cases(frame, each=2) if row == 0] == ["wrong" if wrong else "right"]
    assert outcome(case(label, predicted, None, "chosen"), classes=3) == ("wrong" if wrong else "right")
    units = frame.assign(unit=["p", "q"], images=1, decided_by="0.png", decided_share=1.0)
    told = cases(units, "test", "mean", multilabel=True)
    assert told is not None
    assert told["wrong"] == wrong


def test_the_confusion_matrix_counts_truth_by_answer() -> None:
    frame = frame_of([("a", "b", 0, 1, 0), ("a", "b", 0, 1, 0), ("b", "a", 1, 0, 0), ("", "a", 1, 0, 0)])
    assert confusion(frame, ("a", "b", "c")).tolist() == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]


def case(label: str, predicted: str, probability: float | None, kind: str = "") -> Panel:
    from pathlib import Path

    return Panel("x.png", label, predicted, probability, Path("x.png"), kind)


@pytest.mark.parametrize(
    ("panel", "kind"),
    [
        (case("a", "b", 0.9), "wrong"),
        (case("a", "a", 0.9), "right"),
        (case("a", "a", 0.7), "uncertain"),  # of two classes: half of what lies above guessing is 0.75
        (case("a", "a", None), "right"),
        (case("", "a", 0.9), "unknown"),
        (case("a", "a", 0.9, "uncertain"), "uncertain"),
    ],
)
def test_panels_are_sorted_by_outcome(panel: Panel, kind: str) -> None:
    assert outcome(panel, classes=2) == kind
    assert sort_panels((panel,), classes=2) == {kind: [panel]}


def test_clusters_of_near_identical_images_are_no_patients(tmp_path: Path) -> None:
    """As `msmae check --repair` writes them where the data names no patients: in ``cluster``, and in ``patient_id``."""
    frame = make_predictions(patients=12, images_each=3)
    clusters = ("near-" + frame["patient_id"]).where(frame.index % 3 < 2, "")
    both = []
    for column in (clusters, ""):
        rows = frame.assign(patient_id=column, cluster=clusters)
        run = write_run(tmp_path / str(column is clusters), rows, columns={"cluster": clusters.tolist()})
        split = json.loads((run / "metrics.json").read_text())["splits"]["test"]
        both.append(split)
        assert split["patients"] is None
        assert split["clusters"] == 12
        text = Page(write_report(run)).text
        assert "36 images, with 12 clusters of near-identical images" in text
        assert not re.search(r"\d patients", text)
        claims = fill_in("claim_2024", read_run_files(run))[2]
        (disjoint,) = (item.answer for item in claims if item.item == "20")
        assert "0 clusters in more than one split. Patients unknown." in disjoint
        assert "no patient is in more" not in disjoint
    alone = summarise(frame.assign(patient_id="", cluster=""), classes=["benign", "malignant", "normal"], resamples=100)
    assert "clusters" not in alone["test"]
    assert both[0]["metrics"] == both[1]["metrics"] != alone["test"]["metrics"]  # clusters are resampled whole


def test_table_one_takes_shares_of_the_images_of_which_it_is_known() -> None:
    labels = ["x", "x;y", "?x;y", "?x;", ";"]
    frame = pd.DataFrame({"image_path": list("abcde"), "label": labels, "patient_id": "", "split": "test"})
    _, rows = table_one(frame, classes=("x", "y"), multilabel=True)
    cells = {row.name: row.cells[0] for row in rows if row.cells}
    assert cells["x"] == ("2", "66.7\u00a0%")
    assert cells["x: not known"] == ("2", "40.0\u00a0%")
    assert cells["y"] == ("2", "40.0\u00a0%")
    assert "y: not known" not in cells
