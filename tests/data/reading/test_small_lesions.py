"""An image with a small lesion stays one with a lesion at the size that a model sees."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from msmae.data.manifest import Manifest
from msmae.data.reading.masks import MaskRule, read_mask
from msmae.data.store import open_store
from msmae.training.segment_data import check_values

LARGE, SMALL = (200, 200), (20, 20)


def masks_at(size: tuple[int, int], folder: Path, masks: dict[str, np.ndarray], rule: MaskRule) -> np.ndarray:
    """The mask [H, W] of one image, as training and evaluation see it; ``masks``: class (or ``""``) -> uint8 [H, W]."""
    Image.fromarray(np.arange(200 * 200).reshape(LARGE).astype(np.uint8)).save(folder / "a.png")
    cells = []
    for number, (name, mask) in enumerate(masks.items()):
        Image.fromarray(mask).save(folder / f"m{number}.png")
        cells.append(f"{name}=m{number}.png" if name else f"m{number}.png")
    table = pd.DataFrame({"image_path": ["a.png"], "mask_path": [";".join(cells)]}, dtype=object)
    manifest = Manifest.from_table(table, root=folder, layout="csv")
    return np.asarray(open_store(manifest, size=size, cache=folder / "cache", rule=rule).fetch_masks([0])[0])


def spot(value: int = 255, at: int = 51) -> np.ndarray:
    """A lesion of 3 x 3 pixels between the pixels that are taken of 200 for 20."""
    mask = np.zeros(LARGE, np.uint8)
    mask[at : at + 3, at + 10 : at + 13] = value
    return mask


def test_a_lesion_between_the_pixels_that_are_taken_keeps_one(tmp_path: Path) -> None:
    mask = masks_at(SMALL, tmp_path, {"": spot()}, MaskRule())
    assert np.argwhere(mask).tolist() == [[5, 6]]
    assert mask.max() == 255


def test_every_class_of_a_mask_stays(tmp_path: Path) -> None:
    numbers = np.zeros(LARGE, np.uint8)
    numbers[:100, :100] = 1
    numbers[spot(at=131) > 0] = 2
    mask = masks_at(SMALL, tmp_path, {"": numbers}, MaskRule(classes=2))
    assert (mask == 1).sum() == 100
    assert np.argwhere(mask == 2).tolist() == [[13, 14]]


@pytest.mark.parametrize("value", [1, 2])
def test_a_class_takes_no_other_classs_only_pixel(tmp_path: Path, value: int) -> None:
    """Two small classes side by side, in one pixel of those that the model sees: neither is lost."""
    numbers = np.zeros(LARGE, np.uint8)
    numbers[51:54, 61:64], numbers[54, 61:64] = value, 3 - value
    mask = masks_at(SMALL, tmp_path, {"": numbers}, MaskRule(classes=2))
    assert [(mask == number).sum() for number in (1, 2)] == [1, 1]
    (row, column), (other, beside) = np.argwhere(mask)
    assert abs(other - row) + abs(beside - column) == 1


def test_classes_that_overlap_stay_both(tmp_path: Path) -> None:
    around = np.zeros(LARGE, np.uint8)
    around[40:80, 40:80] = 255
    rule = MaskRule(classes=2, layers=("disc", "cup"))
    mask = masks_at(SMALL, tmp_path, {"disc": around, "cup": spot()}, rule)
    assert (mask & 1).sum() == 16
    assert np.argwhere(mask & 2).tolist() == [[5, 6]]


def test_a_mask_drawn_larger_than_its_image_keeps_its_lesion(tmp_path: Path) -> None:
    Image.fromarray(spot()).save(tmp_path / "m.png")
    assert read_mask([tmp_path / "m.png"], shape=SMALL).sum() == 1


def test_an_empty_mask_stays_empty(tmp_path: Path) -> None:
    assert not masks_at(SMALL, tmp_path, {"": np.zeros(LARGE, np.uint8)}, MaskRule()).any()


def test_masks_of_a_single_pixel_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = np.zeros(LARGE, np.uint8)
    large[20:90, 20:90] = 255
    rows = []
    for split, mask in (("train", spot()), ("val", large), ("test", spot())):
        Image.fromarray(mask // 2).save(tmp_path / f"{split}.png")
        Image.fromarray(mask).save(tmp_path / f"{split}_mask.png")
        rows.append({"image_path": f"{split}.png", "mask_path": f"{split}_mask.png", "split": split})
    manifest = Manifest.from_table(pd.DataFrame(rows, dtype=object), root=tmp_path, layout="csv")
    store = open_store(manifest, size=SMALL, cache=tmp_path / "cache", rule=MaskRule())
    settings = SimpleNamespace(segment=SimpleNamespace(class_names=("lesion",)))
    ids = lambda split, labelled: manifest.ids(split)  # noqa: E731
    check_values(SimpleNamespace(manifest=manifest, store=store, settings=settings, image_size=SMALL, ids=ids))  # type: ignore[arg-type]
    told = capsys.readouterr().out
    assert "one pixel or less at 20 x 20 px" in told
    assert "2 of 3 masks" in told
    assert "empty" not in told
