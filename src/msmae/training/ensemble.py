"""``run --folds K --ensemble``: K models of one recipe, each validated on images of its own, that answer together.

The test split stays as it is. The first model is the one that is trained without ``--folds``: the validation split is
its own. The training images are dealt into K-1 further folds, each of which validates one more model, which learns from
all others. So every image outside the test split has an answer of a model that has not learned from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msmae.data.manifest import Manifest
from msmae.data.splits import deal_folds
from msmae.runs.checkpoint import joined, load_model, save_model
from msmae.training.balance import decide_balance
from msmae.training.finetune import finetune_model
from msmae.training.prepare import Prepared
from msmae.training.trainer import is_main_process

COLUMN = "ensemble_fold"
"""Of a run's manifest: the model that the image validates, from 1 on; empty: a test image, or one without label."""


def with_folds(manifest: Manifest, folds: int, *, seed: int, groups: Sequence[str]) -> Manifest:
    """The manifest with the column that says which model an image validates.

    Args:
        groups: [n], what no fold may part (``data.opening.whole_groups``).

    Raises:
        UserError: a class has fewer groups of training images than there are folds to deal.
    """
    fold = np.full(len(manifest), "", dtype=object)
    fold[manifest.ids("val")] = "1"
    train = manifest.ids("train")
    dealt = deal_folds(manifest.select(train), folds - 1, seed=seed, groups=[groups[row] for row in train])
    fold[train] = ["" if number < 0 else str(number + 2) for number in dealt]
    return manifest.with_columns({COLUMN: fold})


def member(prepared: Prepared, number: int) -> Prepared:
    """What the model of this number, counted from 1, learns from and is validated on: same images, other splits."""
    table = prepared.manifest.table
    mine = (table[COLUMN] == str(number)).to_numpy()
    others = (table[COLUMN] != "").to_numpy() & ~mine
    split = np.where(mine, "val", np.where(others, "train", table["split"].to_numpy()))
    return dataclasses.replace(prepared, manifest=prepared.manifest.with_splits(split))


def with_one_remedy(prepared: Prepared) -> Prepared:
    """What is done about rare classes, decided once for all models: each has other images, and near a limit they would
    decide differently, while one calibration undoes what was done."""
    settings = prepared.settings
    fine = dataclasses.replace(settings.finetune, balance=decide_balance(prepared).remedy)
    return dataclasses.replace(prepared, settings=dataclasses.replace(settings, finetune=fine))


def folder_of(run: Path, number: int) -> Path:
    """Where the model of this number is trained."""
    return run / "folds" / str(number)


def train_ensemble(prepared: Prepared, run: Path) -> None:
    """Train the models that RUN/folds does not hold yet, and join them in RUN/model."""
    numbers = range(1, prepared.folds + 1)
    alike = with_one_remedy(prepared)
    for number in numbers:
        if not (folder_of(run, number) / "model").is_dir():
            print(f"model {number} of {prepared.folds}", flush=True)
            finetune_model(member(alike, number), folder_of(run, number))
    if is_main_process():
        members, cards = zip(*(load_model(folder_of(run, number) / "model") for number in numbers), strict=True)
        card = dataclasses.replace(cards[0], members=prepared.folds)
        save_model(run / "model", joined(members, card), card)
