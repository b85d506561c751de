"""The images behind the counts of an audit, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from msmae.data.audit.columns import Columns
from msmae.data.audit.counts import conflicts, label_conflicts, leaking_copies
from msmae.data.audit.duplicates import Duplicates
from msmae.data.audit.fingerprints import Fingerprints
from msmae.data.copies import ALIKE, COPIED
from msmae.data.manifest import Manifest, printable

NEAREST = 1000  # near pairs that are listed; masses of near-equal images have more


def list_details(
    manifest: Manifest, prints: Fingerprints, duplicates: Duplicates, columns: Columns
) -> dict[str, list[Any]]:
    """Every image that the counts of an audit speak of; of the near pairs, the ``NEAREST`` nearest."""
    identical, near = leaking_copies(columns, duplicates)
    closest = duplicates.near[np.argsort(duplicates.near[:, 2], kind="stable")[:NEAREST]]
    ends = duplicates.first[closest[:, :2]].tolist()

    def names(samples: Iterable[int]) -> list[str]:
        return [name_image(manifest, sample) for sample in samples]

    def reasons(why: dict[int, str]) -> list[list[str]]:
        return [[name_image(manifest, sample), printable(reason)] for sample, reason in why.items()]

    return {
        "unreadable": reasons(prints.problems),
        "constant": names(np.flatnonzero(prints.readable & prints.record["constant"])),
        "identical": [names(rows) for rows in duplicates.repeated()],
        "near": [[*names(pair), bits] for pair, bits in zip(ends, closest[:, 2].tolist(), strict=True)],
        "label_conflicts": [
            [[name_image(manifest, row), columns.labels[row]] for row in rows]
            for rows in label_conflicts(columns.labels, duplicates)
        ],
        "patient_conflicts": [names(rows) for rows in conflicts(columns.patients, duplicates)],
        "test_identical_to_pool": names(np.flatnonzero(identical)),
        "test_near_pool": names(np.flatnonzero(near)),
        "test_copies_in_pool": names(np.flatnonzero(columns.clustered_with_pool(COPIED))),
        "test_named_like_pool": names(np.flatnonzero(columns.clustered_with_pool(ALIKE))),
        "patients_crossing": [printable(patient) for patient in columns.crossing],
        "mask_problems": reasons(prints.mask_problems),
        "other_numbers": reasons(prints.other_numbers()),
        "channels": [list(row) for row in sorted(Counter(prints.record["channels"][prints.readable].tolist()).items())],
    }


def name_image(manifest: Manifest, sample: int) -> str:
    """An image's path in the manifest, and its plane where it is one of several in a file."""
    table = manifest.table
    cells = {column: str(table.at[sample, column]) for column in ("axis", "index", "frame") if column in table}
    plane = [f"{column}={cell}" for column, cell in cells.items() if cell]
    return " ".join([printable(str(table.at[sample, "image_path"])), *plane])
