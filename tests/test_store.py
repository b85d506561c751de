"""The decode-once store: what it holds, when it is built anew, and what is left behind when something goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from msmae.data.images import load_images
from msmae.data.manifest import Manifest
from msmae.data.store import open_store
from msmae.errors import UserError


def write_images(folder: Path, count: int, *, mode: str = "L", side: int = 20, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    names = [f"{mode}{i}.png" for i in range(count)]
    for name in names:
        shape = (side, side + 3) if mode == "L" else (side, side + 3, 3)
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return names


def manifest_of(folder: Path, names: list[str], **columns: list[str]) -> Manifest:
    return Manifest.from_table(pd.DataFrame({"image_path": names, **columns}), root=folder, layout="csv")


def test_rows_are_the_images_as_they_would_be_loaded(tmp_path: Path) -> None:
    names = write_images(tmp_path, 5) + write_images(tmp_path, 4, mode="RGB")
    store = open_store(manifest_of(tmp_path, names), size=(16, 12), cache=tmp_path / "cache")
    fresh = load_images([tmp_path / name for name in names], size=(16, 12), channels=3)
    assert store.images.shape == (9, 3, 16, 12)
    assert store.images.dtype == np.uint8
    np.testing.assert_array_equal(store.images, fresh)
    np.testing.assert_array_equal(store.fetch([7, 0, 7]), fresh[[7, 0, 7]])


def test_a_second_opening_decodes_nothing(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, write_images(tmp_path, 3))
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        open_store(
            manifest, size=(8, 8), cache=tmp_path / "cache", progress=lambda done, count: calls.append((done, count))
        )
    assert calls == [(3, 3)]


def test_every_unreadable_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    names = [*write_images(tmp_path, 4), "gone.png"]
    (tmp_path / names[1]).write_bytes(b"")
    (tmp_path / names[3]).write_bytes(b"not an image")
    with pytest.raises(UserError, match="3 of 5 images") as caught:
        open_store(manifest_of(tmp_path, names), size=(8, 8), cache=tmp_path / "cache")
    assert [name for name in names if name in str(caught.value)] == [names[1], names[3], names[4]]
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []
