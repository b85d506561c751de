"""Folders as people hand them over, and what is said about those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal

from listed_files import rows, touch
from msmae.data.tables.folders import split_off_masks
from msmae.data.tables.layouts import open_dataset
from msmae.data.tables.listing import list_folder
from msmae.errors import UserError


def test_class_folders(tmp_path):
    manifest = open_dataset(touch(tmp_path, "healthy/b.png", "healthy/a.JPG", "ill/deep/er/c.tiff"))
    assert manifest.layout == "folder"
    assert rows(manifest, "image_path", "label", "split") == [
        ("healthy/a.JPG", "healthy", ""),
        ("healthy/b.png", "healthy", ""),
        ("ill/deep/er/c.tiff", "ill", ""),
    ]
    (note,) = manifest.left_out
    assert (note.number, str(note)) == (2, "2 folders left out, taken for no class and no patient, their images kept: "
                                           "deep, er")  # fmt: skip


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
    touch(tmp_path, "a/1.png", "a/1_mask.png", "a/1_mask_1.png", "b/with_mask.png", "b/2.png", "b/2_segmentation.png")
    manifest = open_dataset(tmp_path)
    assert rows(manifest, "image_path", "mask_path") == [
        ("a/1.png", "a/1_mask.png;a/1_mask_1.png"),
        ("b/2.png", "b/2_segmentation.png"),
        ("b/with_mask.png", ""),
    ]
    assert "2 images with masks (a/1_mask.png)" in manifest.notes
    assert manifest.rules["mask_path"] == "names beside the images"


@pytest.mark.parametrize(
    ("files", "images", "masks"),
    [
        (["s.nii.gz", "s_seg.nii.gz"], ["s.nii.gz"], ["s_seg.nii.gz"]),
        (["x.png", "x-gt1.png", "x_labels.png"], ["x.png"], ["x-gt1.png;x_labels.png"]),
        (["x.png", "x_seg.png", "x_seg_seg.png"], ["x.png"], ["x_seg.png;x_seg_seg.png"]),
        (["1.2.5", "1.2.5_mask.png", "y_seg.png"], ["1.2.5", "y_seg.png"], ["1.2.5_mask.png", ""]),
        (["x.jpg", "x.jpg_mask.png", "y.png"], ["x.jpg", "y.png"], ["x.jpg_mask.png", ""]),
        (["x.jpg", "mask_of_x.png", "seg_y.png"], ["x.jpg", "seg_y.png"], ["mask_of_x.png", ""]),
    ],
)
def test_which_files_beside_an_image_are_its_masks(files: list[str], images: list[str], masks: list[str]) -> None:
    assert split_off_masks(files) == (images, masks)


def test_masks_of_several_kinds_are_said_to_be_joined(tmp_path):
    manifest = open_dataset(touch(tmp_path, "a/1.png", "a/1_gt_2.png", "a/1_gt.png", "a/1_label.png", "b/2.png"))
    assert "masks with several endings are joined, as if of one class" in " ".join(manifest.notes)
    (tmp_path / "a" / "1_label.png").unlink()
    assert "several endings" not in " ".join(open_dataset(tmp_path).notes)


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


def test_split_folders_without_classes_are_splits_without_labels(tmp_path):
    manifest = open_dataset(touch(tmp_path, "train/1.png", "test/2.png"))
    assert (manifest.layout, manifest.classes) == ("unlabelled", ())
    assert rows(manifest, "image_path", "split") == [("test/2.png", "test"), ("train/1.png", "train")]


def test_a_folder_of_all_that_is_labelled_is_no_class(tmp_path):
    touch(tmp_path, *(f"labeled/{name}/{n}.png" for name in ("acne", "eczema") for n in range(3)), "unlabeled/9.png")
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("acne", "eczema")
    assert rows(manifest, "image_path", "label")[-1] == ("unlabeled/9.png", "")


def test_images_in_no_class_folder_are_unlabelled(tmp_path):
    manifest = open_dataset(touch(tmp_path, "1.png", "2.png"))
    assert manifest.layout == "unlabelled"
    assert rows(manifest, "image_path", "label") == [("1.png", ""), ("2.png", "")]
    assert manifest.notes[0] == "read as unlabelled: they lie in no class folder"


def test_layout_unlabelled_ignores_class_folders(tmp_path):
    manifest = open_dataset(touch(tmp_path, "a/1.png"), layout="unlabelled")
    assert rows(manifest, "label") == [("",)]


def write_dicom(path: Path, patient: str, modality: str = "CT") -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        *(ExplicitVRLittleEndian, CTImageStorage),
        "1.2.3",
    )
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID, dataset.StudyInstanceUID, dataset.PatientSex = patient, f"1.2.{len(patient)}", "F"
    dataset.Modality = modality
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


def test_several_modalities_and_a_study_of_two_patients_are_told(tmp_path):
    write_dicom(tmp_path / "1.dcm", "anna")
    write_dicom(tmp_path / "2.dcm", "anna", "MR")
    plain = open_dataset(tmp_path)
    assert any("several modalities" in note and "MR (1)" in note for note in plain.notes)
    assert not any("more than one patient" in note for note in plain.notes)
    write_dicom(tmp_path / "3.dcm", "bert")  # the same study
    manifest = open_dataset(tmp_path)
    assert any("1 study with images of more than one patient" in note for note in manifest.notes)
    assert list(manifest.table["modality"]) == ["CT", "MR", "CT"]


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


@pytest.mark.parametrize("named", [0, 6])
def test_anonymous_ids_in_all_files_or_in_half_are_studies_and_leave_the_classes(named, tmp_path):
    from pydicom import dcmread

    for number in range(12):
        path = tmp_path / ("ill", "well")[number % 2] / f"{number}.dcm"
        write_dicom(path, f"p{number}" if number < named else "ANONYMOUS")
        header = dcmread(path)
        header.StudyInstanceUID = f"1.2.{number // 4}.{number % 2}"  # two images a study
        header.save_as(path)
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("ill", "well")
    assert manifest.table["patient_id"].nunique() == (named + 4 if named else 6)
    assert not (manifest.table["patient_id"] == "").any()
    assert "or the study where that names nobody" in manifest.rules["patient_id"]


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
