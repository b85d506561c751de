"""What the names of files and of folders beside images/ say: splits, classes, copies; read, offered or refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from listed_files import rows, touch, write
from msmae.config import DatasetSettings, Settings
from msmae.data.opening import open_data
from msmae.data.tables.layouts import open_dataset
from msmae.data.understood import understand
from msmae.errors import UserError


def test_splits_in_the_names_of_files_are_given_splits_unless_left_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{s}_{n}.png" for c in "ab" for s in ("train", "valid", "test") for n in range(3)))
    manifest = open_data(tmp_path, Settings())
    assert dict(rows(manifest, "image_path", "split"))["a/valid_1.png"] == "val"
    (fact,) = understand(manifest).about("splits")
    assert "given by the beginnings of the file names (test, train, valid)" in fact.said
    assert fact.option == "--split-column"
    aside = open_data(tmp_path, Settings(dataset=DatasetSettings(split_column="")))
    assert not aside.table["split"].any()
    touch(tmp_path / "plain", *(f"{c}/train_{n}.png" for c in "ab" for n in range(3)))
    assert not open_dataset(tmp_path / "plain").table["split"].any(), "one word of all files divides nothing"
    touch(tmp_path / "above", *(f"{s}/{c}/train_{n}.png" for s in ("train", "test") for c in "ab" for n in range(3)))
    assert open_dataset(tmp_path / "above").rules.get("split", "") == "the folders"
    touch(tmp_path / "bare", *(f"im/{s}_{n}.png" for s in ("train", "test") for n in range(8)))
    lines = "\n".join(f"train_{n}.png,{'ab'[n % 2]}" for n in range(8))
    (tmp_path / "bare" / "labels.csv").write_text(f"image,label\n{lines}\n")
    bare = open_dataset(tmp_path / "bare")
    assert not bare.table["split"].any()
    assert "test without a label, for pre-training" in understand(bare).about("splits")[0].said


def test_classes_that_file_names_begin_with_are_offered(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}_{n:03}.png" for c in ("benign", "malignant") for n in range(4)))
    (hint,) = (note for note in open_dataset(tmp_path).notes if "the file names begin with benign, malignant" in note)
    option = hint.partition("--label-column '")[2].rstrip("'")
    assert open_dataset(tmp_path, label_column=option).classes == ("benign", "malignant")
    touch(tmp_path / "one", *(f"img_{n:03}.png" for n in range(4)))
    assert not any("begin with" in note for note in open_dataset(tmp_path / "one").notes)


def test_a_folder_of_the_same_names_beside_the_images_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.png" for folder in ("image", "heatmap") for n in range(5)))
    with pytest.raises(UserError, match=r"heatmap and the images seem to hold the same images twice.*--mask-column"):
        open_dataset(tmp_path)
    manifest = open_dataset(tmp_path, mask_column="heatmap")
    assert rows(manifest, "image_path", "mask_path")[0] == ("image/0.png", "heatmap/0.png")


def test_tables_named_after_folds_give_a_column(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(12)))
    for k in range(3):
        lines = "\n".join(f"{4 * k + n}.png,{'ab'[n % 2]}" for n in range(4))
        (tmp_path / f"fold_{k}.csv").write_text(f"image,label\n{lines}\n")
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("a", "b")
    (column,) = (name for name in manifest.table if name.startswith("fold"))
    assert dict(rows(manifest, "image_path", column))["9.png"] == "2"
    assert any("the column fold divides nothing here" in note for note in manifest.notes)


def test_folders_of_one_split_that_differ_in_a_letter_are_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}{letter}/{n}.png" for s in ("train", "test") for letter in "AB" for n in range(3)))
    with pytest.raises(UserError, match=r"differ in a letter \(A, B\)") as refusal:
        open_dataset(tmp_path)
    option = str(refusal.value).partition("--label-column '")[2].partition("'")[0]
    manifest = open_dataset(tmp_path, label_column=option)
    assert manifest.classes == ("A", "B")
    assert sorted(set(manifest.table["split"])) == ["test", "train"]
    assert open_dataset(tmp_path, layout="unlabelled").classes == ()


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("volume-0.nii", "segmentation-0.nii"),  # LiTS
        ("a/image_0.png", "a/mask_0.png"),
        ("img/img0000.nii.gz", "label/label0000.nii.gz"),  # BTCV
        ("0.png", "gt_0.png"),
    ],
)
def test_a_mask_that_begins_with_a_word_is_that_of_the_image_with_its_number(
    image: str, mask: str, tmp_path: Path
) -> None:
    touch(tmp_path, *(name.replace("0.", f"{n}.") for n in range(4) for name in (image, mask)))
    if image.startswith("a/"):
        touch(tmp_path, *(name.replace("a/", "b/") for name in (image, mask)))
    manifest = open_dataset(tmp_path)
    assert dict(rows(manifest, "image_path", "mask_path"))[image] == mask
    assert all(manifest.table["mask_path"])


def test_a_word_of_masks_without_images_of_the_same_numbers_is_a_name(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/label_{n}.png" for c in "ab" for n in range(4)))
    manifest = open_dataset(tmp_path)
    assert (len(manifest), manifest.classes) == (8, ("a", "b"))
    assert not manifest.table["mask_path"].any()


def test_folders_that_a_set_was_cut_into_are_no_classes_unasked(tmp_path: Path) -> None:
    touch(tmp_path, *(f"batch_{b}/{b}{n}.png" for b in (1, 2) for n in range(4)))
    with pytest.raises(UserError, match=r"each is a part of one set.*--layout unlabelled"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, layout="unlabelled").classes == ()


def test_images_and_their_masks_in_folders_called_x_and_y_are_asked_for(tmp_path: Path) -> None:
    touch(tmp_path / "d", *(f"{k}_{s}/{n}.png" for k in "xy" for s in ("train", "test") for n in range(3)))
    with pytest.raises(UserError, match=r"differ in a letter \(x, y\).*masks") as refusal:
        open_dataset(tmp_path / "d")
    option = str(refusal.value).partition("--label-column '")[2].partition("'")[0]
    assert open_dataset(tmp_path / "d", label_column=option).classes == ("x", "y")
    touch(tmp_path / "e", *(f"{name}/{n}.png" for name in ("a. Training Set", "b. Testing Set") for n in range(3)))
    assert sorted(set(open_dataset(tmp_path / "e").table["split"])) == ["test", "train"]


def test_a_picture_of_an_images_name_and_a_word_more_stays_with_it(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{n}{end}.png" for c in "ab" for n in range(4) for end in ("", "_roi")))
    manifest = open_dataset(tmp_path)
    of = dict(rows(manifest, "image_path", "cluster"))
    assert of["a/0.png"] == of["a/0_roi.png"] not in ("", of["a/1.png"])
    assert any("8 images named like another" in note for note in manifest.notes)
    touch(tmp_path / "views", *(f"{c}/{c}{n}_{v}.png" for c in "ab" for n in range(4) for v in ("front", "side")))
    assert "cluster" not in open_dataset(tmp_path / "views").table


def test_a_folder_of_images_to_predict_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{c}{n}.jpg" for c in ("yes", "no", "pred") for n in range(4)))  # as Br35H has them
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("no", "yes")
    assert sum(label == "" for (label,) in rows(manifest, "label")) == 4


def test_a_list_beside_those_of_splits_is_no_training_data_unasked(tmp_path: Path) -> None:
    """The images of holdout.txt had joined the training, and a new test split was cut."""
    touch(tmp_path, *(f"img/{n:02}.png" for n in range(12)))
    lists = {"train": range(6), "val": range(6, 9), "holdout": range(9, 12)}
    for name, numbers in lists.items():
        write(tmp_path, f"{name}.csv", "file,label", *(f"img/{n:02}.png,{'ab'[n % 2]}" for n in numbers))
    with pytest.raises(UserError, match=r"beside tables named after splits there is holdout\.csv.*--split-column"):
        open_dataset(tmp_path)
    assert not open_dataset(tmp_path, split_column="").table["split"].any()
    (tmp_path / "holdout.csv").rename(tmp_path / "test.csv")
    assert Counter(open_dataset(tmp_path).table["split"]) == {"train": 6, "val": 3, "test": 3}


def test_folders_of_images_and_masks_in_german_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Bilder/{n}.jpg" for n in range(6)), *(f"Masken/{n}.png" for n in range(6)))
    manifest = open_dataset(tmp_path)
    assert len(manifest) == 6
    assert not manifest.classes
    assert all("Masken" in mask for mask in manifest.table["mask_path"])


@pytest.mark.parametrize("name", ["outputs", "predictions", "Results", "logs"])
def test_what_an_experiment_left_behind_is_no_class(tmp_path: Path, name: str) -> None:
    touch(tmp_path, *(f"{folder}/{n}.png" for folder in ("benign", "malignant", name) for n in range(4)))
    with pytest.raises(UserError, match=f"{name}/ holds 4 of 12 images, .*what an experiment wrote.*--layout folder"):
        open_dataset(tmp_path)
    assert name in open_dataset(tmp_path, layout="folder").classes


def test_runs_of_a_study_are_not_what_an_experiment_wrote(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/run-{run}/{c}{n}.png" for c in ("benign", "malignant") for run in (1, 2) for n in range(4)))
    assert open_dataset(tmp_path).classes == ("benign", "malignant")
