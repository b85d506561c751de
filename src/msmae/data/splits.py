"""Which image trains, validates or tests: stratified by label, whole patients, the same on every machine.

The draw uses no random generator: groups are ordered by a hash of the seed and their name, so it depends neither on the
order of the files nor on a library's version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from msmae.data.manifest import SPLITS, Manifest
from msmae.errors import UserError


@dataclass(frozen=True)
class Groups:
    """The images that stay together: those of one patient, or an image alone where no patient is known.

    ``of`` int64 ``[n]`` is each image's group; ``counts`` int64 ``[G, C]`` the images of every class in every group;
    ``order`` int64 ``[G]`` the groups in the order of their hash, drawn by the seed.
    """

    of: np.ndarray
    counts: np.ndarray
    order: np.ndarray


def assign_splits(
    manifest: Manifest, *, val_fraction: float = 0.15, test_fraction: float = 0.2, seed: int = 0
) -> Manifest:
    """Fill in what is missing of the splits, and leave what is given.

    Without a test split, ``test_fraction`` of the images that are not validation become one; without a validation
    split, ``val_fraction`` of the images that are not test. Both are cut from the images marked ``train`` or not marked
    at all; what remains is ``train``. Every class keeps its share to within one group, and a patient never comes
    apart: an unmarked image follows the split given to its patient. Images without a label train, unless their patient
    does not.

    Raises ``UserError`` for a fraction outside [0, 1) and for a class with too few groups for its splits.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise UserError(f"{name} is {fraction}", mend="it is a share of the images: at least 0, less than 1")
    given = manifest.table["split"].to_numpy()
    groups = group_images(manifest, seed=seed)
    split = _follow_patient(given, groups)
    missing = [
        (name, fraction)
        for name, fraction in (("test", test_fraction), ("val", val_fraction))
        if fraction > 0 and name not in split
    ]
    if "train" not in split and "" not in split:
        return manifest
    notes = []
    for place, (name, fraction) in enumerate(missing):
        pool = _pool(split, groups)
        least = np.array([1, len(missing) - place])  # groups of every class: cut now, left for train and a later cut
        _check_sizes(manifest, groups, pool, least=int(least.sum()), cuts=[name for name, _ in missing])
        taken = _cut(groups, pool, fraction=fraction, least=least)
        split = np.where(taken[groups.of], name, split)
        notes.append(_note(name, split, manifest, seed=seed))
    split = np.where(split == "", "train", split)
    return manifest.with_splits(split, notes=notes)


def group_images(manifest: Manifest, *, seed: int) -> Groups:
    """Group the images by ``patient_id``, and put the groups in an order that the seed decides."""
    names = [
        f"patient {patient}" if patient else f"image {image}"
        for patient, image in zip(_patients(manifest), _image_names(manifest), strict=True)
    ]
    unique, of = np.unique(np.array(names, dtype=object), return_inverse=True)
    classes = np.nan_to_num(_one_hot(manifest)).astype(np.int64)  # [n, C]
    counts = np.zeros((len(unique), classes.shape[1]), dtype=np.int64)
    np.add.at(counts, of, classes)
    hashes = [hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest() for name in unique]
    return Groups(of=of, counts=counts, order=np.array(sorted(range(len(unique)), key=hashes.__getitem__), np.int64))


def deal(counts: np.ndarray, order: np.ndarray, *, targets: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Deal groups onto K piles so that every class comes near its target on every pile: int64 ``[G]``, -1 = no class.

    ``counts`` ``[G, C]`` images of each class, ``order`` ``[m]`` the groups to deal, ``targets`` ``[C, K]`` images,
    ``least`` ``[K]`` groups of every class a pile must get if there are enough. The rarest class is dealt first; its
    largest groups first, each to the pile that lacks the largest part of its target (iterative stratification: Sechidis
    et al., ECML 2011, with groups in place of single examples).
    """
    pile = np.full(len(counts), -1, dtype=np.int64)
    lacking = targets.astype(np.float64)  # [C, K]
    goal = np.maximum(targets, 1e-9)
    groups_on = np.zeros(targets.shape, dtype=np.int64)  # [C, K]
    for rarest in np.argsort(counts[order].sum(axis=0), kind="stable"):
        members = [group for group in order if pile[group] < 0 and counts[group, rarest]]
        members.sort(key=lambda group: (-counts[group, rarest], -counts[group].sum()))
        for dealt, group in enumerate(members):
            shortage = np.maximum(least - groups_on[rarest], 0)
            open_piles = shortage > 0 if len(members) - dealt <= shortage.sum() else np.ones(len(least), dtype=bool)
            part = np.where(open_piles, lacking[rarest] / goal[rarest], -np.inf)
            overall = lacking.sum(axis=0) / goal.sum(axis=0)
            best = max(range(len(least)), key=lambda k: (part[k], overall[k]))
            pile[group] = best
            lacking[:, best] -= counts[group]
            groups_on[:, best] += counts[group] > 0
    return pile


def _cut(groups: Groups, pool: np.ndarray, *, fraction: float, least: np.ndarray) -> np.ndarray:
    """Which groups leave the pool, bool ``[G]``: ``fraction`` of the images of every class, to within one group."""
    order = groups.order[pool[groups.order]]
    total = groups.counts[order].sum(axis=0)  # [C]
    cut = np.clip(np.floor(fraction * total + 0.5), np.minimum(1, total), np.maximum(total - least[1], 1))
    targets = np.stack([cut, total - cut], axis=1)  # [C, 2]
    taken: np.ndarray = deal(groups.counts, order, targets=targets, least=least) == 0
    return taken


def _follow_patient(given: np.ndarray, groups: Groups) -> np.ndarray:
    """Give unmarked images the split their patient has; test before val before train, where it has several."""
    split = given.copy()
    for name in SPLITS:
        in_group = np.zeros(len(groups.counts), dtype=bool)
        in_group[groups.of[given == name]] = True
        split = np.where((given == "") & in_group[groups.of], name, split)
    return split


def _pool(split: np.ndarray, groups: Groups) -> np.ndarray:
    """The groups that may be cut, bool ``[G]``: no image of theirs is in val or test."""
    free = np.ones(len(groups.counts), dtype=bool)
    free[groups.of[(split == "val") | (split == "test")]] = False
    return free


def _check_sizes(manifest: Manifest, groups: Groups, pool: np.ndarray, *, least: int, cuts: list[str]) -> None:
    number = (groups.counts[pool] > 0).sum(axis=0)  # [C]
    small = [f"'{manifest.classes[c]}' has {number[c]}" for c in np.flatnonzero((number > 0) & (number < least))]
    if small and not manifest.multilabel:
        unit = "patients" if manifest.table["patient_id"].any() else "images"
        raise UserError(
            f"too few {unit} in a class to cut {' and '.join(cuts)} from training: {', '.join(small)}",
            where=str(manifest.root),
            mend=f"give every class {least} or more, leave the class out, or write the splits into the manifest",
        )


def _note(name: str, split: np.ndarray, manifest: Manifest, *, seed: int) -> str:
    number = int(np.count_nonzero(split == name))
    whole = ", patients kept whole" if manifest.table["patient_id"].any() else ""
    return f"{name} cut from training: {number:,} of {len(split):,} images, stratified by label{whole}, seed {seed}"


def _patients(manifest: Manifest) -> list[str]:
    return manifest.table["patient_id"].tolist()


def _image_names(manifest: Manifest) -> list[str]:
    """The image's path, with axis, slice and frame where there are any."""
    columns = [column for column in ("image_path", "axis", "index", "frame") if column in manifest.table]
    return [" ".join(cells) for cells in manifest.table[columns].itertuples(index=False, name=None)]


def _one_hot(manifest: Manifest) -> np.ndarray:
    """0/1 ``[n, C]``; zeros or nan where there is no label."""
    targets = manifest.targets()
    if manifest.multilabel:
        return targets
    one_hot: np.ndarray = targets[:, None] == np.arange(len(manifest.classes))
    return one_hot.astype(np.float32)
