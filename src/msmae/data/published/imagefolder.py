"""Hugging Face's image folder: a ``metadata.csv`` beside the images, with a column ``file_name``.

There may be one in each of ``train``, ``validation`` and ``test``; paths are relative to the file.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace

import pandas as pd

from msmae.data.listing import Listing
from msmae.data.manifest import Manifest
from msmae.data.tables import SPLIT_NAMES, ColumnNames, find_tables, manifest_from_table, read_table, same_names
from msmae.errors import UserError

IMAGE = "file_name"


def recognise(listing: Listing) -> str:
    """``metadata.csv`` with a column file_name."""
    found = _tables(listing)
    return f"{found[0]} with the column {IMAGE}" if found else ""


def read(listing: Listing, *, columns: ColumnNames) -> Manifest:
    """A row a line of metadata; labels from its label column, or else from class folders, or none.

    Raises ``UserError`` as for any table: a column asked for that is not there, missing files, rows that differ.
    """
    sources = _tables(listing)
    if not sources:
        raise UserError(
            f"there is no metadata.csv with a column {IMAGE}", where=str(listing.root), mend="check the path"
        )
    table = pd.concat([_read(listing, source, columns) for source in sources], ignore_index=True).fillna("")
    notes = []
    if columns.label == ColumnNames.label and not same_names(columns.label, table.columns):
        there = ", ".join(table.columns)
        folders = [posixpath.dirname(path).rpartition("/")[2] for path in table[IMAGE]]
        classes = ["" if name.lower() in SPLIT_NAMES else name for name in folders]
        table["label"] = classes if len(set(classes)) > 1 else ""
        origin = "labels are the folders" if table["label"].any() else "no image has a label"
        notes.append(f"the metadata has no column '{columns.label}', only {there}: {origin}")
    return manifest_from_table(
        table,
        root=listing.root,
        columns=replace(columns, image_path=IMAGE),
        where=f"{listing.root}/{sources[0]}",
        layout="imagefolder",
        notes=notes,
    )


def _tables(listing: Listing) -> list[str]:
    return find_tables(listing, r"metadata\.csv", (IMAGE,))


def _read(listing: Listing, source: str, columns: ColumnNames) -> pd.DataFrame:
    table, _ = read_table(listing.root / source, expect=IMAGE)
    folder = posixpath.dirname(source)
    for column in {IMAGE, *same_names(columns.mask_path, table.columns)} & set(table.columns):
        table[column] = [cell and posixpath.join(folder, cell) for cell in table[column]]
    split = next((SPLIT_NAMES[part] for part in folder.lower().split("/") if part in SPLIT_NAMES), "")
    return table if not split or same_names(columns.split, table.columns) else table.assign(**{columns.split: split})
