"""A manifest of volumes -> a manifest of their two-dimensional slices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import pandas as pd

from msmae.data.manifest import Manifest, plain
from msmae.data.tables.listing import count
from msmae.errors import UserError

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis a cut goes across: left-right, back-front, feet-head."""


def expand_slices(manifest: Manifest, *, slices: str) -> Manifest:
    """Give every NIfTI volume a row a slice, with the columns ``axis`` and ``index`` (and ``frame`` where it is 4-D).

    ``slices`` is ``axial``, ``coronal`` or ``sagittal``; ``axial:5`` takes every fifth slice, each from the middle of
    its five. Other images, and rows that name their slice, stay as they are. A volume without ``patient_id`` becomes
    its own patient, so that its slices stay together: by its name, or where several are called alike by its path. Only
    headers are read. Raises ``UserError`` for another ``slices``, where no volume is to be cut, and for a file that is
    no volume.
    """
    from msmae.data.reading.volumes import is_nifti, volume_shape

    axis, step = _parse(slices)
    table = manifest.table
    named = _by_path(path for path in table["image_path"] if path.lower().endswith((".nii", ".nii.gz")))
    rows: list[dict[str, str]] = []
    volumes = 0
    for sample, row in enumerate(table.to_dict("records")):
        cells = {str(name): str(cell) for name, cell in row.items()}
        if cells.get("index") or not is_nifti(manifest.path(sample)):
            rows.append(cells)
            continue
        *sides, frames = volume_shape(manifest.path(sample))
        volumes += 1
        cells["patient_id"] = cells["patient_id"] or named[cells["image_path"]]
        for frame in [str(number) for number in range(frames)] if frames > 1 else [cells.get("frame", "")]:
            for index in range(min(step // 2, sides[axis] - 1), sides[axis], step):
                rows.append(cells | {"axis": str(axis), "index": str(index), "frame": frame})
    if not volumes:
        raise UserError(
            f"--slices {slices} has no effect: no image is a NIfTI volume to be cut",
            where=manifest.where,
            mend="leave it out",
        )
    note = f"{count(volumes, 'volume')} cut into {count(len(rows) - len(table) + volumes, 'slice')} ({slices})"
    rule = manifest.rules.get("patient_id") or "the volume (its name, or its path where names occur twice)"
    return manifest.with_table(pd.DataFrame(rows, dtype=object), notes=[note], rules={"patient_id": rule})


def _by_path(paths: Iterable[str]) -> dict[str, str]:
    """Volume -> its name without suffix; with its folders where names occur twice (``AD/000``, ``CN/000``)."""
    stems = {path: plain(path.partition(".nii")[0]) for path in paths}
    names = {path: PurePosixPath(stem).name for path, stem in stems.items()}
    return names if len(set(names.values())) == len(names) else stems


def _parse(slices: str) -> tuple[int, int]:
    name, colon, step = slices.partition(":")
    if name not in AXES or (colon and not (step.isascii() and step.isdigit() and int(step) > 0)):
        raise UserError(f"slices='{slices}' is not known", mend=f"say {', '.join(AXES)}, or axial:5 for every fifth")
    return AXES[name], int(step or 1)
