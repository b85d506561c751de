"""Images of which some labels are not known are divided as all others are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msmae.data.manifest import Manifest
from msmae.data.splits import assign_splits, make_folds

LABELS = ["edema", "?mass;", ";", "?edema;mass", "", "?edema;?mass"]
TIMES = 40


def manifest() -> Manifest:
    rows = [{"image_path": f"{row}.png", "label": label} for row, label in enumerate(LABELS * TIMES)]
    return Manifest.from_table(pd.DataFrame(rows, dtype=object), root=".", layout="csv")  # type: ignore[arg-type]


def shares(cut: Manifest, split: str) -> list[float]:
    """Of each kind of label the share of its images that is in the split."""
    table = cut.table
    return [float((table["split"][table["label"] == label] == split).mean()) for label in LABELS]


def test_every_kind_of_labelled_image_is_cut_by_its_share() -> None:
    found = shares(assign_splits(manifest(), test_fraction=0.25, val_fraction=0.2), "test")
    assert found[:4] == pytest.approx([0.25] * 4, abs=0.1)
    assert found[4:] == [0, 0]  # nothing can be measured on them


def test_every_image_of_which_something_is_known_is_tested_once() -> None:
    folds = make_folds(manifest(), folds=4)
    tested = np.sum([fold.table["split"] == "test" for fold in folds], axis=0).reshape(TIMES, len(LABELS))
    assert (tested == [1, 1, 1, 1, 0, 0]).all()
