"""From a data set that leaks to one that does not: every picture once, what belongs together kept together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from msmae.data.audit.columns import Columns
from msmae.data.audit.counts import label_conflicts
from msmae.data.audit.details import name_image
from msmae.data.audit.duplicates import NEAR, Duplicates, find_duplicates, keep_together
from msmae.data.audit.fingerprints import Fingerprints
from msmae.data.manifest import UNSURE, Manifest
from msmae.data.splits import assign_splits
from msmae.data.tables.listing import count
from msmae.errors import UserError
from msmae.files import fill_csv, whole

REASONS = (
    "cannot be read",
    "of one colour",
    "the same pixels with different labels",
    "the same pixels as another image",
)


@dataclass(frozen=True)
class Repair:
    """``manifest`` is the clean one, ``kept`` int64 [m] its images' sample ids in the old one.

    ``left_out`` sample id -> why (one of ``REASONS``), ``without_mask`` the ids of those that lost an unreadable mask.
    """

    manifest: Manifest
    kept: np.ndarray
    left_out: dict[int, str]
    without_mask: tuple[int, ...]

    def write(self, csv_path: Path, *, original: Manifest) -> None:
        """Write the clean manifest, and beside it ``<name>.left-out.csv`` with every image left out, and why."""
        self.manifest.write(csv_path)
        rows = [[name_image(original, sample), reason] for sample, reason in self.left_out.items()]
        with whole(left_out_path(csv_path)) as unfinished:
            fill_csv(unfinished, pd.DataFrame(rows, columns=["image_path", "reason"]))


def left_out_path(csv_path: Path) -> Path:
    """Where ``Repair.write`` lists what was left out."""
    return csv_path.with_name(f"{csv_path.stem}.left-out.csv")


def repair(
    manifest: Manifest,
    prints: Fingerprints,
    duplicates: Duplicates,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Repair:
    """Leave out what misleads, and split the rest anew, stratified by label.

    Left out are images that cannot be read, images of one colour, every copy of a picture whose labels contradict one
    another (nobody knows which is right), and all copies but one of any other picture: the one that says most (label,
    patient, mask) stays; of partly known labels, that of which most is known. A column ``cluster`` names what no split
    parts: a patient's images, and whatever is identical or nearly identical to one of them, be it through an image that
    was left out; a cluster is no patient, and stands in no ``patient_id``. Old splits are dropped.

    Raises UserError where nothing is left, or a class is too small to be split.
    """
    columns = Columns.of(manifest)
    left_out = _left_out(manifest, columns, prints, duplicates)
    kept = np.array([sample for sample in range(len(manifest)) if sample not in left_out], dtype=np.int64)
    if len(kept) == 0:
        raise UserError("no image is left after the repair", where=manifest.where, mend="see the audit for why")
    generous = find_duplicates(prints, near_bits=duplicates.threshold.widest)
    groups = _of_several(np.array(keep_together(manifest, generous, prints), dtype=object)[kept])
    clean = manifest.select(kept)
    without_mask = tuple(sample for sample in sorted(prints.mask_problems) if sample not in left_out)
    usable = ~np.isin(kept, without_mask)
    new = {
        "split": np.full(len(kept), "", dtype=object),
        "cluster": groups,
        "mask_path": np.where(usable, clean.table["mask_path"].to_numpy(dtype=object), ""),
    }
    notes = _notes(left_out, without_mask, groups)
    clean = assign_splits(
        clean.with_columns(new, notes=notes),
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        groups=groups.tolist(),
    )
    return Repair(clean, kept, left_out, without_mask)


def _left_out(manifest: Manifest, columns: Columns, prints: Fingerprints, duplicates: Duplicates) -> dict[int, str]:
    """Sample id -> why it does not stay, in the order of the ids."""
    unreadable, constant, conflict, copy = REASONS
    why: dict[int, str] = {}
    masks = manifest.table["mask_path"].to_numpy(dtype=object)
    unsure = np.array([label.count(UNSURE) for label in columns.labels])
    for rows in duplicates.repeated():
        labelled, named, masked = (column[rows] != "" for column in (columns.labels, columns.patients, masks))
        best = rows[np.lexsort((rows, ~masked, ~named, unsure[rows], ~labelled))[0]]
        why |= {int(row): copy for row in rows if row != best}
    why |= {int(row): conflict for rows in label_conflicts(columns.labels, duplicates) for row in rows}
    why |= {int(row): constant for row in np.flatnonzero(prints.readable & prints.record["constant"])}
    why |= dict.fromkeys(prints.problems, unreadable)
    return dict(sorted(why.items()))


def _of_several(groups: np.ndarray) -> np.ndarray:
    """The names of groups [m] without those of clusters of which one image is left."""
    names, numbers, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    alone = (sizes == 1) & np.char.startswith(names, NEAR)
    return np.where(alone[numbers], "", groups)


def _notes(left_out: dict[int, str], without_mask: Sequence[int], groups: np.ndarray) -> list[str]:
    reasons = list(left_out.values())
    notes = [f"{count(reasons.count(why), 'image')} left out: {why}" for why in REASONS if why in reasons]
    if without_mask:
        notes.append(f"{count(len(without_mask), 'image')} kept without the mask, which cannot be read")
    near = len({group for group in groups if group.startswith(NEAR)})
    notes.append(f"{count(near, 'cluster')} of near-identical images kept whole, named in the column cluster")
    return notes
