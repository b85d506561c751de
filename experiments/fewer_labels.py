"""The same images with fewer labels: question d, what pre-training is worth where labels are few."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from msmae.data.manifest import Manifest
from msmae.data.tables.layouts import open_dataset


def write_fewer_labels(data: str, share: float, target: Path) -> Path:
    """Write a manifest of the data in which a share of the training labels is left; gives its path back."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fewer_labels(open_dataset(data), share).write(target)
    return target


def fewer_labels(manifest: Manifest, share: float, *, seed: int = 0) -> Manifest:
    """The manifest, of whose training patients a share keeps the labels, of each class alike (at least one patient).

    Which they are is drawn once, so that all arms and seeds of a comparison learn from the same; validation and test
    keep theirs. Images without a label still take part in pre-training.

    Raises:
        ValueError: images without a split: a cut by label comes before labels are taken away.
    """
    table = manifest.table
    if (table["split"] == "").any():
        raise ValueError("the images have no splits yet")
    generator = np.random.default_rng(seed)
    train = table[(table["split"] == "train") & (table["label"] != "")]
    patients = train["patient_id"].where(train["patient_id"] != "", train.index.astype(str))
    first = pd.DataFrame({"patient": patients, "label": train["label"]}).drop_duplicates("patient")
    kept: set[str] = set()
    for _, group in first.groupby("label", sort=True):
        names = group["patient"].to_numpy()
        kept |= set(generator.permutation(names)[: max(1, math.ceil(share * len(names) - 1e-9))])
    label = table["label"].copy()
    label[train.index[~patients.isin(kept)]] = ""
    return manifest.with_columns({"label": label.to_numpy()}, notes=[f"{share:.0%} of the training labels are left"])
