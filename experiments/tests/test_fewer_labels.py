"""experiments/fewer_labels.py: which labels are left."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fewer_labels import fewer_labels

from msmae.data.manifest import Manifest


def of_patients(*, splits: list[str]) -> Manifest:
    """Forty patients of two images each; a quarter has class b."""
    rows = [
        {"image_path": f"{p}-{i}.png", "label": "b" if p % 4 == 0 else "a", "patient_id": f"p{p}", "split": split}
        for p, split in enumerate(splits)
        for i in range(2)
    ]
    return Manifest.from_table(pd.DataFrame(rows), root=Path(), layout="csv")


def test_a_share_of_the_training_patients_of_each_class_keeps_its_labels() -> None:
    whole = of_patients(splits=["train"] * 40 + ["val"] * 8 + ["test"] * 8)
    table = fewer_labels(whole, 0.1).table
    train = table[table["split"] == "train"]
    left = train[train["label"] != ""]
    assert left.groupby("label")["patient_id"].nunique().to_dict() == {"a": 3, "b": 1}
    assert len(left) == 8  # both images of each patient
    others = table["split"] != "train"
    assert table[others].equals(whole.table[others])
    assert table.drop(columns="label").equals(whole.table.drop(columns="label"))


def test_the_same_labels_are_left_every_time_and_one_patient_of_each_class_at_least() -> None:
    whole = of_patients(splits=["train"] * 40)
    assert fewer_labels(whole, 0.01).table.equals(fewer_labels(whole, 0.01).table)
    assert set(fewer_labels(whole, 0.01).table["label"]) == {"", "a", "b"}
    assert fewer_labels(whole, 1.0).table.equals(whole.table)


def test_images_without_a_split_are_refused() -> None:
    with pytest.raises(ValueError, match="no splits"):
        fewer_labels(of_patients(splits=["", "train"]), 0.5)
