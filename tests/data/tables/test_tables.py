"""Tables as people write them, and what is said about those that cannot be read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from listed_files import rows, touch
from msmae.data.tables.layouts import open_dataset
from msmae.data.tables.tables import NOT_SAID, ColumnNames, read_csv_manifest
from msmae.errors import UserError, visible

TABLE = "image_path,label,site\nx/1.png,a,Ulm\nx/2.png,b,Bonn\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", TABLE.encode()),
        ("m.csv", TABLE.encode("utf-8-sig")),
        ("m.csv", TABLE.encode("utf-16")),
        ("m.csv", TABLE.replace(",", ";").encode()),
        ("m.csv", TABLE.replace(",", "; ").encode()),
        ("m.tsv", TABLE.replace(",", "\t").encode()),
        ("m.txt", TABLE.replace(",", "|").encode()),
        ("m.csv", TABLE.replace("\n", "\r\n").encode()),
        ("m.csv", TABLE.replace("x/", "x\\").encode()),
        ("m.csv", TABLE.replace("\n", "\n\n").encode()),
        ("m.csv", TABLE.replace(",a,", ', "a" ,').replace('"', " ").encode()),
        ("m.CSV", TABLE.replace("x/1.png", '"x/1.png"').encode()),
    ],
)
def test_tables_as_people_write_them(name, content, tmp_path):
    touch(tmp_path, "x/1.png", "x/2.png")
    (tmp_path / name).write_bytes(content)
    manifest = open_dataset(tmp_path / name)
    assert rows(manifest, "image_path", "label", "site") == [("x/1.png", "a", "Ulm"), ("x/2.png", "b", "Bonn")]
    assert manifest.layout == "csv"


def test_a_folder_with_a_manifest_is_read_by_it(tmp_path):
    touch(tmp_path, "x/1.png", "x/2.png", "x/unlisted.png")
    (tmp_path / "manifest.csv").write_text(TABLE)
    manifest = open_dataset(tmp_path)
    assert manifest.notes[0] == "read as csv: manifest.csv, one row per image"
    assert rows(manifest, "label") == [("a",), ("b",)]


def write_table(root: Path, text: str, *, images: int = 3) -> Path:
    touch(root, *(f"{n}.png" for n in range(1, images + 1)))
    (root / "m.csv").write_text(text)
    return root / "m.csv"


def test_columns_of_other_names(tmp_path):
    text = "file,dx,who,fold,label\n1.png,mel,p1,Training,old\n2.png,nv,p2,valid,old\n"
    manifest = open_dataset(
        write_table(tmp_path, text),
        **dict(image_column="file", label_column="dx", patient_column="who", split_column="fold"),  # noqa: C408
    )
    assert rows(manifest, "image_path", "label", "patient_id", "split", "label_in_file") == [
        ("1.png", "mel", "p1", "train", "old"),
        ("2.png", "nv", "p2", "val", "old"),
    ]


def test_the_delimiter_is_the_one_that_gives_the_image_column(tmp_path):
    text = 'image_path,label,"a;b;c;d"\n1.png,x,1\n2.png,y,2\n'
    assert rows(open_dataset(write_table(tmp_path, text)), "label", "a;b;c;d") == [("x", "1"), ("y", "2")]


def test_further_columns_are_kept_as_text(tmp_path):
    manifest = open_dataset(write_table(tmp_path, "image_path,label,age,sex\n1.png,a,080,\n2.png,b,7.5,F\n"))
    assert rows(manifest, "age", "sex") == [("080", ""), ("7.5", "F")]


def test_labels_are_cleaned_and_unknown_ones_counted(tmp_path):
    text = "image_path,label\n1.png, a \n2.png,NaN\n3.png,b;a; c\n4.png,;\n5.png,\n"
    manifest = open_dataset(write_table(tmp_path, text, images=5))
    assert list(manifest.table["label"]) == ["a", "", "a;b;c", ";", ""]
    assert any("2 images without a label" in note for note in manifest.notes)


def test_whole_numbers_written_with_a_point_are_whole_numbers(tmp_path):
    manifest = open_dataset(write_table(tmp_path, "image_path,label\n1.png,1.0\n2.png,10.0\n3.png,nan\n"))
    assert manifest.classes == ("1", "10")
    (tmp_path / "comma").mkdir()
    comma = write_table(tmp_path / "comma", "image_path;label\n1.png;1,0\n2.png;10,0\n3.png;2\n")
    assert open_dataset(comma).classes == ("1", "2", "10")
    (tmp_path / "other").mkdir()
    assert open_dataset(write_table(tmp_path / "other", "image_path,label\n1.png,1.0\n2.png,1.5\n")).classes == (
        "1.0",
        "1.5",
    )


def test_classes_that_differ_only_in_case_are_pointed_out(tmp_path):
    manifest = open_dataset(write_table(tmp_path, "image_path,label\n1.png,Benign\n2.png,benign\n"))
    assert any("Benign / benign" in note for note in manifest.notes)


def test_duplicate_rows_are_left_out_and_counted(tmp_path):
    manifest = open_dataset(write_table(tmp_path, "image_path,label\n1.png,a\n2.png,b\n1.png,a\n1.png, a\n"))
    assert rows(manifest, "image_path") == [("1.png",), ("2.png",)]
    assert any("2 rows left out, exact duplicates" in note for note in manifest.notes)


def test_slices_of_a_volume_are_no_duplicates(tmp_path):
    touch(tmp_path, "1.nii")
    text = "image_path,axis,index,label\n1.nii,2,10,a\n1.nii,2.0,11,b\n"
    assert rows(open_dataset(write_table(tmp_path, text)), "axis", "index") == [("2", "10"), ("2", "11")]


def test_a_table_without_labels(tmp_path):
    path = write_table(tmp_path, "image_path,age\n1.png,3\n2.png,4\n")
    assert rows(open_dataset(path, label_column=""), "label", "age") == [("", "3"), ("", "4")]


def test_masks_and_container_rows_must_exist_too(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    path = write_table(tmp_path, "image_path,label,mask_path\nx.npz#train/1,a,1.png;2.png\n3.png,b,\n")
    manifest = open_dataset(path)
    assert manifest.mask_paths(0) == [tmp_path / "1.png", tmp_path / "2.png"]
    path.write_text("image_path,label,mask_path\ny.npz#train/1,a,1.png;9.png\n3.png,b,\n")
    with pytest.raises(UserError, match=r"1 file missing: y.npz#train/1"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this table is empty"),
        ("image_path,label\n", "no row below its header"),
        ("image_path,dx\n1.png,a\n", "no column 'label' for the label; the columns are image_path, dx"),
        ("file,label\n1.png,a\n", "no column 'image_path' for the image_path; the columns are file, label"),
        ("image_path,label\n1.png,\n2.png,nan\n", "no image has a label"),
        ("image_path,label\n8.png,a\n1.png,b\n9.png,c\n", "2 files missing: 8.png, 9.png"),
        ("image_path,label\n1.png,a\n1.png,b\n2.png,a\n", "1 image with several rows that differ: 1.png"),
        (
            "image_path,label,split\n1.png,a,train\n2.png,b,holdout\n",
            "split holds 'holdout', which is no split",
        ),
        ("image_path,label\n1.png,a,extra\n2.png,b\n", "1 row without the header's 2 cells, the first ends in line 2"),
        (
            "\n\nimage_path,label\n1.png,a\n\n2.png,b,extra\n",
            "1 row without the header's 2 cells, the first ends in line 6",
        ),
        ("image_path,label,label\n1.png,a,b\n", "columns of the same name: label"),
        ('image_path,label\n1.png,"a\n2.png,b\n', "no readable table"),
        ("image_path,label\n,a\n2.png,b\n", "1 row without an image path, the first ends in line 2"),
        ("image_path,label\n1.png,a\n1.png,a\n\n,b\n", "1 row without an image path, the first ends in line 5"),
        (
            "image_path,label,Patient ID,PatientID\n1.png,a,1,1\n",
            "'Patient ID' and 'PatientID' may both be the patient_id.*name one: --patient-column NAME",
        ),
    ],
)
def test_tables_that_cannot_be_used(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_dataset(write_table(tmp_path, text))


def test_every_missing_file_is_named(tmp_path):
    text = "image_path,label\n" + "".join(f"gone{n}.png,{'ab'[n % 2]}\n" for n in range(50))
    with pytest.raises(UserError) as raised:
        open_dataset(write_table(tmp_path, text))
    said = str(raised.value)
    assert "50 files missing" in said
    assert all(f"gone{n}.png" in said for n in range(20))
    listing = Path(re.search(r"and 30 more, all of them named in (\S+)", said)[1])
    assert listing.read_text().split() == [f"gone{n}.png" for n in range(50)]
    listing.unlink()


def test_a_table_in_windows_1252(tmp_path):
    """Labels are read as Windows-1252; a file name may be in it too, or be those very bytes."""
    touch(tmp_path, "é.png")
    os.close(os.open(os.path.join(os.fsencode(tmp_path), b"\xfc.png"), os.O_CREAT))
    (tmp_path / "m.csv").write_bytes("image_path,label\né.png,gutartig\nü.png,bösartig\n".encode("cp1252"))
    manifest = open_dataset(tmp_path / "m.csv")
    assert manifest.classes == ("bösartig", "gutartig")
    assert all(manifest.path(sample).is_file() for sample in range(2))
    assert "not UTF-8" in manifest.notes[1]


CELL = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=6)
    .map(str.strip)
    .filter(lambda cell: cell.lower() not in NOT_SAID or not cell)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(st.tuples(CELL, CELL), min_size=3, max_size=3),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_table_reads_as_it_was_written(cells, delimiter, encoding, tmp_path):
    touch(tmp_path, "1.png", "2.png", "3.png")
    table = pd.DataFrame(cells, columns=["site", "further"]).assign(
        image_path=["1.png", "2.png", "3.png"], label=["a", "b", "c"]
    )
    table.to_csv(tmp_path / "m.csv", sep=delimiter, encoding=encoding, index=False)
    read = open_dataset(tmp_path / "m.csv").table
    table["site"] = [visible(normalize("NFC", cell)) for cell in table["site"]]  # control characters are shown
    assert_frame_equal(read[list(table.columns)], table.astype(object), check_dtype=False)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"image_path,label\n{text}".encode()))
def test_no_table_makes_it_crash(content, tmp_path):
    """Whatever the bytes: a manifest or a sentence, never another error."""
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(UserError):
        open_dataset(tmp_path / "m.csv")


@pytest.mark.parametrize("patient", ["Patient_ID", "PatientID", "patient-id", "PATIENT ID"])
def test_columns_are_found_whatever_their_capitals_and_separators(patient: str, tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).touch()
    text = f"Image_Path;Label;{patient};Split\n1.png;a;7;Training\n2.png;b;8;Testing\n"
    (tmp_path / "m.csv").write_text(text)
    manifest = read_csv_manifest(tmp_path / "m.csv")
    columns = ["image_path", "label", "patient_id", "split"]
    assert manifest.table[columns].to_numpy().tolist() == [["1.png", "a", "7", "train"], ["2.png", "b", "8", "test"]]
    assert f"the column '{patient}' is taken for the patient_id" in manifest.notes
    assert manifest.where == str(tmp_path / "m.csv")


def test_a_name_that_was_asked_for_is_taken_to_the_letter(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "m.csv").write_text("image_path,label,Case\n1.png,a,7\n")
    with pytest.raises(
        UserError, match=r"no column 'case' for the patient_id; .*: name the right one, --patient-column"
    ):
        read_csv_manifest(tmp_path / "m.csv", columns=ColumnNames(patient_id="case"))


def test_the_columns_that_may_be_meant_are_offered(tmp_path: Path) -> None:
    rows = [f"img {i}.png;{'good' if i % 2 else 'bad'};p{i};3,5" for i in range(12)]
    (tmp_path / "semi.csv").write_text("\n".join(["Datei;Diagnose der Klinik;patient;dose", *rows]))
    with pytest.raises(UserError, match=r"no column 'image_path'.*--image-column Datei$"):
        read_csv_manifest(tmp_path / "semi.csv")
    with pytest.raises(UserError, match=r"no column 'label'.*--label-column 'Diagnose der Klinik' \(bad, good\);"):
        read_csv_manifest(tmp_path / "semi.csv", columns=ColumnNames(image_path="Datei"))
    (tmp_path / "semi.csv").write_text("\n".join(["image_path;patient", *(f"{i}.png;p{i}" for i in range(12))]))
    with pytest.raises(UserError, match=r"--label-column NAME; .*--label-column '' for unlabelled data"):
        read_csv_manifest(tmp_path / "semi.csv")
    rows = [f"{i}.png;m{i}.png;{'train' if i % 2 else 'Test'}" for i in range(12)]
    (tmp_path / "semi.csv").write_text("\n".join(["image_path;mask_path;split", *rows]))
    with pytest.raises(UserError, match=r"the classes: --label-column NAME; .*'' for .*a segmenter needs no labels"):
        read_csv_manifest(tmp_path / "semi.csv")


def test_of_two_columns_alike_it_is_said_which_is_taken(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "m.csv").write_text("image_path,Label,label\n1.png,x,a\n")
    manifest = read_csv_manifest(tmp_path / "m.csv")
    assert manifest.table["label"].tolist() == ["a"]
    assert "the column 'label' is taken for the label, not 'Label'" in manifest.notes


def test_one_image_written_in_two_ways_is_one(tmp_path: Path) -> None:
    """Twice in the figures, and with two labels, it had been."""
    source = touch(tmp_path, "a.png", "b.png") / "data.csv"
    lines = ["image_path,label", "a.png,x", "./a.png,x", f"{tmp_path}/a.png,x", "b.png,y"]
    source.write_text("\n".join(lines), encoding="utf-8")
    manifest = read_csv_manifest(source)
    assert manifest.table["image_path"].tolist() == ["a.png", "b.png"]
    source.write_text("\n".join([*lines, f"{tmp_path}//b.png,x"]), encoding="utf-8")
    with pytest.raises(UserError, match="several rows that differ"):
        read_csv_manifest(source)


def test_masks_may_be_written_otherwise_too_and_a_link_is_followed_before_its_parent(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "m.png", "n.png", "far/a.png", "far/b/c.png")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "b", target_is_directory=True)
    lines = ["a.png,x,m.png;n.png", f"./a.png,x,{tmp_path}/m.png;./n.png", "link/../a.png,x,"]
    (tmp_path / "m.csv").write_text("\n".join(["image_path,label,mask_path", *lines]))
    manifest = read_csv_manifest(tmp_path / "m.csv")
    assert [Path(manifest.path(row)).resolve() for row in range(len(manifest))] == [
        tmp_path / "a.png",
        tmp_path / "far" / "a.png",
    ]


def test_readers_of_one_image_are_joined_however_they_write_its_path(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    rows = ["a.png,x,r1", "./a.png,x,r2", f"{tmp_path}/a.png,y,r3", "b.png,y,r1", "b.png,y,r2", "b.png,y,r3"]
    (tmp_path / "m.csv").write_text("\n".join(["image_path,label,reader", *rows]))
    manifest = read_csv_manifest(tmp_path / "m.csv")
    assert manifest.table[["image_path", "label"]].to_numpy().tolist() == [["a.png", "x"], ["b.png", "y"]]


def test_decimal_commas_are_read_where_points_are(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.nii" for i in range(12)))
    lines = [f"{i}.nii;{i % 3},0;50,{i};2,0;{i % 2},0" for i in range(12)]
    (tmp_path / "m.csv").write_text("\n".join(["image_path;label;size;axis;index", *lines]))
    table = read_csv_manifest(tmp_path / "m.csv").table
    assert (set(table["label"]), set(table["axis"]), set(table["index"])) == ({"0", "1", "2"}, {"2"}, {"0", "1"})
    with pytest.raises(UserError, match="measurements, not classes"):
        read_csv_manifest(tmp_path / "m.csv", columns=ColumnNames(label="size"))
