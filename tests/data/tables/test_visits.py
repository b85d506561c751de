"""Folders that are visits, splits in the names of classes, pictures to look at: no patient, no class, no image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from listed_files import noted, rows, touch, write
from msmae.config import DatasetSettings, Settings
from msmae.data.opening import open_data
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError


@pytest.mark.parametrize(
    "visits", [("2021-03-02", "2022-05-11"), ("visit1", "visit2"), ("02.03.2021", "11.05.2022"), ("baseline", "V2")]
)
def test_visits_below_folders_are_no_patients(visits: tuple[str, str], tmp_path: Path) -> None:
    """Names were classes, and the day, shared by all of them, was the patient."""
    touch(
        tmp_path, *(f"{who}/{visit}/{n}.png" for who in ("Huber", "Meier", "Kraus") for visit in visits for n in "12")
    )
    with pytest.raises(UserError, match=r"below are visits.*--layout folder .*--layout patient-folders"):
        open_dataset(tmp_path)
    people = open_dataset(tmp_path, layout="patient-folders")
    assert set(people.table["patient_id"]) == {"Huber", "Meier", "Kraus"}
    assert not any("of one name" in note for note in people.left_out)
    classes = open_dataset(tmp_path, layout="folder")
    assert len(classes.classes) == 3
    assert not classes.table["patient_id"].any()


def test_patients_above_visits_stay_patients(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/P{p}{c}/visit{v}/{n}.png" for c in "ab" for p in range(3) for v in (1, 2) for n in "12"))
    assert len(set(open_dataset(tmp_path).table["patient_id"])) == 6


@pytest.mark.parametrize("form", ["{c}_{s}", "{s}-{c}", "{c} {s}"])
def test_folders_called_after_class_and_split_are_both(form: str, tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{form.format(c=c, s=s)}/{n}.png" for c in ("nevus", "mel") for s in ("train", "Test") for n in "123"),
    )
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("mel", "nevus")
    assert Counter(manifest.table["split"]) == {"train": 6, "test": 6}
    assert open_dataset(touch(tmp_path / "k", "stress_test/1.png", "rest/1.png")).classes == ("rest", "stress_test")


def test_splits_in_other_languages(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/{s}{n}.png" for s in ("训练集", "测试集") for c in ("良性", "恶性") for n in "123"))
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("恶性", "良性")
    assert Counter(manifest.table["split"]) == {"train": 6, "test": 6}


def test_pictures_to_look_at_within_a_class_are_no_images(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{c}/{folder}{c}{n}.{s}" for c in "ab" for folder, s in (("", "tif"), ("thumbs/", "png")) for n in "123"),
    )
    manifest = open_dataset(tmp_path)
    assert len(manifest) == 6
    assert not any("thumbs" in path for (path,) in rows(manifest, "image_path"))
    assert noted(manifest, "6 pictures left out")
    alone = open_dataset(touch(tmp_path / "alone", *(f"{c}/thumbs/{n}.png" for c in "ab" for n in "123")))
    assert len(alone) == 6


def test_files_of_one_name_in_folders_within_a_class_are_told(tmp_path: Path) -> None:
    """The same cut at two magnifications had been in training and test."""
    touch(tmp_path, *(f"{c}/{m}/{c}{n}.png" for c in ("ben", "mal") for m in ("low", "high") for n in range(5)))
    (left,) = (note for note in open_dataset(tmp_path, layout="folder").left_out if "of one name" in note)
    expression = left.partition("--patients '")[2].rpartition("'")[0]
    assert len(set(open_dataset(tmp_path, layout="folder", patients=expression).table["patient_id"])) == 10
    touch(tmp_path / "no", *(f"{c}/{m}/{c}{m}{n}.png" for c in ("ben", "mal") for m in ("low", "high") for n in "12"))
    assert not any("of one name" in note for note in open_dataset(tmp_path / "no", layout="folder").left_out)


def test_tiles_of_a_slide_stay_together_whatever_their_classes(tmp_path: Path) -> None:
    tiles = [f"S{s:02}_x{128 * t:04}_y0256.png" for s in range(5) for t in range(4)]
    touch(tmp_path, *(f"{'tumor' if n % 3 else 'stroma'}/{name}" for n, name in enumerate(tiles)))
    manifest = open_dataset(tmp_path)
    assert Counter(manifest.table["patient_id"]) == {f"s{s:02}": 4 for s in range(5)}


def test_folders_of_names_below_one_class_each_are_offered_as_patients(tmp_path: Path) -> None:
    """The number that a camera gives to files had been offered as the patient."""
    of = {"gut": ("Huber Eva", "Lang Ida"), "böse": ("Adam Ute", "Berg Jo")}
    touch(tmp_path, *(f"{c}/{who}/IMG_{n}.png" for c, people in of.items() for who in people for n in "123"))
    manifest = open_dataset(tmp_path)
    assert noted(manifest, "--patients folder")
    assert not noted(manifest, "([^/]+)")
    assert len(set(open_dataset(tmp_path, patients="folder").table["patient_id"])) == 4


def test_a_test_folder_without_classes_is_for_pretraining(tmp_path: Path) -> None:
    """`run` refused: no image of the test split had a label."""
    touch(
        tmp_path, *(f"train/{c}/{c}{n}.png" for c in ("drusen", "normal") for n in range(8)), "test/1.png", "test/2.png"
    )
    manifest = open_dataset(tmp_path)
    assert Counter(manifest.table["split"]) == {"train": 16, "": 2}
    assert "test without a label" in manifest.rules["split"]
    unlabelled = open_dataset(tmp_path, layout="unlabelled")
    assert Counter(unlabelled.table["split"]) == {"train": 16, "test": 2}


@pytest.mark.parametrize("kind", ["Augmented Images", "augmented", "resized_64"])
def test_copies_in_a_folder_of_their_own_are_asked_about(kind: str, tmp_path: Path) -> None:
    """The classes were Monkeypox, Others and Augmented Images."""
    touch(tmp_path, *(f"Original Images/{c}/{c[0]}{n}_01.png" for c in ("Monkeypox", "Others") for n in range(6)))
    behind = "" if kind == "resized_64" else "_0"
    touch(tmp_path, *(f"{kind}/{c}_x/{c[0]}{n}_01{behind}.png" for c in ("Monkeypox", "Others") for n in range(6)))
    with pytest.raises(UserError, match=f"{kind} .*the same images twice.*give one of them as DATA"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "Original Images").classes == ("Monkeypox", "Others")


def test_masks_of_derivatives_are_no_images_and_channels_are_told_beside_a_table(tmp_path: Path) -> None:
    for person in range(1, 7):
        for visit in (1, 2):
            key, below = f"sub-0{person}_ses-0{visit}", f"sub-0{person}/ses-0{visit}/anat"
            touch(tmp_path, f"{below}/{key}_T1w.nii.gz", f"{below}/{key}_FLAIR.nii.gz")
            touch(tmp_path, f"derivatives/brains/{below}/{key}_desc-brain_mask.nii.gz")
    write(tmp_path, "participants.tsv", "participant_id\tgroup", *(f"sub-0{n}\t{'AC'[n % 2]}" for n in range(1, 7)))
    labelled = open_data(tmp_path, Settings(dataset=DatasetSettings(label_column="group")))
    unlabelled = open_data(tmp_path, Settings(dataset=DatasetSettings(layout="unlabelled")))
    for manifest in (labelled, unlabelled):
        assert len(manifest) == 24
        assert not any("mask" in path for path in manifest.table["image_path"])
        assert noted(manifest, "12 masks left out, named like no image")
        assert "FLAIR, T1w" in manifest.rules["channels"]
    told = DatasetSettings(label_column="group", image_column="T1w")
    one = open_data(tmp_path, Settings(dataset=told))
    assert len(one) == 12
    assert Counter(one.table["label"]) == {"A": 6, "C": 6}
    assert all(path.endswith("_T1w.nii.gz") for path in one.table["image_path"])
