"""Masks in folders with words of any language: asked for by what is drawn in them, and read as told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from listed_files import rows
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError
from msmae.inference.items import images_of


def draw(root: Path, image: str, mask: str, *, number: int = 3, suffix: str = "png", shades: int = 1) -> Path:
    """Pictures of noise at ``image``, drawn shapes at ``mask``, of several ``shades``; one shape is empty."""
    generator = np.random.default_rng(0)
    for n in range(number):
        shape = np.zeros((16, 16), np.uint8)
        for shade in range(shades):
            shape[4 : 4 + 3 * n, 3 + 3 * shade : 12] = 255 // (shade + 1)
        for path, pixels in (
            (image, generator.integers(0, 255, (16, 16), np.uint8)),
            (mask, shape),
        ):
            (root / path).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / path / f"{n:03}.{suffix}", quality=95)
    return root


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_drawn_pictures_beside_images_of_their_names_are_no_class(suffix: str, tmp_path: Path) -> None:
    draw(tmp_path, "Lichtbild", "Kontur", suffix=suffix)
    with pytest.raises(UserError, match=r"Kontur/ are named like those in Lichtbild/.*--mask-column Kontur"):
        open_dataset(tmp_path)
    told = open_dataset(tmp_path, mask_column="Kontur")
    assert rows(told, "image_path", "mask_path")[0] == (f"Lichtbild/000.{suffix}", f"Kontur/000.{suffix}")
    assert (len(told), told.classes) == (3, ())
    assert open_dataset(tmp_path, layout="folder").classes == ("Kontur", "Lichtbild")


@pytest.mark.parametrize(("image", "mask"), [("{}/foto", "{}/contorno"), ("foto/{}", "contorno/{}")])
def test_a_told_folder_of_masks_is_paired_within_and_above_class_folders(image: str, mask: str, tmp_path: Path) -> None:
    for name in ("benigno", "maligno"):
        draw(tmp_path, image.format(name), mask.format(name))
    with pytest.raises(UserError, match=r"--mask-column contorno"):
        open_dataset(tmp_path)
    told = open_dataset(tmp_path, mask_column="contorno")
    assert (len(told), told.classes) == (6, ("benigno", "maligno"))
    pair = (image.format("benigno") + "/001.png", mask.format("benigno") + "/001.png")
    assert pair in rows(told, "image_path", "mask_path")


def test_masks_with_a_word_more_are_asked_for_too(tmp_path: Path) -> None:
    draw(tmp_path, "foto", "dibujo")
    for path in (tmp_path / "dibujo").iterdir():
        path.rename(path.with_stem(f"{path.stem}_borde"))
    with pytest.raises(UserError, match="--mask-column dibujo"):
        open_dataset(tmp_path)
    assert all(open_dataset(tmp_path, mask_column="dibujo").table["mask_path"])


def test_label_maps_are_asked_for_as_masks_are(tmp_path: Path) -> None:
    draw(tmp_path, "foto", "umriss", shades=3)
    with pytest.raises(UserError, match="--mask-column umriss"):
        open_dataset(tmp_path)
    assert all(open_dataset(tmp_path, mask_column="umriss").table["mask_path"])


@pytest.mark.parametrize("folder", ["", "ben/"])
def test_drawn_pictures_beside_their_images_are_told_by_their_ending(folder: str, tmp_path: Path) -> None:
    """Two readers' masks (CHASE_DB1) were images without a label."""
    for end in ("1stHO", "2ndHO"):
        draw(tmp_path, f"{folder}.", end)
        for path in (tmp_path / end).iterdir():
            path.rename(tmp_path / folder / f"{path.stem}_{end}.png")
        (tmp_path / end).rmdir()
    with pytest.raises(UserError, match="--mask-column=_1stHO"):
        open_dataset(tmp_path)
    told = open_dataset(tmp_path, mask_column="_2ndHO")
    assert rows(told, "image_path", "mask_path")[0] == (f"{folder}000.png", f"{folder}000_2ndHO.png")
    assert len(told) == 3
    with pytest.raises(UserError, match="--mask-column _x has no effect"):
        open_dataset(tmp_path, mask_column="_x")


def test_a_told_folder_of_masks_without_images_of_its_names_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, "a", "b")
    for path in (tmp_path / "b").iterdir():
        path.rename(path.with_name(f"k{path.name}"))
    with pytest.raises(UserError, match="--mask-column b has no effect"):
        open_dataset(tmp_path, mask_column="b")


def test_classes_numbered_alike_stay_classes(tmp_path: Path) -> None:
    draw(tmp_path, "a", "c")
    draw(tmp_path, "b", "d")
    for name in "cd":
        for path in (tmp_path / name).iterdir():
            path.unlink()
        (tmp_path / name).rmdir()
    assert open_dataset(tmp_path).classes == ("a", "b")


def test_predict_says_that_drawn_pictures_are_among_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path, "foto", "umriss")
    assert len(images_of(tmp_path)) == 6
    assert "umriss/ are named like those in foto/" in capsys.readouterr().out
    images_of(tmp_path / "foto")
    assert not capsys.readouterr().out
