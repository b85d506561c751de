"""Supervised training: which epochs are validated where few images have a label, and whose weights are averaged."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import msmae
from msmae.method.segmenter import LightDecoder, SetrDecoder
from msmae.training.optimiser import averaging_of
from msmae.training.supervised import (
    LEAST_VALIDATIONS,
    SupervisedModule,
    balanced_accuracy,
    epochs_between_validations,
    train_supervised,
)
from spots import prepared_of, write_spots


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


@pytest.mark.slow
def test_a_training_by_few_labels_is_validated_now_and_then_and_at_its_end(data: Path, tmp_path: Path) -> None:
    manifest = few_labels(data, data.with_name("few.csv"))
    run = tmp_path / "run"
    msmae.run(str(manifest), out=str(run), preset="tiny", method="vit", finetune={"epochs": 105, "base_lr": 1e-4})
    log = pd.read_csv(run / "logs" / "finetune" / "csv" / "metrics.csv")
    epochs = log.loc[log["val_loss"].notna(), "epoch"].astype(int).tolist()
    assert epochs == [*range(1, 105, 2), 104]
    best = torch.load(run / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=False)
    assert best["epoch"] == log["epoch"].to_numpy()[log["val_loss"].argmin()]


def trained(data: Path, run: Path, norm: nn.Module, *, ema: float) -> dict[str, Tensor]:
    """The weights that are kept of a short training of a convolution with this normalisation."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 8, 3, stride=2)
    network = nn.Sequential(convolution, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    finetune = {"epochs": 1, "batch_size": 8, "base_lr": 0.3, "ema": ema}
    train_supervised(SupervisedModule(network, prepared_of(data, finetune=finetune)), run, save=lambda: None)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("norm", "averaged"), [(nn.BatchNorm2d(8), False), (nn.GroupNorm(2, 8), True)])
def test_weights_whose_statistics_fit_them_alone_are_not_averaged(norm: nn.Module, averaged: bool, tmp_path: Path):
    """Averaged, a ResNet-18 of four epochs had answered at chance: its batch statistics were those of other weights."""
    data = write_spots(tmp_path)
    kept = trained(data, tmp_path / "averaged", deepcopy(norm), ema=0.9)
    last = trained(data, tmp_path / "last", deepcopy(norm), ema=0.0)
    alike = [torch.equal(kept[name], last[name]) for name in kept]
    assert not any(alike[:2]) if averaged else all(alike)


def test_the_papers_decoder_is_not_averaged_and_the_light_one_is() -> None:
    """Its batch statistics are those of the weights as they are: averaged, it grew worse while it learned."""
    assert averaging_of(SetrDecoder(16, outputs=1), 0.99) == []
    assert len(averaging_of(LightDecoder(16, outputs=1, channels=1, patch_size=4), 0.99)) == 1
    assert averaging_of(nn.Linear(2, 2), 0) == []


def test_of_several_labels_an_image_naming_nothing_is_no_balanced_accuracy_of_90_percent() -> None:
    nan = float("nan")
    labels = torch.tensor([[0.0, 1.0, 1.0]] + [[0.0, 0.0, 1.0]] * 8 + [[0.0, nan, 1.0]])
    assert balanced_accuracy(torch.full((10, 3), -1.0), labels) == 0.5  # of the second class: the others have no rival
    found = torch.where(labels == 1, 1.0, -1.0)
    assert balanced_accuracy(found, labels) == 1
    found[0, 1] = found[1, 1] = 0.0
    found[1, 1] = 1.0
    assert balanced_accuracy(found, labels) == pytest.approx((0 + 7 / 8) / 2)
    assert balanced_accuracy(found[:, :1], labels[:, :1]).isnan()
    grades = torch.tensor([0, 0, 0, 1])
    assert balanced_accuracy(torch.tensor([[1.0, 0.0]] * 4), grades) == 0.5
