"""Images and masks in folders side by side: never two classes, each image with the masks of its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from listed_files import rows, touch
from msmae.data.layouts import open_dataset
from msmae.errors import UserError
from msmae.stages.segment import segment


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
    assert manifest.notes[:4] == (
        "read as mask-folders: images/ and masks/ side by side",
        "2 images with masks of their name, and no class labels",
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


def test_further_folders_are_no_class_and_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "images/p1/a.png", "masks/p1/a.png", "images/p2/a.png", "masks/p2/a.png")
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ()
    assert any("folders below them are taken for no class and no patient (p1, p2)" in note for note in manifest.notes)


def test_other_folders_beside_them_make_them_classes(tmp_path: Path) -> None:
    manifest = open_dataset(touch(tmp_path, "images/a.png", "masks/a.png", "healthy/b.png"))
    assert manifest.classes == ("healthy", "images", "masks")
    apart = open_dataset(touch(tmp_path / "apart", "one/images/a.png", "two/masks/a.png"))
    assert apart.layout == "folder"


def test_masks_named_otherwise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file among the masks is named like an image \(masks/x\.png\)"):
        open_dataset(touch(tmp_path / "other", "images/a.png", "masks/x.png"))
    with pytest.raises(UserError, match=r"images/a\.png and images/a\.jpg would have the same mask"):
        open_dataset(touch(tmp_path / "twice", "images/a.jpg", "images/a.png", "masks/a.png"))
    assert open_dataset(tmp_path / "other", layout="folder").classes == ("images", "masks")  # who insists is heard


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
