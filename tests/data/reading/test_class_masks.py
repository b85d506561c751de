"""Masks as classes: what index, palette, 0/255, colour and wrong files become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data.manifest import Manifest
from msmae.data.reading.masks import MaskRule, read_mask, split_layers
from msmae.data.store import open_store
from msmae.errors import UserError

INDEX = np.repeat(np.arange(3, dtype=np.uint8), 4)[:, None].repeat(9, axis=1)  # [12, 9] of 0, 1, 2


def saved(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array, mode) if mode is None else Image.fromarray(array).convert(mode)
    image.save(path)
    return path


def test_index_and_palette_masks_are_class_numbers(tmp_path: Path) -> None:
    rule = MaskRule(classes=2)
    assert (read_mask([saved(tmp_path / "i.png", INDEX)], rule) == INDEX).all()
    palette = Image.fromarray(INDEX)
    palette.putpalette([0, 0, 0, 250, 10, 10, 10, 250, 10])
    palette.save(tmp_path / "p.png")
    assert (read_mask([tmp_path / "p.png"], rule) == INDEX).all()
    grey = np.stack([INDEX] * 3, axis=2)
    assert (read_mask([saved(tmp_path / "rgb.png", grey)], rule) == INDEX).all(), "three equal channels are grey"


def test_masks_of_one_class_keep_their_number_and_are_joined(tmp_path: Path) -> None:
    upper = saved(tmp_path / "a.png", (INDEX == 0).astype(np.uint8) * 255)
    lower = saved(tmp_path / "b.png", (INDEX == 2).astype(np.uint8) * 255)
    assert (read_mask([upper, lower], MaskRule()) == np.where(INDEX != 1, 255, 0)).all()
    assert read_mask([upper], MaskRule(), shape=(24, 18)).shape == (24, 18)


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
        read_mask([saved(tmp_path / "m.png", array)], MaskRule(classes=classes))


def test_two_masks_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one, other = (
        saved(tmp_path / "a.png", INDEX),
        saved(tmp_path / "b.png", np.where(INDEX == 1, 2, 0).astype(np.uint8)),
    )
    with pytest.raises(UserError, match="two classes"):
        read_mask([one, other], MaskRule(classes=2))


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


def test_masks_of_classes_that_overlap_are_layers(tmp_path: Path) -> None:
    disc = saved(tmp_path / "disc.png", (INDEX > 0).astype(np.uint8) * 255)
    upper = saved(tmp_path / "up.png", (INDEX == 1).astype(np.uint8))
    lower = saved(tmp_path / "low.png", np.kron(INDEX == 2, np.ones((2, 2))).astype(np.uint8))  # twice the resolution
    rule = MaskRule(classes=3, layers=("cup", "disc", "vessel"))
    stored = read_mask([("disc", disc), ("cup", upper), ("cup", lower)], rule, shape=(12, 9))
    layers = split_layers(stored[None], 3, overlapping=True)[0]
    assert (layers == np.stack([INDEX > 0, INDEX > 0, INDEX < 0])).all(), "two masks of the cup are joined"
    with pytest.raises(UserError, match="holds the values 0, 1, 2"):
        read_mask([("cup", saved(tmp_path / "i.png", INDEX))], rule)
    assert read_mask([("cup", tmp_path / "i.png")], MaskRule(layers=("cup",), any_value=True)).any()
    with pytest.raises(UserError, match="9 classes that may overlap"):
        MaskRule(layers=tuple("abcdefghi"))


def test_numbers_are_split_into_classes() -> None:
    exclusive = split_layers(INDEX[None], 2, overlapping=False)[0]
    assert (exclusive == np.stack([INDEX == 1, INDEX == 2])).all()
    assert (split_layers(INDEX[None], 1, overlapping=False)[0, 0] == (INDEX > 0)).all(), "one class: any number"


def test_the_same_files_under_other_class_names_are_another_store(tmp_path: Path) -> None:
    import pandas as pd

    saved(tmp_path / "i.png", INDEX)
    saved(tmp_path / "m.png", (INDEX == 1).astype(np.uint8))
    found = []
    for cell in ("a=m.png", "b=m.png"):
        table = pd.DataFrame({"image_path": ["i.png"], "mask_path": [cell]})
        manifest = Manifest.from_table(table, root=tmp_path, layout="csv")
        rule = MaskRule(classes=2, layers=("a", "b"))
        store = open_store(manifest, size=(12, 9), cache=tmp_path / "c", rule=rule)
        found.append(int(store.fetch_masks([0]).max()))
    assert found == [1, 2]


def test_a_mask_drawn_in_transparency_is_where_it_is_opaque(tmp_path: Path) -> None:
    white = np.full((12, 9, 4), 255, np.uint8)
    white[..., 3] = np.where(INDEX > 0, 255, 0)
    Image.fromarray(white).save(tmp_path / "alpha.png")
    assert (read_mask([tmp_path / "alpha.png"]) == (INDEX > 0)).all()
    assert (read_mask([tmp_path / "alpha.png"], MaskRule()) == np.where(INDEX > 0, 255, 0)).all()
    drawn = np.zeros((12, 9, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = np.where(INDEX > 0, 255, 0)[..., None], 255
    Image.fromarray(drawn).save(tmp_path / "opaque.png")
    assert (read_mask([tmp_path / "opaque.png"]) == (INDEX > 0)).all()
    drawn[..., 3] = np.where(INDEX > 0, 0, 255)
    Image.fromarray(drawn).save(tmp_path / "both.png")
    with pytest.raises(UserError, match="its transparency say different things"):
        read_mask([tmp_path / "both.png"])
