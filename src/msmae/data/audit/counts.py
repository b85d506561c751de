"""How often a picture occurs again, and what of it lies on both sides of a split."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from msmae.data.audit.columns import Columns, classes_of, contradict
from msmae.data.audit.duplicates import Duplicates, clusters
from msmae.data.copies import ALIKE, COPIED

FEWEST = 3  # groups of a class: one each for training, validation and test


def count_copies(columns: Columns, duplicates: Duplicates) -> dict[str, Any]:
    """The fields of ``Audit`` that do not depend on the split."""
    copies = duplicates.copies  # [P]
    of_cluster = clusters(duplicates)  # [n]
    ends = duplicates.first[duplicates.near[:, :2]]  # [m, 2] sample ids
    return {
        "identical_pairs": int((copies * (copies - 1) // 2).sum()),
        "label_conflicts": len(label_conflicts(columns.labels, duplicates)),
        "patient_conflicts": len(conflicts(columns.patients, duplicates)),
        "near_pairs": len(ends),
        "near_conflicts": sum(contradict(*pair) for pair in _differing(columns.labels[ends])),
        "near_across_patients": len(_differing(columns.patients[ends])),
        "near_clusters": int((np.bincount(of_cluster[duplicates.first]) > 1).sum()),
        "largest_cluster": int(np.bincount(of_cluster).max()),
    }


def count_leakage(columns: Columns, duplicates: Duplicates) -> dict[str, Any]:
    """The fields of ``Audit`` that compare the splits."""
    identical, near = leaking_copies(columns, duplicates)
    both_sides = columns.on_both_sides
    copied = columns.clustered_with_pool(COPIED)
    leaking = identical | copied | (columns.test & np.isin(columns.patients, both_sides))
    train, val = columns.splits == "train", columns.splits == "val"
    return {
        "test_identical_to_pool": int(identical.sum()),
        "test_copies_in_pool": int(copied.sum()),
        "test_patients_in_pool": len(both_sides),
        "leaking_images": int(leaking.sum()),
        "leaking_classes": columns.by_label(leaking),
        "test_near_pool": int(near.sum()),
        "near_classes": columns.by_label(near),
        "test_named_like_pool": int(columns.clustered_with_pool(ALIKE).sum()),
        "val_identical_to_train": int((val & duplicates.of_images(duplicates.show(train))).sum()),
        "patients_crossing": len(columns.crossing),
    }


def leaking_copies(columns: Columns, duplicates: Duplicates) -> tuple[np.ndarray, np.ndarray]:
    """Test images that are identical to one of the pool, and those that are merely near to one: bool [n] each."""
    pool = duplicates.show(~columns.test)  # [P]
    near = duplicates.near_to(pool) & ~pool
    return columns.test & duplicates.of_images(pool), columns.test & duplicates.of_images(near)


def conflicts(names: np.ndarray, duplicates: Duplicates) -> list[np.ndarray]:
    """The sample ids of every picture that occurs with several labels, or patients; ``""`` contradicts nothing."""
    return [rows for rows in duplicates.repeated() if len(set(names[rows]) - {""}) > 1]


def label_conflicts(labels: np.ndarray, duplicates: Duplicates) -> list[np.ndarray]:
    """The sample ids of every picture whose labels contradict one another."""
    return [
        rows
        for rows in conflicts(labels, duplicates)
        if any(contradict(*pair) for pair in combinations({*labels[rows]}, 2))
    ]


def small_classes(columns: Columns, groups: np.ndarray) -> dict[str, int]:
    """Classes with fewer than ``FEWEST`` groups (int64 [n]), too few to be in every split -> their groups."""
    of_class: dict[str, set[int]] = {}
    for label, group in zip(columns.labels, groups.tolist(), strict=True):
        for name in classes_of(label):
            of_class.setdefault(name, set()).add(group)
    return {name: len(inside) for name, inside in sorted(of_class.items()) if len(inside) < FEWEST}


def _differing(ends: np.ndarray) -> list[list[str]]:
    """The pairs of names, of [m, 2], that are known on both sides, and different."""
    pairs: list[list[str]] = ends[(ends != "").all(axis=1) & (ends[:, 0] != ends[:, 1])].tolist()
    return pairs
