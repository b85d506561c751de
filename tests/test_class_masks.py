"""Masks as classes: what index, palette, 0/255, colour and wrong files become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data.manifest import Manifest
from msmae.data.masks import MaskRule, read_class_mask
from msmae.data.store import open_store
from msmae.errors import UserError

INDEX = np.repeat(np.arange(3, dtype=np.uint8), 4)[:, None].repeat(9, axis=1)  # [12, 9] of 0, 1, 2


def saved(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array, mode) if mode is None else Image.fromarray(array).convert(mode)
    image.save(path)
    return path


def test_index_and_palette_masks_are_class_numbers(tmp_path: Path) -> None:
    rule = MaskRule(classes=2)
    assert (read_class_mask([saved(tmp_path / "i.png", INDEX)], rule) == INDEX).all()
    palette = Image.fromarray(INDEX)
    palette.putpalette([0, 0, 0, 250, 10, 10, 10, 250, 10])
    palette.save(tmp_path / "p.png")
    assert (read_class_mask([tmp_path / "p.png"], rule) == INDEX).all()
    grey = np.stack([INDEX] * 3, axis=2)
    assert (read_class_mask([saved(tmp_path / "rgb.png", grey)], rule) == INDEX).all(), "three equal channels are grey"


def test_masks_of_one_class_keep_their_number_and_are_joined(tmp_path: Path) -> None:
    upper = saved(tmp_path / "a.png", (INDEX == 0).astype(np.uint8) * 255)
    lower = saved(tmp_path / "b.png", (INDEX == 2).astype(np.uint8) * 255)
    assert (read_class_mask([upper, lower], MaskRule()) == np.where(INDEX != 1, 255, 0)).all()
    assert read_class_mask([upper], MaskRule(), shape=(24, 18)).shape == (24, 18)


@pytest.mark.parametrize(
    ("array", "classes", "said"),
    [
        (INDEX, 1, "holds the values 0, 1, 2, and one class"),
        (INDEX * 7, 2, "holds the values 0, 7, 14, and the classes are 0"),
        (np.stack([INDEX * 90, INDEX, INDEX], axis=2), 2, "in colour"),
    ],
)
def test_what_is_no_class_is_listed(array: np.ndarray, classes: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_class_mask([saved(tmp_path / "m.png", array)], MaskRule(classes=classes))


def test_two_masks_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one, other = (
        saved(tmp_path / "a.png", INDEX),
        saved(tmp_path / "b.png", np.where(INDEX == 1, 2, 0).astype(np.uint8)),
    )
    with pytest.raises(UserError, match="two classes"):
        read_class_mask([one, other], MaskRule(classes=2))


def test_a_store_under_a_rule_refuses_or_excludes_an_image_without_mask(tmp_path: Path) -> None:
    import pandas as pd

    generator = np.random.default_rng(0)
    for name in ("0.png", "1.png", "2.png"):
        saved(tmp_path / name, generator.integers(0, 255, (12, 9), dtype=np.uint8))
    saved(tmp_path / "m.png", INDEX)
    table = pd.DataFrame({"image_path": ["0.png", "1.png", "2.png"], "mask_path": ["m.png", "", ""]})
    manifest = Manifest.from_table(table, root=tmp_path, layout="csv")
    rule = MaskRule(classes=2, healthy=frozenset({2}))
    with pytest.raises(UserError, match=r"no mask .*1\.png"):
        open_store(manifest, size=(12, 9), cache=tmp_path / "c", rule=rule)
    store = open_store(manifest, size=(12, 9), cache=tmp_path / "c", rule=rule, on_error="skip")
    assert set(store.excluded) == {1}
    assert store.fetch_masks([0]).max() == 2
    assert store.fetch_masks([2]).max() == 0
    plain = open_store(manifest, size=(12, 9), cache=tmp_path / "c")
    assert plain.fetch_masks([0]).max() == 1, "the same images under no rule are another store"
