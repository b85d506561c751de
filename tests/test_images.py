"""Reading image files and fitting them to a size: what the numbers are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data.images import fit_image, fit_mask, read_image, read_mask
from msmae.errors import UserError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(array: np.ndarray, path: Path, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def test_grey_and_colour_come_back_exactly(tmp_path: Path) -> None:
    grey, colour = noise(7, 5), noise(7, 5, 3)
    np.testing.assert_array_equal(read_image(save(grey, tmp_path / "grey.png")), grey[None])
    np.testing.assert_array_equal(read_image(save(colour, tmp_path / "rgb.png")), colour.transpose(2, 0, 1))


def test_alpha_is_dropped_and_the_colour_under_it_kept(tmp_path: Path) -> None:
    pixels = noise(4, 6, 4)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(read_image(save(pixels, tmp_path / "rgba.png")), pixels[..., :3].transpose(2, 0, 1))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2, 1])
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png")[:, 0, 1], [40, 50, 60])


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    pixels = noise(8, 16)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png")[0], np.rot90(pixels, -1))


def test_masks_are_joined_and_must_have_the_size_of_the_image(tmp_path: Path) -> None:
    left, right = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    left[:2], right[:, :3] = 255, 1
    paths = [save(left, tmp_path / "a.png"), save(right, tmp_path / "b.png")]
    np.testing.assert_array_equal(read_mask(paths, shape=(6, 8)), (left > 0) | (right > 0))
    with pytest.raises(UserError, match=r"6 x 8 pixels .* its image 6 x 9"):
        read_mask(paths, shape=(6, 9))


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    checkers = np.indices((64, 64)).sum(axis=0)[None] % 2 * np.uint8(255)
    small = fit_image(checkers.astype(np.uint8), size=(8, 8), channels=1)
    assert small.dtype == np.uint8
    assert np.abs(small[0, 1:-1, 1:-1].astype(int) - 127).max() <= 2  # no aliasing: every pixel is the mean grey


def test_channels_are_repeated_or_reduced_by_luminance() -> None:
    grey, colour = noise(1, 4, 4), noise(3, 4, 4)
    np.testing.assert_array_equal(fit_image(grey, size=(4, 4), channels=3), np.repeat(grey, 3, axis=0))
    expected = np.rint(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    np.testing.assert_array_equal(fit_image(colour, size=(4, 4), channels=1)[0], expected)
    with pytest.raises(UserError, match="3 channels and 2 are wanted"):
        fit_image(colour, size=(4, 4), channels=2)


def test_a_mask_is_fitted_by_its_nearest_pixel() -> None:
    mask = np.kron(np.eye(4, dtype=np.uint8), np.ones((3, 3), np.uint8))
    np.testing.assert_array_equal(fit_mask(mask, size=(4, 4)), np.eye(4))


def test_npz_references(tmp_path: Path) -> None:
    images = noise(5, 6, 7)
    np.savez_compressed(tmp_path / "set.npz", train_images=images)
    np.testing.assert_array_equal(read_image(f"{tmp_path}/set.npz#train/3"), images[3][None])
    with pytest.raises(UserError, match="no row 5"):
        read_image(f"{tmp_path}/set.npz#train/5")
    with pytest.raises(UserError, match="no array val_images"):
        read_image(f"{tmp_path}/set.npz#val/0")
