"""How a data set differs from what it was, in a sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msmae.data.manifest import AS_GIVEN, Manifest, join_mask, printable
from msmae.data.tables.listing import count, some

PLANE = ("axis", "index", "frame")
Key = tuple[str, ...]
Row = dict[str, str]


def describe_changes(before: Manifest, after: Manifest) -> str:
    """What images are new or gone, and which columns of the others have other cells; ``""`` where all is the same.

    Images are told by where they lie, so that a manifest equals the copy of it that was written into another folder.
    """
    return "; ".join(_changes(_rows(before), _rows(after)))


def _changes(old: dict[Key, Row], new: dict[Key, Row]) -> Iterator[str]:
    for keys, word in ((new.keys() - old.keys(), "new"), (old.keys() - new.keys(), "gone")):
        if keys:
            yield f"{count(len(keys), 'image')} {word} ({_names(keys)})"
    shared = old.keys() & new.keys()
    columns = dict.fromkeys(column for rows in (old, new) for row in rows.values() for column in row)
    for column in columns:
        other = {key for key in shared if old[key].get(column, "") != new[key].get(column, "")}
        if other:
            yield f"{count(len(other), 'image')} with another {column} ({_names(other)})"
    if old.keys() == new.keys() and list(old) != list(new):
        yield "the images are in another order"


def _rows(manifest: Manifest) -> dict[Key, Row]:
    """Where each image lies, and which plane of the file it is -> its other cells, masks by where they lie."""
    rows: dict[Key, Row] = {}
    for sample, cells in enumerate(manifest.table.to_dict("records")):
        masks = ";".join(join_mask(name, os.path.abspath(path)) for name, path in manifest.masks(sample))
        key = (os.path.abspath(manifest.path(sample)), *(str(cells.get(column, "")) for column in PLANE))
        del cells["image_path"]
        cells.pop(AS_GIVEN, None)
        rows[key] = {str(column): str(cell) for column, cell in cells.items()} | {"mask_path": masks}
    return rows


def _names(keys: set[Key]) -> str:
    return some([printable(" ".join(filter(None, key))) for key in sorted(keys)], at_most=3)
