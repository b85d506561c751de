"""A manifest of volumes -> a manifest of the channel that is meant, and of their two-dimensional slices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import pandas as pd

from msmae.data.manifest import Manifest, plain
from msmae.data.tables.listing import count, left_out, some
from msmae.errors import UserError

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis a cut goes across: left-right, back-front, feet-head."""


def choose_channel(manifest: Manifest, channel: str) -> Manifest:
    """The volumes of one channel, where a case has a file a channel: ``x_flair.nii.gz``, ``x_t1ce.nii.gz``.

    Without ``channel`` every file stays an image of its own, and the rule ``channels`` says so; one that no file is
    named after leaves the manifest as it is.
    """
    found = _channels(manifest.table["image_path"].tolist())
    names = sorted(set(found.values()))
    if not names:
        return manifest
    if not manifest.table["patient_id"].any():  # the channels of a case are of one patient
        patients = {path: path.partition(".nii")[0][: -len(name) - 1] for path, name in found.items()}
        cells = [plain(patients.get(path, "")) for path in manifest.table["image_path"]]
        manifest = manifest.with_columns({"patient_id": cells}, rules={"patient_id": "the case, of several channels"})
    if not channel:
        told = f"{some(names, at_most=8)}, by the ends of the names: each an image of its own"
        return manifest.with_columns({}, rules={"channels": told})
    wanted = [name for name in names if name.casefold() == channel.casefold()]
    if not wanted:
        return manifest
    kept = [row for row, path in enumerate(manifest.table["image_path"]) if found.get(path) == wanted[0]]
    others = len(manifest) - len(kept)
    notes = left_out(others, "image", f"of another channel than {wanted[0]} ({some(names, at_most=8)})")
    return manifest.select(kept).with_columns({}, notes=notes, rules={"channels": f"{wanted[0]}, as told"})


def _channels(paths: Sequence[str]) -> dict[str, str]:
    """Volume -> its channel: what its name has behind the beginning that it shares with the others of its case; empty
    where most cases do not have the same two or more."""
    volumes = [path for path in paths if path.lower().endswith((".nii", ".nii.gz"))]
    ends = {path: re.fullmatch(r"(.*)[_-]([^_/-]+)", path.partition(".nii")[0]) for path in volumes}
    cases: dict[str, set[str]] = {}
    for match in ends.values():
        if match:
            cases.setdefault(match[1], set()).add(match[2])
    if not cases or len(cases) < 2:
        return {}
    usual, number = Counter(frozenset(names) for names in cases.values()).most_common(1)[0]
    if len(usual) < 2 or 2 * number <= len(cases) or any(re.fullmatch(r"(?:frame|slice|\d{3,})\d*", x) for x in usual):
        return {}
    return {path: match[2] for path, match in ends.items() if match and cases[match[1]] <= usual}


def expand_slices(manifest: Manifest, *, slices: str, channel: str = "") -> Manifest:
    """Give every NIfTI volume a row a slice, with the columns ``axis`` and ``index`` (and ``frame`` where it is 4-D).

    ``slices`` is ``axial``, ``coronal`` or ``sagittal``; ``axial:5`` takes every fifth slice, each from the middle of
    its five; ``channel``, a number from 0, takes that one of 4-D volumes alone. Other images, and rows that name their
    slice, stay as they are. A volume without ``patient_id`` becomes its own patient, so that its slices stay together:
    by its name, or where several are called alike by its path. Only headers are read. Raises ``UserError`` for another
    ``slices``, where no volume is to be cut, for a file that is no volume, and for a channel that is not there.
    """
    from msmae.data.reading.volumes import is_nifti, volume_shape

    axis, step = _parse(slices)
    table = manifest.table
    named = _by_path(path for path in table["image_path"] if path.lower().endswith((".nii", ".nii.gz")))
    rows: list[dict[str, str]] = []
    volumes, most = 0, 1
    for sample, row in enumerate(table.to_dict("records")):
        cells = {str(name): str(cell) for name, cell in row.items()}
        if cells.get("index") or not is_nifti(manifest.path(sample)):
            rows.append(cells)
            continue
        *sides, frames = volume_shape(manifest.path(sample))
        volumes += 1
        cells["patient_id"] = cells["patient_id"] or named[cells["image_path"]]
        several = [str(number) for number in range(frames)] if frames > 1 else [cells.get("frame", "")]
        most = max(most, frames)
        if channel.isdigit() and frames > 1:
            several = _one_of(several, channel, where=cells["image_path"])
        for frame in several:
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
    rules = {"patient_id": rule}
    if most > 1:
        each = f"{int(channel)}, as told" if channel.isdigit() else "each an image of its own"
        rules["channels"] = f"up to {most} of each 4-D volume: {each}"
    return manifest.with_table(pd.DataFrame(rows, dtype=object), notes=[note], rules=rules)


def _one_of(channels: list[str], wanted: str, *, where: str) -> list[str]:
    number = str(int(wanted))
    if number not in channels:
        raise UserError(
            f"there is no channel {number}: there are {len(channels)}, from 0", where=where, mend="name one"
        )
    return [number]


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
