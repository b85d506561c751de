"""A damaged cache is found, said, and made anew: never believed, never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data.audit.fingerprints import take_fingerprints
from msmae.data.manifest import Manifest
from msmae.data.store import open_store
from msmae.data.tables.layouts import open_dataset


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for number in range(6):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_dataset(tmp_path / "data")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, halve, empty, Path.unlink])
@pytest.mark.parametrize("name", ["images.npy", "store.json"])
def test_a_damaged_store_is_decoded_again(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    def images() -> np.ndarray:
        with caplog.at_level(logging.WARNING):
            return open_store(manifest, size=(16, 16), cache=tmp_path / "cache").fetch(range(6))

    expected = images()
    (file,) = (tmp_path / "cache").rglob(name)
    damage(file)
    np.testing.assert_array_equal(images(), expected)
    assert "damaged" in caplog.text or (name, damage) == ("store.json", Path.unlink)
    caplog.clear()
    np.testing.assert_array_equal(images(), expected)
    assert not caplog.text  # it is whole again


@pytest.mark.parametrize("damage", [flip, halve, empty])
def test_a_damaged_record_of_the_audit_is_made_again(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    expected = take_fingerprints(manifest, cache=tmp_path / "audits").record
    (file,) = (tmp_path / "audits").iterdir()
    damage(file)
    assert (take_fingerprints(manifest, cache=tmp_path / "audits").record == expected).all()
    assert "damaged" in caplog.text
