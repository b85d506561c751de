"""Whether test images are known from what a model learned from: its own data set's other images, or other data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msmae.config import Settings
from msmae.data.audit.columns import Columns
from msmae.data.audit.counts import count_leakage, leaking_copies
from msmae.data.audit.details import name_image
from msmae.data.audit.duplicates import find_duplicates
from msmae.data.audit.findings import Audit, audit
from msmae.data.audit.fingerprints import Fingerprints
from msmae.data.manifest import Manifest
from msmae.data.opening import fingerprints
from msmae.data.spellings import in_one_spelling


@dataclass(frozen=True)
class Pool:
    """Another data set that a model learned from: all of its images but those of its test split.

    ``related_only``: the same patient's name means the same person only where the two data sets share pictures or a
    folder; otherwise it always does.
    """

    manifest: Manifest
    settings: Settings
    related_only: bool = False

    @property
    def learned(self) -> np.ndarray:
        """The sample ids that are not test: int64."""
        return np.flatnonzero(self.manifest.table["split"] != "test")


def audit_against(manifest: Manifest, pools: Sequence[Pool] = (), *, settings: Settings, source: str) -> Audit:
    """Audit a data set as it is divided, its test images held against a pool that must not know them.

    Without ``pools`` the pool is the data set's own images that are not test; with them it is theirs, and the fields of
    the audit that speak of leakage speak of them alone. ``source`` is what DATA was.
    """
    found = audit(manifest, prints=fingerprints(manifest, settings), source=source)
    return replace(found, **known_from(manifest, pools, settings=settings, details=found.details)) if pools else found


def known_from(
    manifest: Manifest, pools: Sequence[Pool], *, settings: Settings, details: dict[str, list[Any]] | None = None
) -> dict[str, Any]:
    """The fields of ``Audit`` that say which test images the pools know, by pixels, nearly, or by their patient."""
    prints = fingerprints(manifest, settings)
    test = np.flatnonzero(manifest.table["split"] == "test")
    columns, seen = [], []
    for pool in pools:
        theirs = fingerprints(pool.manifest, pool.settings)
        patients = not pool.related_only or _related(manifest, prints, pool.manifest, theirs)
        columns.append(_columns(pool.manifest.select(pool.learned), split="train", patients=patients))
        seen.append(theirs.select(pool.learned))
    joined = Columns(
        *(np.concatenate(cells) for cells in zip(*columns, _columns(manifest.select(test), split="test"), strict=True))
    )
    joined = replace(joined, patients=np.array(in_one_spelling(joined.patients.tolist())[0], dtype=object))
    duplicates = find_duplicates(Fingerprints.join([*seen, prints.select(test)]))
    counts = {
        name: value
        for name, value in count_leakage(joined, duplicates).items()
        if name not in ("val_identical_to_train", "patients_crossing")  # these are of one data set
    }
    known = sum(map(len, seen))
    named = {
        name: [name_image(manifest, test[row - known]) for row in np.flatnonzero(rows)]
        for name, rows in zip(
            ("test_identical_to_pool", "test_near_pool"), leaking_copies(joined, duplicates), strict=True
        )
    }
    return {**counts, "details": {**(details or {}), **named}}


def folders_of(manifest: Manifest) -> set[Path]:
    """The folders that the images of a data set lie in; of a link, the folder of what it leads to."""
    files = [manifest.path(i) for i in range(len(manifest))]
    folders = {(file.resolve() if file.is_symlink() else file).parent for file in files}
    return {folder.resolve() for folder in folders}


def digests_of(prints: Fingerprints) -> set[bytes]:
    """What names the decoded pixels of the images that can be read."""
    return {row.tobytes() for row in prints.record["digest"][prints.readable]}


def _related(manifest: Manifest, prints: Fingerprints, other: Manifest, theirs: Fingerprints) -> bool:
    return bool(digests_of(prints) & digests_of(theirs)) or bool(folders_of(manifest) & folders_of(other))


def _columns(manifest: Manifest, *, split: str, patients: bool = True) -> tuple[np.ndarray, ...]:
    """What ``Columns`` has, all of one split, and no cluster; without patients, none is named."""
    own = Columns.of(manifest)
    unnamed, splits = (np.full(len(manifest), text) for text in ("", split))
    return own.labels, own.patients if patients else unnamed, splits, np.full(len(manifest), "")
