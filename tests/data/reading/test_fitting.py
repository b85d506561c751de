"""Bringing images and their masks to the size and channels that a model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_images import noise, save

from msmae.data.reading.images import (
    Reading,
    fit_image,
    fit_mask,
    read_image,
)
from msmae.data.reading.masks import read_mask
from msmae.errors import UserError


def test_masks_are_joined_and_must_have_the_proportions_of_the_image(tmp_path: Path) -> None:
    left, right = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    left[:2], right[:, :3] = 255, 1
    paths = [save(left, tmp_path / "a.png"), save(right, tmp_path / "b.png")]
    mask = read_mask(paths, shape=(6, 8))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, (left > 0) | (right > 0))
    with pytest.raises(UserError, match=r"6 x 8 pixels .* its image 6 x 9"):
        read_mask(paths, shape=(6, 9))


def test_a_mask_drawn_at_another_resolution_is_brought_to_the_images(tmp_path: Path) -> None:
    small = np.eye(4, 6, dtype=np.uint8) * 255
    path = save(np.kron(small, np.ones((3, 3), np.uint8)), tmp_path / "large.png")
    np.testing.assert_array_equal(read_mask([path], shape=(4, 6)), small > 0)
    with pytest.raises(UserError, match="proportions"):
        read_mask([path], shape=(6, 4))


def test_the_loss_of_a_jpeg_mask_is_not_taken_for_a_lesion(tmp_path: Path) -> None:
    inside = np.zeros((40, 40), np.uint8)
    inside[11:30, 13:27] = 255
    path = save(inside, tmp_path / "mask.jpg", quality=60)
    assert (read_image(path)[0] > 0).sum() > (inside > 0).sum()
    np.testing.assert_array_equal(read_mask([path]), inside > 0)


def test_the_window_of_the_images_does_not_touch_their_masks(tmp_path: Path) -> None:
    path = save(noise(6, 8), tmp_path / "mask.png")
    for window in ("lung", "manifest", "0..100"):
        np.testing.assert_array_equal(read_mask([path], reading=Reading(window=window)), noise(6, 8) > 0)


def test_a_mask_is_fitted_by_its_nearest_pixel() -> None:
    mask = np.kron(np.eye(4, dtype=np.uint8), np.ones((3, 3), np.uint8))
    np.testing.assert_array_equal(fit_mask(mask, size=(4, 4)), np.eye(4))
    np.testing.assert_array_equal(fit_mask(np.eye(4, dtype=np.uint8), size=(12, 12)), mask)


def test_shrinking_is_antialiased() -> None:
    checkers = (np.indices((64, 64)).sum(axis=0)[None] % 2 * 255).astype(np.uint8)
    small = fit_image(checkers, size=(8, 8), channels=1)
    assert small.dtype == np.uint8
    assert np.abs(small.astype(int) - 127.5).max() <= 4  # every pixel is about the mean grey


def test_resizing_equals_torch_s_antialiased_bilinear() -> None:
    import torch

    pixels = noise(2, 37, 53).astype(np.float32)
    for size in ((16, 16), (20, 90), (64, 64)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(pixels)[None], size, mode="bilinear", antialias=True
        )
        np.testing.assert_allclose(fit_image(pixels, size=size, channels=2), expected[0], atol=1e-3)


@settings(max_examples=50)
@given(
    pixels=st.sampled_from(["uint8", "uint16", "int16", "float32"]).flatmap(
        lambda kind: hnp.arrays(
            kind,
            hnp.array_shapes(min_dims=3, max_dims=3, max_side=12),
            elements={"min_value": -1000, "max_value": 1000} if kind == "float32" else None,
        )
    ),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_a_fit_keeps_type_and_range(pixels: np.ndarray, size: tuple[int, int]) -> None:
    fitted = fit_image(pixels, size=size, channels=len(pixels))
    assert fitted.dtype == pixels.dtype
    assert fitted.shape == (len(pixels), *size)
    slack = 1e-3 if pixels.dtype == np.float32 else 0
    assert fitted.min() >= pixels.min() - slack
    assert fitted.max() <= pixels.max() + slack


def test_channels_are_repeated_or_reduced_by_luminance() -> None:
    grey, colour = noise(1, 4, 4), noise(3, 4, 4)
    np.testing.assert_array_equal(fit_image(grey, size=(4, 4), channels=3), np.repeat(grey, 3, axis=0))
    expected = np.rint(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    np.testing.assert_array_equal(fit_image(colour, size=(4, 4), channels=1)[0], expected)
    with pytest.raises(UserError, match="3 channels and 2 are wanted"):
        fit_image(colour, size=(4, 4), channels=2)
