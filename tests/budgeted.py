"""A run of seconds, whose budget is measured; and what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import msmae
from msmae.data.manifest import read_manifest
from msmae.inference.model import load
from msmae.verbs.budget import budget
from spots import write_spots

SHORT: dict[str, dict[str, Any]] = {
    "pretrain": {"epochs": 2, "uniform_epochs": 1},
    "finetune": {"epochs": 5, "base_lr": 1e-2, "batch_size": 8, "ema": 0, "jitter": 0.0},
}
"""Training that tells the classes of tests/spots.py from another, more or less."""


def budgeted_run(folder: Path) -> Path:
    """The run, made in a folder."""
    data = write_spots(folder)
    table = pd.read_csv(data)
    wrong = table.index[table["split"] != "train"][::5]  # no model is right of all, and temperatures fit
    table.loc[wrong, "label"] = "level 0"
    table.to_csv(data, index=False)
    msmae.run(str(data), out=str(folder / "run"), preset="tiny", **SHORT)
    before = load(folder / "run").predict(images_of(folder / "run"))
    budget(str(folder / "run"), presentations=64, ratios=["0.25", "0.5"], margin=0.3)
    after = load(folder / "run").predict(images_of(folder / "run"))
    assert torch.equal(before, after)  # what the model says of whole images stays
    return folder / "run"


def images_of(run: Path) -> list[str]:
    """The test images."""
    table = pd.read_csv(run / "manifest.csv")
    return [str(path) for path in table.loc[table["split"] == "test", "image_path"]]


def names_of(run: Path) -> list[str]:
    """What predictions call the test images."""
    manifest = read_manifest(run / "manifest.csv")
    return manifest.names[manifest.ids("test")].tolist()


def content_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "budget.json").read_text(encoding="utf-8"))
    return found
