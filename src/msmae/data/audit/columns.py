"""The columns of a manifest that an audit compares, as arrays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from msmae.data.manifest import SEPARATOR, UNSURE, Manifest

NO_LABEL = "(no label)"
NO_FINDING = "(no finding)"
NOT_KNOWN = "(no finding known)"
"""Of an image that has no class of which that is known, and may have one."""


@dataclass(frozen=True)
class Columns:
    """``labels``, ``patients``, ``splits`` and ``clusters`` of every image: text [n], ``""`` where unknown."""

    labels: np.ndarray
    patients: np.ndarray
    splits: np.ndarray
    clusters: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest) -> Columns:
        clusters = manifest.table["cluster"] if "cluster" in manifest.table else pd.Series([""] * len(manifest))
        known = (manifest.table[name] for name in ("label", "patient_id", "split"))
        return cls(*(column.to_numpy() for column in (*known, clusters)))

    @property
    def test(self) -> np.ndarray:
        """bool [n]; every other image is a training or validation image, or has no split."""
        return np.asarray(self.splits == "test")

    @cached_property
    def splits_of_patients(self) -> dict[str, set[str]]:
        """Patient -> the splits he has images in; images without a split are learned from."""
        found: dict[str, set[str]] = {}
        for patient, split in zip(self.patients, self.splits, strict=True):
            if patient:
                found.setdefault(patient, set()).add(split or "train")
        return found

    @property
    def crossing(self) -> list[str]:
        """Patients with images in more than one split."""
        return sorted(patient for patient, splits in self.splits_of_patients.items() if len(splits) > 1)

    @property
    def on_both_sides(self) -> list[str]:
        """Patients with images in the test split and in the pool."""
        return [patient for patient in self.crossing if "test" in self.splits_of_patients[patient]]

    def clustered_with_pool(self, beginning: str) -> np.ndarray:
        """Test images whose cluster, of a name that begins so, has images in the pool, too: bool [n]."""
        pool = {name for name in self.clusters[~self.test] if name.startswith(beginning)}
        return np.asarray(self.test & np.array([name in pool for name in self.clusters], dtype=bool))

    def by_label(self, images: np.ndarray) -> dict[str, int]:
        """Label -> how many of these images (bool [n]) carry it."""
        return dict(sorted(Counter(label or NO_LABEL for label in self.labels[images]).items()))

    def by_class_and_split(self) -> dict[str, dict[str, int]]:
        """Class -> split -> images; an image with several labels counts for each."""
        nested: dict[str, dict[str, int]] = {}
        for label, split in zip(self.labels, self.splits, strict=True):
            none = (NOT_KNOWN if UNSURE in label else NO_FINDING) if label else NO_LABEL
            for name in classes_of(label) or [none]:
                row = nested.setdefault(name, {})
                row[split or "(none)"] = row.get(split or "(none)", 0) + 1
        return dict(sorted(nested.items()))


def classes_of(label: str) -> list[str]:
    """The classes a label names; what may be there (``?b`` of ``?b;a``) is none."""
    return sorted(_pieces(label)[0])


def contradict(first: str, second: str) -> bool:
    """Whether two labels of one picture cannot both be right: what is not known of it contradicts nothing."""
    if not (first and second):
        return False
    (has, may_have), (other, maybe) = _pieces(first), _pieces(second)
    return bool(has - other - maybe or other - has - may_have)


def _pieces(label: str) -> tuple[set[str], set[str]]:
    """The classes a label names, and those of which it is not known whether the image has them."""
    pieces = set(label.split(SEPARATOR)) - {""}
    unsure = {piece for piece in pieces if piece.startswith(UNSURE)} if SEPARATOR in label else set()
    return pieces - unsure, {piece.removeprefix(UNSURE) for piece in unsure}
