"""Which column divides the images: by name or by its cells; what is not known is asked about."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from listed_files import noted, touch, write
from msmae.data.splits import assign_splits
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError


def ten(root: Path, *columns: str, name: str = "labels.csv") -> Path:
    """Ten images, and a table that names them, with the columns that are given after its own."""
    touch(root, *(f"img/{n}.png" for n in range(10)))
    header, cells = columns[0], columns[1:]
    write(
        root, name, f"file,diagnosis,{header}", *(f"{n}.png,{'ab'[n % 2]},{cells[n % len(cells)]}" for n in range(10))
    )
    return root


def test_a_split_column_with_odd_values_is_read_or_refused(tmp_path: Path) -> None:
    good = open_dataset(ten(tmp_path / "good", "split", "Train", "TRAIN ", "Test-Set"))
    assert set(good.table["split"]) == {"train", "test"}
    for name, columns, message in (
        ("odd", ("split", "train", "holdout"), "the column split holds 'holdout'"),
        ("flag", ("is_test", "True", "False"), "is_test says False or True"),
    ):
        with pytest.raises(UserError, match=f"{message}.*--split-column"):
            open_dataset(ten(tmp_path / name, *columns))
        assert not open_dataset(tmp_path / name, split_column="").table["split"].any()
    assert noted(open_dataset(ten(tmp_path / "fold", "fold", "0", "1", "2")), "the column fold divides nothing")


def test_a_column_of_split_words_is_the_split_however_it_is_called(tmp_path: Path) -> None:
    root = ten(tmp_path / "a", "phase", "train", "train", "test")
    for manifest in (
        open_dataset(root),
        open_dataset(root / "labels.csv", image_column="file", label_column="diagnosis"),
    ):
        assert Counter(manifest.table["split"]) == {"train": 7, "test": 3}
        assert "the column phase" in manifest.rules["split"]
    assert not open_dataset(root, split_column="").table["split"].any()
    assert not open_dataset(ten(tmp_path / "b", "phase", "train", "other", "test")).table["split"].any()


@pytest.mark.parametrize(
    "column",
    [
        ("split", "development", "holdout"),
        ("split", "0", "1", "2"),
        ("partition", "A", "B"),
        ("partition", "1", "2", "NA"),
        ("set", "development", "hold-out"),
        ("Usage", "Training", "PublicTest", "PrivateTest"),
        ("dataset", "derivation", "external validation"),
        ("holdout", "0", "1"),
        ("is_eval", "yes", "no"),
    ],
)
def test_a_split_in_other_words_is_asked_about_never_drawn_anew(tmp_path: Path, column: tuple[str, ...]) -> None:
    root = ten(tmp_path, *column)
    tables = {"image_column": "file", "label_column": "diagnosis"}
    for source, told in ((root, {}), (root / "labels.csv", tables)):
        with pytest.raises(UserError, match=rf"the column {column[0]} .*--split-column ''"):
            open_dataset(source, **told)
        assert not open_dataset(source, split_column="", **told).table["split"].any()


@pytest.mark.parametrize(
    "column",
    [
        ("set", "A", "B"),
        ("test_result", "0", "1"),
        ("cohort", "UK", "US"),
        ("group", "internal", "external"),
        ("assay", "test 1", "test 2"),
        ("usage", "contrast", "native"),
        ("partition", "A", "NA"),
        ("visit", "evaluation 1", "evaluation 2"),
    ],
)
def test_a_column_that_only_resembles_a_split_divides_nothing(tmp_path: Path, column: tuple[str, ...]) -> None:
    root = ten(tmp_path, *column)
    assert not open_dataset(root).table["split"].any()
    of_table = open_dataset(root / "labels.csv", image_column="file", label_column="diagnosis")
    assert not of_table.table["split"].any()


def test_a_column_of_folds_is_told_in_a_table_given_as_data_too(tmp_path: Path) -> None:
    root = ten(tmp_path, "k-fold", "0", "1", "2")
    for manifest in (
        open_dataset(root),
        open_dataset(root / "labels.csv", image_column="file", label_column="diagnosis"),
    ):
        assert noted(manifest, "the column k-fold divides nothing here")


def test_an_image_in_two_splits_is_refused_in_a_table_beside_too(tmp_path: Path) -> None:
    root = ten(tmp_path, "split", "train", "test")
    with (root / "labels.csv").open("a") as table:
        table.write("0.png,a,test\n")
    with pytest.raises(UserError, match=r"0\.png is train in another row, and the column split says 'test'"):
        open_dataset(root)


def test_several_columns_that_divide_are_asked_about(tmp_path: Path) -> None:
    """``fold0`` to ``fold4``, each train and val: the first had been taken, without a word on the others."""
    root = touch(tmp_path / "folds", *(f"img/{n}.png" for n in range(10)))
    folds = [",".join("val" if n % 5 == k else "train" for k in range(5)) for n in range(10)]
    lines = [f"{n}.png,{'ab'[n % 2]},{cells}" for n, cells in enumerate(folds)]
    write(root, "labels.csv", "file,diagnosis,fold0,fold1,fold2,fold3,fold4", *lines)
    for path, options in ((root, {}), (root / "labels.csv", {"image_column": "file", "label_column": "diagnosis"})):
        with pytest.raises(UserError, match=r"fold0, fold1, .* each divide the images.*--split-column fold0"):
            open_dataset(path, **options)
    assert Counter(open_dataset(root, split_column="fold3").table["split"]) == {"train": 8, "val": 2}


def test_cells_without_a_split_are_said(tmp_path: Path) -> None:
    manifest = open_dataset(ten(tmp_path, "split", "train", "val", "test", "", "train"))
    assert "2 images beside the given splits without one: they count as training" in assign_splits(manifest).notes
    whole = open_dataset(ten(tmp_path / "whole", "split", "train", "val", "test"))
    assert not any("without one" in note for note in assign_splits(whole).notes)


@pytest.mark.parametrize(
    ("column", "no", "yes"),
    [
        ("include", "no", "yes"),
        ("usable", "0", "1"),
        ("QC", "fail", "pass"),
        ("image_quality", "reject", "good"),
        ("ungradable", "1", "0"),
        ("status", "withdrawn", "complete"),
        ("exclusion_reason", "motion", ""),
        ("use_for_analysis", "False", "True"),
    ],
)
def test_images_that_a_column_says_are_not_to_be_used_are_refused(
    column: str, no: str, yes: str, tmp_path: Path
) -> None:
    root = ten(tmp_path / "told", column, no, yes, yes)
    for path, options in ((root, {}), (root / "labels.csv", {"image_column": "file", "label_column": "diagnosis"})):
        with pytest.raises(UserError, match=f"the column {column} says which images are not to be used"):
            open_dataset(path, **options)
    assert len(open_dataset(ten(tmp_path / "all", column, yes, yes))) == 10
    assert len(open_dataset(ten(tmp_path / "other", "alcohol_use", "no", "yes"))) == 10
    assert len(open_dataset(ten(tmp_path / "scores", "quality", "0", "1", "2"))) == 10


def test_quality_may_be_what_is_learned(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{n}.png" for n in range(9)))
    write(root, "labels.csv", "image,quality", *(f"{n}.png,{('good', 'usable', 'reject')[n % 3]}" for n in range(9)))
    assert open_dataset(root, label_column="quality").classes == ("good", "reject", "usable")
