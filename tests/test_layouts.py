"""Folders, tables and archives as people hand them over, and what is said about those that cannot be read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from msmae.data.layouts import open_dataset
from msmae.data.listing import list_folder
from msmae.data.manifest import Manifest
from msmae.errors import UserError


def touch(root: Path, *paths: str) -> Path:
    """Make files that have a name and nothing in them: no layout opens an image."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def rows(manifest: Manifest, *columns: str) -> list[tuple[str, ...]]:
    return list(manifest.table[list(columns)].itertuples(index=False, name=None))


def test_class_folders(tmp_path):
    manifest = open_dataset(touch(tmp_path, "healthy/b.png", "healthy/a.JPG", "ill/deep/er/c.tiff"))
    assert manifest.layout == "folder"
    assert rows(manifest, "image_path", "label", "split") == [
        ("healthy/a.JPG", "healthy", ""),
        ("healthy/b.png", "healthy", ""),
        ("ill/deep/er/c.tiff", "ill", ""),
    ]
    assert any("1 image deeper in a class folder" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Training", "Testing"), {"train", "test"}),
        (("train", "valid", "test"), {"train", "val", "test"}),
        (("TRAIN", "Validation"), {"train", "val"}),
        (("train", "val"), {"train", "val"}),
        (("train",), {"train"}),
    ],
)
def test_split_folders(names, splits, tmp_path):
    for name in names:
        touch(tmp_path, f"{name}/a/1.png", f"{name}/b/2.png")
    manifest = open_dataset(tmp_path)
    assert set(manifest.table["split"]) == splits
    assert manifest.classes == ("a", "b")
    assert len(manifest) == 2 * len(names)


def test_folders_that_wrap_the_data_set_are_passed_through(tmp_path):
    manifest = open_dataset(touch(tmp_path, "data/v2/train/a/1.png", "data/v2/test/b/2.png"))
    assert rows(manifest, "image_path", "label", "split") == [
        ("data/v2/test/b/2.png", "b", "test"),
        ("data/v2/train/a/1.png", "a", "train"),
    ]
    assert any("lies in data/v2" in note for note in manifest.notes)


def test_unlabelled_folder_beside_class_folders(tmp_path):
    manifest = open_dataset(touch(tmp_path, "a/1.png", "b/2.png", "unlabelled/3.png", "4.png"))
    assert sorted(rows(manifest, "image_path", "label")) == [
        *[("4.png", ""), ("a/1.png", "a"), ("b/2.png", "b"), ("unlabelled/3.png", "")],
    ]
    assert any("2 images without a label" in note for note in manifest.notes)


def test_masks_beside_images_are_no_images(tmp_path):
    manifest = open_dataset(touch(tmp_path, "a/1.png", "a/1_mask.png", "a/1_mask_1.png", "b/with_mask.png"))
    assert rows(manifest, "image_path", "mask_path") == [
        ("a/1.png", "a/1_mask.png;a/1_mask_1.png"),
        ("b/with_mask.png", ""),
    ]


def test_what_is_no_image_is_counted_and_what_systems_leave_behind_is_not(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png", "readme.txt", "a/notes.docx")
    touch(tmp_path, ".git/3.png", "a/._1.png", "__MACOSX/a/1.png", "b/Thumbs.db")
    manifest = open_dataset(tmp_path)
    assert len(manifest) == 2
    assert any("2 files left out, no image by name: a/notes.docx, readme.txt" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no image in this folder"),
        (["notes.txt"], "no image in this folder"),
        (["train/1.png", "test/2.png"], "no image has a label"),
        (["a/1.png", "b/2.png", "c/notes.txt"], r"1 folder without an image: c"),
        (["train/a/1.png", "holdout/b/2.png"], "beside split folders there is 'holdout'"),
        (["train/a/1.png", "train/b/1.png", "2.png"], "beside split folders there is a loose image"),
        (["a;b/1.png", "c/2.png"], "the folder 'a;b' has a ';' in its name"),
    ],
)
def test_folders_that_are_no_data_set(files, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_dataset(touch(tmp_path, *files))


def test_a_wrong_path_names_its_neighbour(tmp_path):
    touch(tmp_path, "brain-tumour/a/1.png")
    with pytest.raises(UserError, match=r"no such file or folder .*did you mean .*brain-tumour\?"):
        open_dataset(tmp_path / "brain-tumor")
    with pytest.raises(UserError, match="a data set is a folder, a CSV or TSV table, or a MedMNIST"):
        open_dataset(tmp_path / "brain-tumour/a/1.png")
    with pytest.raises(UserError, match="there is no layout 'busy': use one of auto, busi"):
        open_dataset(tmp_path, layout="busy")


def test_images_in_no_class_folder_are_unlabelled(tmp_path):
    manifest = open_dataset(touch(tmp_path, "1.png", "2.png"))
    assert manifest.layout == "unlabelled"
    assert rows(manifest, "image_path", "label") == [("1.png", ""), ("2.png", "")]
    assert manifest.notes[0] == "read as unlabelled: they lie in no class folder"


def test_layout_unlabelled_ignores_class_folders(tmp_path):
    manifest = open_dataset(touch(tmp_path, "a/1.png"), layout="unlabelled")
    assert rows(manifest, "label") == [("",)]


def write_dicom(path: Path, patient: str) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        *(ExplicitVRLittleEndian, CTImageStorage),
        "1.2.3",
    )
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID, dataset.StudyInstanceUID, dataset.PatientSex = patient, f"1.2.{len(patient)}", "F"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_a_dicom_series_is_unlabelled_and_its_patient_a_pseudonym(tmp_path):
    for name in ("IM000001", "1.2.840.7", "c.dcm"):
        write_dicom(tmp_path / "series" / name, "Doe^Jane")
    touch(tmp_path, "series/DICOMDIR")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "unlabelled"
    assert len(manifest) == 3
    (patient,) = set(manifest.table["patient_id"])
    assert len(patient) == 12
    assert "Doe" not in manifest.table.to_csv()
    assert set(manifest.table["sex"]) == {"F"}
    assert any("1 patient by the PatientID" in note for note in manifest.notes)


def test_folders_of_single_dicom_patients_are_no_classes(tmp_path):
    for patient in ("anna", "bert"):
        write_dicom(tmp_path / "export" / patient / "series1" / "1.dcm", patient)
        write_dicom(tmp_path / "export" / patient / "series2" / "1.dcm", patient)
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "unlabelled"
    assert manifest.table["patient_id"].nunique() == 2
    for folder, patient in (("ill", "carl"), ("well", "dora"), ("well", "emil")):
        write_dicom(tmp_path / "study" / folder / patient / "1.dcm", patient)
    labelled = open_dataset(tmp_path / "study")
    assert labelled.classes == ("ill", "well")
    assert labelled.table["patient_id"].nunique() == 3


def test_a_patient_in_the_file_name_is_suggested(tmp_path):
    touch(tmp_path, "a/Patient007_L.png", "a/Patient007_R.png", "b/person12_x.png", "b/other.png")
    manifest = open_dataset(tmp_path)
    assert list(manifest.table["patient_id"]) == ["patient007", "patient007", "", "person12"]
    assert any("patients guessed from file names: 2 patients in 3 images" in note for note in manifest.notes)
    assert not open_dataset(tmp_path, patients="none").table["patient_id"].any()
    told = open_dataset(tmp_path, patients=r"/([A-Za-z]+)")
    assert list(told.table["patient_id"]) == ["Patient", "Patient", "other", "person"]
    with pytest.raises(UserError, match="is no regular expression"):
        open_dataset(tmp_path, patients="(")
    with pytest.raises(UserError, match="matches no image"):
        open_dataset(tmp_path, patients="nobody")


@pytest.mark.parametrize(
    "names", [("compat12.png", "compat13.png"), ("patient.png", "patient_b.png"), ("1.png", "2.png")]
)
def test_no_patient_is_suggested_where_none_is_named(names, tmp_path):
    manifest = open_dataset(touch(tmp_path, *(f"{folder}/{name}" for folder in "ab" for name in names)))
    assert not manifest.table["patient_id"].any()


def test_one_patient_for_all_images_tells_nobody_apart(tmp_path):
    assert not open_dataset(touch(tmp_path, "a/subject1_1.png", "b/subject1_2.png")).table["patient_id"].any()


def test_links_in_a_circle_are_reported_and_other_links_followed(tmp_path):
    touch(tmp_path, "data/a/1.png", "data/b/2.png", "elsewhere/3.png")
    os.symlink(tmp_path / "data", tmp_path / "data/a/again")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/b/more")
    manifest = open_dataset(tmp_path / "data")
    assert [path for (path,) in rows(manifest, "image_path")] == ["a/1.png", "b/2.png", "b/more/3.png"]
    assert any("1 link not followed" in note and "a/again" in note for note in manifest.notes)


ODD_NAMES = ["two words.png", "it's.png", 'say "x".png', "new\nline.png", "a,b.png", "c;d.png", "ü.png", " space.png"]


def test_odd_file_names_survive_folder_and_table(tmp_path):
    names = [*(f"a/{name}" for name in ODD_NAMES), "b/2.png"]
    manifest = open_dataset(touch(tmp_path, *names))
    assert sorted(manifest.table["image_path"]) == sorted(names)
    manifest.write(tmp_path / "manifest.csv")
    assert_frame_equal(open_dataset(tmp_path / "manifest.csv").table, manifest.table)


def test_names_that_are_not_utf8(tmp_path):
    for name in (b"caf\xe9", b"th\xe9"):
        os.makedirs(os.path.join(os.fsencode(tmp_path), name))
        with open(os.path.join(os.fsencode(tmp_path), name, name + b".png"), "wb"):
            pass
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("caf\\xe9", "th\\xe9")
    assert all(manifest.path(sample).is_file() for sample in range(2))
    manifest.write(tmp_path / "manifest.csv")
    assert_frame_equal(open_dataset(tmp_path / "manifest.csv").table, manifest.table)


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
    assert manifest.notes[0] == "read as csv: manifest.csv, a row an image"
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
    text = "image_path,axis,index,label\n1.png,2,10,a\n1.png,2,11,b\n"
    assert len(open_dataset(write_table(tmp_path, text))) == 2


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
        ("image_path,label\n", "holds no images"),
        ("image_path,dx\n1.png,a\n", "no column 'label' for the label; the columns are image_path, dx"),
        ("file,label\n1.png,a\n", "no column 'image_path' for the image_path; the columns are file, label"),
        ("image_path,label\n1.png,\n2.png,nan\n", "no image has a label"),
        ("image_path,label\n8.png,a\n1.png,b\n9.png,c\n", "2 files missing: 8.png, 9.png"),
        ("image_path,label\n1.png,a\n1.png,b\n2.png,a\n", "1 image with several rows that differ: 1.png"),
        ("image_path,label,split\n1.png,a,train\n2.png,b,holdout\n", "unknown split names: 'holdout'"),
        ("image_path,label\n1.png,a,extra\n2.png,b\n", "1 row without the header's 2 cells, the first is row 2"),
        ("image_path,label,label\n1.png,a,b\n", "columns of the same name: label"),
        ('image_path,label\n1.png,"a\n2.png,b\n', "no readable table"),
        ("image_path,label\n,a\n2.png,b\n", "1 rows name no image"),
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


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=6).map(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert_frame_equal(read[list(table.columns)], table.astype(object), check_dtype=False)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"image_path,label\n{text}".encode()))
def test_no_table_makes_it_crash(content, tmp_path):
    """Whatever the bytes: a manifest or a sentence, never another error."""
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(UserError):
        open_dataset(tmp_path / "m.csv")


def test_a_listing_is_sorted_and_tells_empty_folders(tmp_path):
    touch(tmp_path, "b/2.png", "a/1.png", "a/empty/x.txt", "c.PNG")
    (tmp_path / "hollow/inner").mkdir(parents=True)
    listing = list_folder(tmp_path)
    assert listing.images == ("a/1.png", "b/2.png", "c.PNG")
    assert listing.others == ("a/empty/x.txt",)
    assert listing.empty == ("a/empty", "hollow", "hollow/inner")


def test_brain_tumour_folders(real_data):
    manifest = open_dataset(real_data / "brain-tumor-mri")
    assert manifest.layout == "brain-tumor-classification"
    assert len(manifest) == 3264
    assert (len(manifest.ids("train")), len(manifest.ids("test"))) == (2870, 394)
    assert open_dataset(real_data / "brain-tumor-mri", layout="folder").table.equals(manifest.table)
