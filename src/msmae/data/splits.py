"""Which image trains, validates or tests: stratified by label, whole patients, the same on every machine.

The draw uses no random generator: groups are ordered by a hash of the seed and their name, so it depends neither on the
order of the files nor on a library's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msmae.data.manifest import NO_FINDING, SPLITS, Manifest
from msmae.data.tables.listing import count, some
from msmae.errors import UserError


@dataclass(frozen=True)
class Groups:
    """The images that stay together, and the classes they are to be balanced by.

    ``of`` int64 ``[n]`` is each image's group; ``counts`` int64 ``[G, C]`` the images of every class in every group;
    ``order`` int64 ``[G]`` the groups in the order of their hash, drawn by the seed; ``classes`` the C names.
    """

    of: np.ndarray
    counts: np.ndarray
    order: np.ndarray
    classes: tuple[str, ...]


def assign_splits(
    manifest: Manifest,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Manifest:
    """Fill in what is missing of the splits, and leave what is given.

    Without a test split, ``test_fraction`` of the images that are not validation become one; without a validation
    split, ``val_fraction`` of the images that are not test. Both are cut from the images marked ``train`` or not marked
    at all; what remains is ``train``. Every class keeps its share to within one group, and a patient never comes
    apart: an unmarked image follows the split given to its patient. Images without a label train, unless their patient
    does not; where no image has a label, those with a mask are split as if they were one class.

    ``groups`` ``[n]`` names what stays together in place of ``patient_id`` (``""`` = an image alone). Raises
    ``UserError`` for a fraction outside [0, 1) and for a class with too few groups for its splits.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise UserError(f"{name} is {fraction}", mend="it is a share of the images: at least 0, less than 1")
    grouped = group_images(manifest, seed=seed, names=groups)
    split = _follow_group(manifest.table["split"].to_numpy(), grouped)
    pool = _pool(split, grouped)
    unsaid = int((split == "").sum()) if (split != "").any() else 0
    cuts = {"test": test_fraction, "val": val_fraction}
    missing = [name for name, fraction in cuts.items() if fraction > 0 and name not in split and pool.any()]
    notes = [f"{count(unsaid, 'image')} beside the given splits without one: they count as training"] if unsaid else []
    if missing and not grouped.classes:
        notes, missing = [*notes, "no image has a label or a mask: all of them train"], []
    for later, name in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
        least = np.array([1, 1 + later])  # groups of every class: cut now, left for train and a later cut
        _check_sizes(manifest, grouped, pool, least=int(least.sum()), cuts=missing)
        taken = _cut(grouped, pool, fraction=cuts[name], least=least)  # [G]
        split = np.where(taken[grouped.of], name, split)
        pool = pool & ~taken
        notes += _cut_notes(name, split, grouped, seed=seed)
    given = manifest.table["split"] != ""
    cut = [name for name in ("val", "test") if name in split and not (given & (manifest.table["split"] == name)).any()]
    rules = {"cut": ", ".join(cut if given.any() else ["train", *cut])}
    return manifest.with_splits(np.where(split == "", "train", split), notes=notes, rules=rules)


def make_folds(
    manifest: Manifest,
    *,
    folds: int = 5,
    repeats: int = 1,
    val_fraction: float = 0.15,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> list[Manifest]:
    """Cross-validation: ``folds * repeats`` manifests, in each of which one fold is the test split.

    Within a repeat every labelled image is tested once; validation is cut from the other folds as in
    :func:`assign_splits`. The splits the manifest came with are set aside. Folds are stratified and grouped as there,
    repeat r draws with ``seed + r``. Raises ``UserError`` for fewer than two folds and for a class with fewer groups
    than folds.
    """
    if folds < 2 or repeats < 1:
        raise UserError(
            f"folds={folds}, repeats={repeats}", mend="cross-validation needs 2 folds or more, 1 repeat or more"
        )
    if not manifest.classes and not manifest.table["mask_path"].any():
        raise UserError(
            "no image has a label or a mask, so there is nothing to test", where=manifest.where, mend="add labels"
        )
    manifests = []
    for repeat in range(repeats):
        fold = deal_folds(manifest, folds, seed=seed + repeat, groups=groups)
        for number in range(folds):
            note = f"fold {number + 1} of {folds} is the test split" + (f", repeat {repeat + 1}" if repeats > 1 else "")
            tested = manifest.with_splits(np.where(fold == number, "test", ""), notes=[note])
            cut = assign_splits(tested, val_fraction=val_fraction, test_fraction=0, seed=seed + repeat, groups=groups)
            manifests.append(cut)
    return manifests


def deal_folds(manifest: Manifest, folds: int, *, seed: int, groups: Sequence[str] | None = None) -> np.ndarray:
    """The fold of each image, int64 [n] in 0..folds-1 (-1: an image without a label): stratified, groups kept whole.

    Raises ``UserError`` for a class with fewer groups than folds.
    """
    grouped = group_images(manifest, seed=seed, names=groups)
    everywhere = np.ones(len(grouped.counts), dtype=bool)
    _check_sizes(manifest, grouped, everywhere, least=folds, cuts=[count(folds, "fold")])
    targets = np.repeat(grouped.counts.sum(axis=0)[:, None] / folds, folds, axis=1)  # [C, folds]
    pile = deal(grouped.counts, grouped.order, targets=targets, least=np.ones(folds, dtype=np.int64))  # [G]
    fold: np.ndarray = pile[grouped.of]
    return fold


def group_images(manifest: Manifest, *, seed: int, names: Sequence[str] | None = None) -> Groups:
    """Group the images by ``names`` (default: ``patient_id``), in an order that the seed decides."""
    patients = manifest.table["patient_id"] if names is None else names
    columns = [column for column in ("image_path", "axis", "index", "frame") if column in manifest.table]
    images = manifest.table[columns].itertuples(index=False, name=None)
    keys = [f"group {name}" if name else f"image {image}" for name, image in zip(patients, images, strict=True)]
    unique, of = np.unique(np.array(keys, dtype=object), return_inverse=True)
    hashes = [hashlib.sha256(f"{seed} {key}".encode("utf-8", "surrogateescape")).digest() for key in unique]
    one_hot, classes = _one_hot(manifest)  # [n, C]
    counts = np.zeros((len(unique), len(classes)), dtype=np.int64)
    np.add.at(counts, of, one_hot)
    order = np.array(sorted(range(len(unique)), key=hashes.__getitem__), dtype=np.int64)
    return Groups(of=of, counts=counts, order=order, classes=classes)


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
        members = order[(pile[order] < 0) & (counts[order, rarest] > 0)]
        by_size = np.lexsort(
            (-counts[members].sum(axis=1), -counts[members, rarest])
        )  # stable: ties keep the hash's order
        for dealt, group in enumerate(members[by_size]):
            shortage = np.maximum(least - groups_on[rarest], 0)
            allowed = shortage > 0 if len(members) - dealt <= shortage.sum() else least >= 0
            share = np.where(allowed, lacking[rarest] / goal[rarest], -np.inf)
            overall = lacking.sum(axis=0) / goal.sum(axis=0)
            best = np.lexsort((-overall, -share))[0]
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


def _follow_group(given: np.ndarray, groups: Groups) -> np.ndarray:
    """Give unmarked images the split their group has; test before val before train, where it has several."""
    split = given.copy()
    for name in reversed(SPLITS):
        in_group = np.zeros(len(groups.counts), dtype=bool)
        in_group[groups.of[given == name]] = True
        split = np.where((split == "") & in_group[groups.of], name, split)
    return split


def _pool(split: np.ndarray, groups: Groups) -> np.ndarray:
    """The groups that may be cut, bool ``[G]``: no image of theirs is in val or test."""
    free = np.ones(len(groups.counts), dtype=bool)
    free[groups.of[(split == "val") | (split == "test")]] = False
    return free


def _check_sizes(manifest: Manifest, groups: Groups, pool: np.ndarray, *, least: int, cuts: Sequence[str]) -> None:
    number = (groups.counts[pool] > 0).sum(axis=0)  # [C]
    small = [f"'{groups.classes[c]}' has {number[c]}" for c in np.flatnonzero((number > 0) & (number < least))]
    if small and not manifest.multilabel:
        unit = "patients (or groups)" if len(groups.counts) < len(manifest) else "images"
        most = int(number[number > 0].min())
        fewer = f"deal at most {most} folds (--ensemble: {most + 1}), " if "folds" in cuts[-1] and most > 1 else ""
        raise UserError(
            f"too few {unit} in a class to cut {' and '.join(cuts)}: {some(small)}",
            where=manifest.where,
            mend=f"{fewer}give every class {least} {unit} or more, leave the class out, "
            "or write the splits into the manifest",
        )


def _cut_notes(name: str, split: np.ndarray, groups: Groups, *, seed: int) -> list[str]:
    inside = split == name
    whole = ", patients (or groups) kept whole" if len(groups.counts) < len(split) else ""
    notes = [
        f"{name} split: {count(int(inside.sum()), 'image')}, cut by chance, stratified by label{whole}, seed {seed}"
    ]
    has = groups.counts[np.unique(groups.of[inside])].sum(axis=0)  # [C]
    absent = [groups.classes[c] for c in np.flatnonzero((has == 0) & (groups.counts.sum(axis=0) > 0))]
    return [*notes, f"no image of {', '.join(absent)} in {name}"] if absent else notes


def _many_hot(manifest: Manifest) -> tuple[np.ndarray, tuple[str, ...]]:
    """As :func:`_one_hot`, for multi-label data: an image that shows none of the classes, as far as that is known
    (``?b;``), counts as one of a class of its own.

    Otherwise nothing would deal such images out, and all of them would train.
    """
    given = manifest.targets()
    targets = np.nan_to_num(given).astype(np.int64)  # [n, C]
    partly = ~np.isnan(given).all(axis=1) & ~targets.any(axis=1)
    none = partly | (manifest.table["label"].to_numpy() == NO_FINDING)
    if not none.any():
        return targets, manifest.classes
    return np.concatenate([targets, none[:, None].astype(np.int64)], axis=1), (*manifest.classes, "(no finding)")


def _one_hot(manifest: Manifest) -> tuple[np.ndarray, tuple[str, ...]]:
    """0/1 int64 ``[n, C]``, zeros where there is no label, and the classes' names.

    Where no image has a label, those with a mask are one class.
    """
    if manifest.multilabel:
        return _many_hot(manifest)
    if manifest.classes:
        return (manifest.targets()[:, None] == np.arange(len(manifest.classes))).astype(np.int64), manifest.classes
    masked = manifest.table["mask_path"].to_numpy() != ""
    return masked[:, None][:, : int(masked.any())].astype(np.int64), ("masked",)[: int(masked.any())]
