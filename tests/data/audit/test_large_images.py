"""Large JPEGs are decoded smaller for the audit, and are still the pictures they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data.audit import take_fingerprints
from msmae.data.audit.fingerprints import reduced
from msmae.data.reading.images import ImageSource, Reading
from msmae.data.tables.layouts import open_dataset


def large(seed: int) -> Image.Image:
    """A smooth picture of 3 megapixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((2100, 1400), Image.Resampling.BICUBIC)


@pytest.mark.slow
def test_large_jpegs_are_decoded_smaller_and_still_told_from_and_known_as_others(tmp_path: Path) -> None:
    large(0).save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    large(1).save(tmp_path / "other.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "same.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    large(2).save(tmp_path / "turned.jpg", exif=turned)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:20_000])
    prints = take_fingerprints(open_dataset(tmp_path))  # a, copy, cut, other, same, turned
    record = prints.record
    assert record["reduced"].tolist() == [True, True, False, True, False, True]
    assert [(row["height"], row["width"]) for row in record[[0, 4, 5]]] == [(1400, 2100), (1400, 2100), (2100, 1400)]
    digests = [row.tobytes() for row in record["digest"]]
    assert digests[0] == digests[1] == digests[4]
    assert len({digests[0], digests[3], digests[5]}) == 3
    assert list(prints.problems) == [2]


def test_a_large_colour_jpeg_keeps_its_planes(tmp_path: Path) -> None:
    large(0).save(tmp_path / "a.jpg", quality=95)
    found = reduced(ImageSource(str(tmp_path / "a.jpg")), Reading())
    assert found is not None
    planes, shape = found
    assert (planes.shape[0], shape) == (3, (1400, 2100))
    smaller = np.asarray(large(0).resize((planes.shape[2], planes.shape[1]), Image.Resampling.BOX)).astype(float)
    assert abs(planes.astype(float) - smaller.transpose(2, 0, 1)).mean() < 4, "each colour in its own plane"
