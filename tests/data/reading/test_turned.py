"""The orientation in the EXIF of a 16-bit colour PNG, which Pillow does not read whole."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data.reading.images import read_image


def deep_colour_png(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    """A PNG of uint16 [H, W, 3] with an orientation tag, written chunk by chunk."""
    height, width, _ = pixels.shape
    exif = Image.Exif()
    exif[0x0112] = orientation
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    whole = [struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    return path


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_sixteen_bit_colour_is_turned_as_eight_bits_are(orientation: int, turns: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (8, 16, 3)).astype(np.uint16)
    read = read_image(deep_colour_png(tmp_path / "x.png", pixels, orientation))
    np.testing.assert_array_equal(read.transpose(1, 2, 0), np.rot90(pixels, turns))
    few = Image.fromarray((pixels >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    few.save(tmp_path / "few.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "few.png"), read >> 8)
