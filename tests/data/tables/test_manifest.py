"""The manifest: its columns, its classes and targets, and a CSV that reads back equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from msmae.data.manifest import COLUMNS, Manifest, printable, read_manifest
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError


def manifest_of(*labels: str, **columns: list[str]) -> Manifest:
    table = pd.DataFrame({"image_path": [f"{n}.png" for n in range(len(labels))], "label": labels, **columns})
    return Manifest.from_table(table, root=Path("data"), layout="csv")


def test_missing_columns_and_values_become_empty_text():
    table = pd.DataFrame({"age": [80.0, np.nan], "image_path": ["a.png", "b.png"], "label": ["x", None]}, index=[7, 9])
    manifest = Manifest.from_table(table, root=Path("data"), layout="csv", notes=["one"])
    assert tuple(manifest.table.columns) == (*COLUMNS, "age")
    assert list(manifest.table.index) == [0, 1]
    assert list(manifest.table["age"]) == ["80.0", ""]
    assert list(manifest.table["label"]) == ["x", ""]
    assert (manifest.table[["patient_id", "split", "mask_path", "site"]] == "").all(axis=None)
    assert manifest.notes == ("one",)
    assert len(manifest) == 2


def test_classes_are_sorted_as_numbers_before_text():
    assert manifest_of("10", "2", "b", "", "-1", "a", "1.5").classes == ("-1", "1.5", "2", "10", "a", "b")


def test_targets_of_single_labels():
    targets = manifest_of("b", "a", "", "b").targets()
    assert targets.dtype == np.int64
    assert targets.tolist() == [1, 0, -1, 1]


def test_targets_of_several_labels_tell_no_finding_from_no_label():
    manifest = manifest_of("a;c", "b", "", ";")
    assert manifest.multilabel
    assert manifest.classes == ("a", "b", "c")
    targets = manifest.targets()
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [[1, 0, 1], [0, 1, 0], [np.nan] * 3, [0, 0, 0]])


def test_ids_name_the_rows_of_a_split():
    manifest = manifest_of("a", "a", "b", "b", split=["test", "train", "", "test"])
    assert manifest.ids("test").tolist() == [0, 3]
    assert manifest.ids("test").dtype == np.int64
    assert manifest.ids("val").tolist() == []
    with pytest.raises(UserError, match="no split 'valid'"):
        manifest.ids("valid")


def test_select_numbers_the_rows_anew():
    chosen = manifest_of("a", "b", "c").select(np.array([2, 0]))
    assert list(chosen.table["image_path"]) == ["2.png", "0.png"]
    assert list(chosen.table.index) == [0, 1]


def test_with_splits_leaves_the_first_manifest_alone():
    manifest = manifest_of("a", "b")
    cut = manifest.with_splits(np.array(["train", "val"]), notes=["cut"])
    assert list(cut.table["split"]) == ["train", "val"]
    assert cut.notes == ("cut",)
    assert list(manifest.table["split"]) == ["", ""]


def test_paths_of_images_and_masks():
    manifest = manifest_of("a", "b", mask_path=["m/1.png;m/2.png", ""])
    assert manifest.path(1) == Path("data/1.png")
    assert manifest.mask_paths(0) == [Path("data/m/1.png"), Path("data/m/2.png")]
    assert manifest.mask_paths(1) == []
    absolute = Manifest.from_table(pd.DataFrame({"image_path": ["/x/y.png"]}), root=Path("data"), layout="csv")
    assert absolute.path(0) == Path("/x/y.png")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_path": []}, "holds no images"),
        ({"image_path": ["a.png", ""]}, "1 rows name no image, the first is row 2"),
        ({"image_path": ["a.png"], "split": ["holdout"]}, "unknown split names: 'holdout'"),
    ],
)
def test_a_table_that_is_no_manifest_is_refused(columns, message):
    with pytest.raises(UserError, match=message):
        Manifest.from_table(pd.DataFrame(columns), root=Path("data"), layout="csv")


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL.filter(bool), CELL, CELL, CELL), min_size=1, max_size=5))
def test_any_cells_read_back_equal(rows, tmp_path):
    table = pd.DataFrame(rows, columns=["image_path", "label", "site", "further, column"], dtype=object)
    manifest = Manifest.from_table(table, root=tmp_path, layout="csv")
    manifest.write(tmp_path / "manifest.csv")
    read = read_manifest(tmp_path / "manifest.csv")
    assert_frame_equal(read.table, manifest.table)
    assert read.root == manifest.root
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


def test_a_name_that_is_not_utf8_reads_back_equal(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    manifest = Manifest.from_table(pd.DataFrame({"image_path": [name]}, dtype=object), root=tmp_path, layout="csv")
    manifest.write(tmp_path / "manifest.csv")
    assert_frame_equal(read_manifest(tmp_path / "manifest.csv").table, manifest.table)
    assert printable(name) == "caf\\xe9.png"


@pytest.mark.parametrize("folder", ["run", "data", "."])
def test_a_manifest_written_elsewhere_names_the_same_files(folder, tmp_path):
    columns = {"image_path": ["x;1.png", "/abs/2.png"], "mask_path": ["m.png;n.png", ""]}
    manifest = Manifest.from_table(pd.DataFrame(columns), root=tmp_path / "data", layout="folder")
    manifest.write(tmp_path / folder / "manifest.csv")
    read = read_manifest(tmp_path / folder / "manifest.csv")
    for sample in range(2):
        assert read.path(sample) == manifest.path(sample)
        assert read.mask_paths(sample) == manifest.mask_paths(sample)
    assert Path(read.table.at[0, "image_path"]).is_absolute() == (folder == "run")


def test_reading_what_is_not_a_manifest(tmp_path):
    with pytest.raises(UserError, match="no such manifest"):
        read_manifest(tmp_path / "manifest.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="no column image_path"):
        read_manifest(tmp_path / "empty.csv")


def test_masks_may_name_their_class(tmp_path: Path) -> None:
    cells = ["disc=m/1.png;cup=m/2.png", "cup=3.png", "", "./a=1.png", "m/b=2.png;disc=/abs/x=1.png"]
    manifest = manifest_of(*"abcde", mask_path=cells)
    assert manifest.mask_classes == ("cup", "disc")
    assert manifest.masks(0) == [("disc", Path("data/m/1.png")), ("cup", Path("data/m/2.png"))]
    assert manifest.masks(2) == []
    assert manifest.masks(3) == [("", Path("data/a=1.png"))]
    assert manifest.masks(4) == [("", Path("data/m/b=2.png")), ("disc", Path("/abs/x=1.png"))]
    manifest.write(tmp_path / "m.csv")
    again = read_manifest(tmp_path / "m.csv")
    assert again.mask_classes == manifest.mask_classes
    for sample in range(5):
        there, here = again.masks(sample), manifest.masks(sample)
        assert [(name, path.resolve()) for name, path in there] == [(name, path.resolve()) for name, path in here]


def test_a_table_names_masks_by_class_and_a_file_with_an_equals_sign_stays_a_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "disc.png", "x=1.png"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("image_path,label,mask_path\na.png,0,disc= disc.png\nb.png,1,x=1.png\n")
    manifest = open_dataset(tmp_path / "t.csv")
    assert [name for name, _ in manifest.masks(0)] == ["disc"]
    assert manifest.masks(0)[0][1] == tmp_path / "disc.png"
    assert [(name, path.name) for name, path in manifest.masks(1)] == [("", "x=1.png")]
    (tmp_path / "t.csv").write_text("image_path,label,mask_path\na.png,0,disc=gone.png\nb.png,1,\n")
    with pytest.raises(UserError, match=r"missing: gone\.png"):
        open_dataset(tmp_path / "t.csv")
