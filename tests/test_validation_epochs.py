"""Which epochs of a supervised training are validated: all, or every n-th where few images have a label to train by."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import msmae
from msmae.stages.supervised import LEAST_VALIDATIONS, epochs_between_validations


@pytest.mark.parametrize(
    ("train", "val", "epochs", "expected"),
    [(4708, 524, 5, 1), (472, 524, 50, 1), (48, 524, 1084, 10), (48, 524, 300, 6), (10, 1000, 20, 1)],
)
def test_validation_takes_no_more_images_than_training_where_epochs_are_many(
    train: int, val: int, epochs: int, expected: int
) -> None:
    assert epochs_between_validations(train, val, epochs) == expected


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 5_000))
def test_enough_epochs_are_validated_to_choose_among(train: int, val: int, epochs: int) -> None:
    every = epochs_between_validations(train, val, epochs)
    assert epochs // every >= min(epochs, LEAST_VALIDATIONS)
    assert every == 1 or every * train <= val


def few_labels(data: Path, target: Path) -> Path:
    """The phantom, of whose training images two of each disease keep their label."""
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    train = table[table["split"] == "train"]
    kept = train.groupby("label").head(2).index
    table.loc[train.index.difference(kept), "label"] = ""
    table.to_csv(target, index=False)
    return target


def test_a_training_by_few_labels_is_validated_now_and_then_and_at_its_end(data: Path, tmp_path: Path) -> None:
    manifest = few_labels(data, data.with_name("few.csv"))
    run = tmp_path / "run"
    msmae.run(str(manifest), out=str(run), preset="tiny", method="vit", finetune={"epochs": 105, "base_lr": 1e-4})
    log = pd.read_csv(run / "logs" / "finetune" / "csv" / "metrics.csv")
    epochs = log.loc[log["val_loss"].notna(), "epoch"].astype(int).tolist()
    assert epochs == [*range(1, 105, 2), 104]
    best = torch.load(run / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=False)
    assert best["epoch"] == log["epoch"].to_numpy()[log["val_loss"].argmin()]
