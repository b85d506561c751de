"""Images and masks in folders side by side: never two classes, each image with the masks of its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from listed_files import rows, touch
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError
from msmae.verbs.segment import segment


def test_masks_beside_images_are_their_masks(tmp_path: Path) -> None:
    touch(tmp_path, "set/images/a.jpg", "set/images/b.png", "set/images/c.png")
    touch(tmp_path, "set/masks/a.png", "set/masks/b_mask_1.png", "set/masks/b_mask_2.png", "set/masks/d.png")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "mask-folders"
    assert rows(manifest, "image_path", "label", "mask_path") == [
        ("set/images/a.jpg", "", "set/masks/a.png"),
        ("set/images/b.png", "", "set/masks/b_mask_1.png;set/masks/b_mask_2.png"),
        ("set/images/c.png", "", ""),
    ]
    assert manifest.notes == (
        "read as mask-folders: images/ and masks/ side by side",
        "the data set lies in set",
        "2 images with masks (set/masks/a.png)",
        "1 image without a mask",
        "1 mask left out, named like no image: set/masks/d.png",
    )


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("train/images/{}", "train/masks/{}"),
        ("Images/train/{}", "Ground_Truth/train/{}"),
        ("imgs/train/{}", "GT/train/{}"),
    ],
)
def test_splits_lie_above_or_below(image: str, mask: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for folder in (image, mask):
            touch(tmp_path, folder.replace("train", split).format("1.png"))
    manifest = open_dataset(tmp_path)
    assert sorted(manifest.table["split"]) == ["test", "train"]
    for row in range(2):  # files of one name in two splits keep apart
        folder = image.replace("train", manifest.table["split"][row])
        assert manifest.table["image_path"][row] == folder.format("1.png")
        assert manifest.table["mask_path"][row] == mask.replace("train", manifest.table["split"][row]).format("1.png")


def test_a_name_that_ends_like_a_mask_is_looked_up_whole_first(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/a_seg.png", "masks/a.png", "masks/a_seg.png")
    assert rows(open_dataset(tmp_path), "image_path", "mask_path") == [
        ("images/a.png", "masks/a.png"),
        ("images/a_seg.png", "masks/a_seg.png"),
    ]


def test_dots_within_a_name_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "images/case.1.png", "images/case.2.nii.gz", "masks/case.1.PNG", "masks/case.2_seg.nii")
    assert rows(open_dataset(tmp_path), "image_path", "mask_path") == [
        ("images/case.1.png", "masks/case.1.PNG"),
        ("images/case.2.nii.gz", "masks/case.2_seg.nii"),
    ]


@pytest.mark.parametrize("place", ["images/{}/a.png", "{}/images/a.png", "all/images/{}/deeper/a.png"])
def test_further_folders_that_count_are_patients(place: str, tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for folder in ("images", "masks"):
            touch(tmp_path, place.replace("images", folder).format(patient))
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ()
    assert all(manifest.table["mask_path"])
    assert list(manifest.table["patient_id"]) == ["p1", "p2"]
    wrapped = open_dataset(touch(tmp_path / "w", "set/v2/images/a.png", "set/v2/masks/a.png"))
    assert not wrapped.table["patient_id"].any()


def test_the_innermost_folder_says_what_a_file_is(tmp_path: Path) -> None:
    manifest = open_dataset(touch(tmp_path, "scans/images/a.png", "scans/masks/a.png"))
    assert rows(manifest, "image_path", "mask_path") == [("scans/images/a.png", "scans/masks/a.png")]
    touch(tmp_path / "apart", "one/images/a.png", "two/masks/a.png")
    with pytest.raises(
        UserError, match=r"no file among the masks lies and is named like an image \(two/masks/a\.png\)"
    ):
        open_dataset(tmp_path / "apart")
    assert open_dataset(tmp_path / "apart", layout="folder").classes == ("one", "two")


def test_pictures_elsewhere_stop_the_reading_unless_told(tmp_path: Path) -> None:
    touch(tmp_path, "image/a.png", "label/a.png", "healthy/b.png", "label/c.npy")
    with pytest.raises(UserError, match=r"image/ and label/ side by side, and 1 picture elsewhere \(healthy/b\.png\)"):
        open_dataset(tmp_path)
    told = open_dataset(tmp_path, layout="folder")
    assert rows(told, "image_path", "label", "mask_path") == [  # whatever is told, a mask is no image
        ("healthy/b.png", "healthy", ""),
        ("image/a.png", "", "label/a.png"),
    ]
    manifest = open_dataset(tmp_path, layout="mask-folders")
    assert rows(manifest, "image_path", "mask_path") == [("image/a.png", "label/a.png")]
    assert "1 picture left out, among neither images nor masks: healthy/b.png" in manifest.notes
    assert any("label/c.npy" in note for note in manifest.notes)


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file among the masks lies and is named like an image \(masks/x\.png\)"):
        open_dataset(touch(tmp_path / "other", "images/a.png", "masks/x.png"))
    with pytest.raises(UserError, match=r"images/a\.jpg and images/a\.png would have the same mask"):
        open_dataset(touch(tmp_path / "twice", "images/a.jpg", "images/a.png", "masks/a.png"))
    with pytest.raises(UserError, match=r"masks of one image in annotations/ and masks/ \(images/a\.png\)"):
        open_dataset(touch(tmp_path / "raters", "images/a.png", "masks/a.png", "annotations/a.png"))
    with pytest.raises(UserError, match="a mask's name holds ';'"):
        open_dataset(touch(tmp_path / "marked", "images/a;b.png", "masks/a;b.png"))
    with pytest.raises(UserError, match="no image in this folder"):
        open_dataset(touch(tmp_path / "none", "readme.txt"), layout="mask-folders")


def test_split_folders_are_alike_however_they_are_written(tmp_path: Path) -> None:
    touch(tmp_path, "images/Train/a.png", "masks/training/a-Segmentation.png", "images/test/b.png", "masks/TEST/b.png")
    assert sorted(rows(open_dataset(tmp_path), "split", "mask_path")) == [
        ("test", "masks/TEST/b.png"),
        ("train", "masks/training/a-Segmentation.png"),
    ]


@pytest.mark.slow
def test_such_folders_are_outlined(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for number in range(30):
        mask = np.zeros((32, 32), np.uint8)
        top, left = generator.integers(2, 18, 2)
        mask[top : top + 12, left : left + 12] = 255
        image = (generator.normal(60, 10, (32, 32)) + 0.5 * mask).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "set" / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{number}_mask.png")
    metrics = segment(
        str(tmp_path / "set"), out=str(tmp_path / "run"), from_="none", preset="tiny", segment={"presentations": 1500}
    )
    assert metrics["splits"]["test"]["metrics"]["dice"]["value"] > 0.8


@pytest.mark.parametrize("people", [("annotator_A", "annotator_B"), ("reader1", "reader2"), ("expert 1", "expert 2")])
def test_masks_of_two_people_are_no_two_classes(tmp_path: Path, people: tuple[str, str]) -> None:
    touch(tmp_path, *(f"images/{n}.png" for n in range(4)))
    touch(tmp_path, *(f"masks/{who}/{n}.png" for who in people for n in range(4)))
    with pytest.raises(UserError, match=rf"several people.*--mask-column {people[0]}"):
        open_dataset(tmp_path)
    manifest = open_dataset(tmp_path, mask_column=people[1])
    assert rows(manifest, "image_path", "mask_path") == [
        (f"images/{n}.png", f"masks/{people[1]}/{n}.png") for n in range(4)
    ]


def test_masks_of_two_things_by_one_person_are_two_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n}.png" for n in range(4)))
    touch(tmp_path, *(f"masks/manual_{what}/{n}.png" for what in ("heart", "lung") for n in range(4)))
    assert open_dataset(tmp_path).mask_classes == ("manual_heart", "manual_lung")
