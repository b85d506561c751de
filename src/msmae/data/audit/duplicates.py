"""Which images are the same picture, which nearly, and what must therefore stay on one side of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msmae.data.audit.fingerprints import Fingerprints
from msmae.data.audit.neighbours import FARTHEST, near_pairs
from msmae.data.audit.threshold import Threshold, choose_threshold, given_threshold
from msmae.data.manifest import Manifest
from msmae.errors import UserError

NEAR = "near-"
"""How the names of clusters begin."""


@dataclass(frozen=True)
class Duplicates:
    """Pictures and what lies near them. A *picture* is what images with identical pixels have in common.

    ``picture`` int64 [n]: the number of each image's picture, -1 where it cannot be read; ``first`` int64 [P]: the
    first sample id that shows each picture; ``near`` int64 [m, 3]: pairs of near-identical pictures and their distance
    in bits (images of one colour are like too many others to be counted); ``threshold``: what counted as near;
    ``crowded``: there were masses of near-equal pictures, and not all pairs of them were compared.
    """

    picture: np.ndarray
    first: np.ndarray
    near: np.ndarray
    threshold: Threshold
    crowded: bool

    @cached_property
    def copies(self) -> np.ndarray:
        """How many images show each picture: int64 [P]."""
        return np.bincount(self.picture[self.picture >= 0], minlength=len(self.first))

    def repeated(self) -> list[np.ndarray]:
        """The sample ids of every picture shown more than once, the most frequent first."""
        order = np.argsort(self.picture, kind="stable")
        ends = np.cumsum(self.copies) + (self.picture < 0).sum()
        several = sorted(np.flatnonzero(self.copies > 1), key=lambda picture: (-self.copies[picture], picture))
        return [order[ends[picture] - self.copies[picture] : ends[picture]] for picture in several]

    def show(self, images: np.ndarray) -> np.ndarray:
        """Which pictures occur among these images (bool [n]): bool [P]."""
        shown = np.zeros(len(self.first), dtype=bool)
        shown[self.picture[images & (self.picture >= 0)]] = True
        return shown

    def first_among(self, images: np.ndarray) -> np.ndarray:
        """For each picture the first of these images (bool [n]) that shows it: int64 [P], -1 where none does."""
        first = np.full(len(self.first), -1)
        rows = np.flatnonzero(images & (self.picture >= 0))[::-1]
        first[self.picture[rows]] = rows
        return first

    def near_to(self, pictures: np.ndarray) -> np.ndarray:
        """Which pictures have a near one among these (bool [P]): bool [P]."""
        close = np.zeros(len(self.first), dtype=bool)
        close[self.near[pictures[self.near[:, 1]], 0]] = True
        close[self.near[pictures[self.near[:, 0]], 1]] = True
        return close

    def of_images(self, pictures: np.ndarray) -> np.ndarray:
        """Which images show one of these pictures (bool [P]): bool [n]."""
        return np.asarray(np.append(pictures, False)[self.picture])  # -1, an unreadable image, shows none


def check_near_bits(near_bits: int | None) -> None:
    """Raise ``UserError`` for a distance that is none."""
    if near_bits is not None and not 0 <= near_bits <= FARTHEST:
        mend = f"give a number of bits from 0 to {FARTHEST}, or leave it out"
        raise UserError(f"near_bits is {near_bits}", where="--near-bits", mend=mend)


def find_duplicates(prints: Fingerprints, *, near_bits: int | None = None) -> Duplicates:
    """Find identical and near-identical images.

    ``near_bits`` sets the distance up to which two pictures are near, 0 to 15 of 256 bits; by default the data decides
    (see ``choose_threshold``). Raises UserError for any other number.
    """
    check_near_bits(near_bits)
    readable = np.flatnonzero(prints.readable)
    picture = np.full(len(prints), -1)
    _, at, numbers = np.unique(prints.record["digest"][readable], axis=0, return_index=True, return_inverse=True)
    picture[readable] = numbers.ravel()
    first = readable[at]
    telling = np.flatnonzero(~prints.record["constant"][first])
    hashes = prints.record["hash"][first[telling]]
    if near_bits is None:
        threshold = choose_threshold(hashes, prints.record["resaved"][readable])
    else:
        threshold = given_threshold(near_bits)
    if threshold.bits < 0:
        return Duplicates(picture, first, np.empty((0, 3), np.int64), threshold, crowded=False)
    near, crowded = near_pairs(hashes, within=threshold.bits)
    near[:, :2] = telling[near[:, :2]]
    return Duplicates(picture, first, near, threshold, crowded)


def clusters(
    duplicates: Duplicates, *, patients: np.ndarray | None = None, others: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """The number of each image's cluster, int64 [n]: joined by identical pixels, by nearness and, if given, by patient.

    ``patients`` [n], and each of ``others``, are names, ``""`` where unknown.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, pictures = len(duplicates.picture), len(duplicates.first)
    shown = np.flatnonzero(duplicates.picture >= 0)
    links = [np.stack([shown, n + duplicates.picture[shown]]), n + duplicates.near[:, :2].T]
    nodes = n + pictures
    for given in (*([] if patients is None else [patients]), *others):
        known = np.flatnonzero(given != "")
        names, numbers = np.unique(given[known].astype(str), return_inverse=True)
        links.append(np.stack([known, nodes + numbers]))
        nodes += len(names)
    ends = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(ends.shape[1], dtype=bool), (ends[0], ends[1])), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    return np.asarray(np.unique(component[:n], return_inverse=True)[1], dtype=np.int64)


def keep_together(manifest: Manifest, duplicates: Duplicates, prints: Fingerprints) -> list[str]:
    """The groups no split may part [n], for ``assign_splits(groups=...)``; ``""`` for an image that stands alone.

    Images of a patient, of a cluster that the manifest names (or a fold, where no patient is known), and everything
    identical or near-identical to one of them. A group with one patient in it is
    named after him, so that data without duplicates is split as by patient alone; another by its smallest digest, so
    that the name depends on the images and not on their order.
    """
    patients = manifest.table["patient_id"].to_numpy()
    of = clusters(duplicates, patients=patients, others=_named_groups(manifest))
    members: dict[int, list[int]] = {}
    for sample, cluster in enumerate(of.tolist()):
        members.setdefault(cluster, []).append(sample)
    names = [""] * len(of)
    for samples in members.values():
        inside = {patients[sample] for sample in samples} - {""}
        if len(inside) != 1 and len(samples) == 1:
            continue
        name = inside.pop() if len(inside) == 1 else f"{NEAR}{_smallest_digest(prints, samples)}"
        for sample in samples:
            names[sample] = name
    return names


def _named_groups(manifest: Manifest) -> list[np.ndarray]:
    """What else the manifest says belongs together, text [n] each: its clusters (``msmae check --repair`` names them),
    and its folds where no image names a patient and there are three or more."""
    table = manifest.table
    found = [table["cluster"].to_numpy()] if "cluster" in table else []
    if not table["patient_id"].any() and "fold" in table and len(set(table["fold"]) - {""}) >= 3:
        found.append(table["fold"].to_numpy())
    return found


def _smallest_digest(prints: Fingerprints, samples: list[int]) -> str:
    digests: list[str] = [prints.record["digest"][sample].tobytes().hex() for sample in samples]
    return min(digests)[:12]
