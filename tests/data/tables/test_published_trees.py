"""Folder trees of published sets: read right, or refused with the option that reads them right; none read wrong."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from listed_files import touch
from msmae.config import DatasetSettings, Settings
from msmae.data.manifest import SEPARATOR, Manifest
from msmae.data.opening import open_data
from msmae.errors import UserError
from published_trees import Read, Tree, chest, eyes, skin, tissue, volumes

TREES = (*skin.TREES, *eyes.TREES, *chest.TREES, *tissue.TREES, *volumes.TREES)


def made(tree: Tree, root: Path) -> Path:
    """The tree's files below ``root``."""
    touch(root, *tree.files, *tree.tables)
    for path, text in tree.tables.items():
        (root / path).write_bytes(gzip.compress(text.encode()) if path.endswith(".gz") else text.encode())
    return root


def found(manifest: Manifest, expected: Read) -> Read:
    """What was read, to be compared as a whole with what was expected."""
    table = manifest.table
    pieces = Counter(piece for label in table["label"] for piece in label.split(SEPARATOR))
    cells = {}
    for path, wanted in expected.cells.items():
        (row,) = [number for number, name in enumerate(table["image_path"]) if name.endswith(path)]
        cells[path] = {column: str(table.at[row, column]) for column in wanted}
    return Read(
        len(table),
        {name: pieces[name] for name in manifest.classes},
        len(set(table["patient_id"]) - {""}),
        {split: number for split, number in Counter(table["split"]).items() if split},
        int((table["mask_path"] != "").sum()),
        manifest.mask_classes,
        cells,
    )


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_a_published_set_is_read_as_its_makers_meant_it_or_refused(tree: Tree, tmp_path: Path) -> None:
    root = made(tree, tmp_path)
    if tree.refused:
        with pytest.raises(UserError) as refusal:
            open_data(root, Settings())
        assert tree.refused in str(refusal.value)
        for option in tree.options:
            assert f"--{option.replace('_', '-')}" in str(refusal.value)
    chosen = Settings(dataset=DatasetSettings(**tree.options))  # type: ignore[arg-type]
    assert found(open_data(root / tree.data if tree.refused else root, chosen), tree.read) == tree.read


def test_most_sets_need_no_option() -> None:
    assert len(TREES) >= 40
    assert sum(not tree.refused for tree in TREES) >= 32


def test_a_medmnist_archive(tmp_path: Path) -> None:
    arrays = {f"{split}_{kind}": np.zeros((n, 8, 8) if kind == "images" else (n, 1), np.uint8)
              for split, n in (("train", 4), ("val", 2), ("test", 2)) for kind in ("images", "labels")}  # fmt: skip
    arrays["train_labels"][2:] = arrays["val_labels"][1:] = arrays["test_labels"][1:] = 1
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    manifest = open_data(tmp_path / "pneumoniamnist.npz", Settings())
    assert (len(manifest.classes), dict(Counter(manifest.table["split"]))) == (2, {"train": 4, "val": 2, "test": 2})
