"""Hashes against SciPy's cosine transform, and what fingerprints are made of, by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn, idctn
from test_audit import texture

from msmae.data.audit.hashing import bits_apart, grey_plane, perceptual_hash, resaving_distance


@pytest.mark.parametrize("seed", range(5))
def test_a_hash_says_which_low_frequencies_are_above_the_margin(seed: int) -> None:
    """On a plane of the thumbnail's size nothing is resampled: 16 x 16 orthonormal cosines of 0..255, without the mean.
    Words take them in turn, from low to high."""
    plane = texture(seed, size=(32, 32)).astype(np.float32)
    spread = (plane - plane.min()) * (255 / np.ptp(plane).astype(np.float64))
    above = dctn(spread, norm="ortho")[:16, :16] > 4
    above[0, 0] = False
    rising = sorted(((row, column) for row in range(16) for column in range(16)), key=lambda at: (sum(at), at))
    words = [[above[at] for at in rising[word::16]] for word in range(16)]
    assert np.unpackbits(perceptual_hash(plane).view(np.uint8)).astype(bool).reshape(16, 16).tolist() == words
    assert bits_apart(perceptual_hash(plane), perceptual_hash(plane)[None]).dtype == np.int64
    assert bits_apart(perceptual_hash(plane), perceptual_hash(0.5 * plane + 20)) <= 2  # contrast and brightness


@pytest.mark.parametrize(("level", "bit"), [(3.99, False), (4.01, True)])
def test_a_bit_is_set_from_a_fraction_above_the_margin_on(level: float, bit: bool) -> None:
    """Of a plane that spans 0 to 255, one frequency is brought to this level, until both are so."""
    plane = texture(0, size=(32, 32)).astype(float)
    for _ in range(50):
        plane = (plane - plane.min()) * (255 / np.ptp(plane))
        waves = dctn(plane, norm="ortho")
        waves[0, 1] = level
        plane = idctn(waves, norm="ortho")
    assert np.ptp(plane) == pytest.approx(255, abs=1e-6)
    seen = perceptual_hash(plane.astype(np.float32)).view(np.uint8)
    assert bool(np.unpackbits(seen)[16]) == bit  # the second frequency is the first of the second word


def faint(seed: int) -> np.ndarray:
    """A picture of a twelfth of the full contrast, which is in two of its corners alone."""
    pixels = 120 + texture(seed) // 12
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return pixels


def noise(seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 12), dtype=np.uint8)
    pixels[0, :2] = 0, 255
    return pixels


@pytest.mark.parametrize(
    ("picture", "worst"), [(faint(0), 0), (faint(2), 0), (noise(0), 1), (noise(1), 1), (texture(1), 2), (texture(4), 2)]
)
def test_saving_again_is_tried_as_jpeg_as_smaller_and_as_brighter(picture: np.ndarray, worst: int) -> None:
    picture = np.rint((picture - float(picture.min())) * (255 / np.ptp(picture))).astype(np.uint8)
    height, width = picture.shape
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=75)
    smaller = (width * 3 // 4, height * 3 // 4)
    copies = (
        Image.open(file),
        Image.fromarray(picture.astype(np.float32)).resize(smaller, Image.Resampling.BICUBIC),
        Image.fromarray((255 * (picture / 255) ** 0.8).astype(np.float32)),
    )
    plane = picture.astype(np.float32)
    apart = [int(bits_apart(perceptual_hash(plane), perceptual_hash(np.asarray(copy, np.float32)))) for copy in copies]
    assert apart[worst] > max(apart[:worst] + apart[worst + 1 :])
    assert resaving_distance(plane) == apart[worst]
    assert resaving_distance(plane * 40 - 1000) == resaving_distance(plane)  # neither unit nor origin matters


def test_an_image_of_one_colour_has_no_bits_to_move() -> None:
    assert resaving_distance(np.full((40, 40), 7, np.float32)) == 0
    assert not perceptual_hash(np.full((40, 40), 7, np.float32)).any()


def test_a_grey_plane_is_luminance_or_the_mean() -> None:
    pixels = np.arange(3 * 4).reshape(3, 2, 2).astype(np.uint8)
    np.testing.assert_allclose(grey_plane(pixels)[0, 0], 0.299 * 0 + 0.587 * 4 + 0.114 * 8, atol=1e-3)
    np.testing.assert_allclose(grey_plane(pixels[:2]), pixels[:2].mean(axis=0))
