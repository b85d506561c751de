"""Hugging Face's image folders: one metadata.csv or several, whose columns are alike, written otherwise, or missing."""

from __future__ import annotations

import pytest

from listed_files import noted, rows, touch, write
from msmae.data.tables.layouts import open_dataset
from msmae.data.understood import understand
from msmae.errors import UserError


def test_imagefolder_with_metadata_for_each_split(tmp_path):
    touch(tmp_path, "train/1.png", "train/in/2.png", "validation/3.png")
    write(tmp_path, "train/metadata.csv", "file_name,label,age", "1.png,a,30", "in/2.png,b,40")
    write(tmp_path, "validation/metadata.csv", "file_name,label", "3.png,b")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "imagefolder"
    assert rows(manifest, "image_path", "label", "split", "age") == [
        ("train/1.png", "a", "train", "30"),
        ("train/in/2.png", "b", "train", "40"),
        ("validation/3.png", "b", "val", ""),
    ]


def test_imagefolder_with_another_label_column(tmp_path):
    touch(tmp_path, "ill/1.png", "well/2.png", "m/1.png")
    write(tmp_path, "metadata.csv", "file_name,finding,mask_path", "ill/1.png,x,m/1.png", "well/2.png,y,")
    told = open_dataset(tmp_path, label_column="finding")
    assert rows(told, "label", "mask_path") == [("x", "m/1.png"), ("y", "")]
    guessed = open_dataset(tmp_path)
    assert rows(guessed, "label") == [("ill",), ("well",)]
    assert noted(guessed, "has no column 'label', only file_name, finding, mask_path: labels are the folders")
    with pytest.raises(UserError, match="no column 'dx'"):
        open_dataset(tmp_path, label_column="dx")


def test_imagefolder_columns_in_capitals(tmp_path):
    touch(tmp_path, "train/ill/1.png", "train/well/2.png", "train/m/1.png")
    header = "file_name,Label,Mask_Path,Split"
    write(tmp_path, "train/metadata.csv", header, "ill/1.png,x,m/1.png,test", "well/2.png,y,,train")
    manifest = open_dataset(tmp_path)
    assert rows(manifest, "label", "mask_path", "split") == [("x", "train/m/1.png", "test"), ("y", "", "train")]
    assert noted(manifest, "the column 'Label' is taken for the label")


def test_imagefolder_tables_in_different_capitals_are_joined(tmp_path):
    touch(tmp_path, "train/1.png", "train/2.png", "test/3.png")
    write(tmp_path, "train/metadata.csv", "File_Name,Label,Patient_ID,Split", "1.png,a,p1,train", "2.png,b,p2,val")
    write(tmp_path, "test/metadata.csv", "file_name,label,patient_id", "3.png,b,p1")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "imagefolder"
    assert rows(manifest, "image_path", "label", "patient_id", "split") == [
        ("test/3.png", "b", "p1", "test"), ("train/1.png", "a", "p1", "train"), ("train/2.png", "b", "p2", "val"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("train", "test", "column"), [("diagnosis", "Diagnosis", "diagnosis"), ("label", "Label,LABEL", "label")]
)
def test_imagefolder_tables_that_call_the_label_otherwise_are_refused(train, test, column, tmp_path):
    touch(tmp_path, "train/1.png", "test/2.png")
    write(tmp_path, "train/metadata.csv", f"file_name,{train}", "1.png,a")
    write(tmp_path, "test/metadata.csv", f"file_name,{test}", "2.png,b" + ",b" * test.count(","))
    alike = " and ".join(map(repr, test.split(",")))
    said = rf"other tables have a column '{column}' for the label, this one {alike} \(.*test/metadata\.csv\)"
    with pytest.raises(UserError, match=said):
        open_dataset(tmp_path, label_column=column)


@pytest.mark.parametrize(("label", "told"), [("diagnosis", {"label_column": "diagnosis"}), ("label", {})])
def test_imagefolder_tables_without_a_column_of_the_others_are_named(label, told, tmp_path):
    touch(tmp_path, "train/1.png", "test/2.png")
    write(tmp_path, "train/metadata.csv", f"file_name,{label},patient_id", "1.png,a,p1")
    write(tmp_path, "test/metadata.csv", "file_name,Subject", "2.png,p1")
    manifest = open_dataset(tmp_path, **told)
    assert rows(manifest, "label", "split") == [("", "test"), ("a", "train")]
    for name in (label, "patient_id"):
        said = f"test/metadata.csv has no column '{name}', as other tables have, and is read without"
        assert noted(manifest, f"{said}; it has file_name, Subject")


@pytest.mark.parametrize("name", ["metadata.csv", "manifest.csv"])
def test_images_that_the_table_of_a_folder_does_not_name_are_said_to_be_left_out(name, tmp_path):
    touch(tmp_path, *(f"{n}.png" for n in range(6)), "0_mask.png")
    column = "file_name" if name == "metadata.csv" else "image_path"
    (tmp_path / name).write_text(f"{column},label,mask_path\n./0.png,a,0_mask.png\n1.png,b,\n")
    manifest = open_dataset(tmp_path)
    assert len(manifest) == 2
    (left,) = (fact for fact in understand(manifest).about("left out") if "in no row" in fact.said)
    assert (left.number, left.rule) == (4, "in no row of the table: 2.png, 3.png, 4.png and 1 more")
    (tmp_path / name).write_text("\n".join([f"{column},label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(6))]))
    assert not any("in no row" in fact.said and fact.number != 1 for fact in understand(open_dataset(tmp_path)).facts)
