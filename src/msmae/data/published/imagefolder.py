"""Hugging Face's image folder: a ``metadata.csv`` beside the images, with a column ``file_name``.

There may be one in each of ``train``, ``validation`` and ``test``; paths are relative to the file.
"""

from __future__ import annotations

import posixpath
from dataclasses import asdict, replace

import pandas as pd

from msmae.data.listing import Listing
from msmae.data.manifest import COLUMNS, Manifest
from msmae.data.tables import SPLIT_NAMES, ColumnNames, find_tables, manifest_from_table, read_table, same_names
from msmae.errors import UserError

IMAGE = "file_name"


def recognise(listing: Listing) -> str:
    """``metadata.csv`` with a column file_name."""
    found = _tables(listing)
    return f"{found[0]} with the column {IMAGE}" if found else ""


def read(listing: Listing, *, columns: ColumnNames) -> Manifest:
    """A row a line of metadata; labels from its label column, or else from class folders, or none.

    Raises ``UserError`` as for any table: a column asked for that is not there (in any of several tables), missing
    files, rows that differ.
    """
    sources = _tables(listing)
    if not sources:
        raise UserError(
            f"there is no metadata.csv with a column {IMAGE}", where=str(listing.root), mend="check the path"
        )
    parts = [_read(listing, source, columns) for source in sources]
    _check_asked([part for part, _ in parts], sources, columns, root=str(listing.root))
    table = pd.concat([part for part, _ in parts], ignore_index=True).fillna("")
    notes = list(dict.fromkeys(note for _, told in parts for note in told))
    if columns.label == ColumnNames.label and columns.label not in table:
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


def _check_asked(tables: list[pd.DataFrame], sources: list[str], columns: ColumnNames, *, root: str) -> None:
    """Raise ``UserError`` where a column of the user's own naming is in some of the tables only."""
    own = [name for column, name in asdict(columns).items() if name and name != column and column != "image_path"]
    for name in (name for name in own if any(name in table for table in tables)):
        for table, source in zip(tables, sources, strict=True):
            if name not in table:
                there = ", ".join(map(str, table))
                raise UserError(
                    f"there is no column '{name}' here, as in the other tables; the columns are {there}",
                    where=f"{root}/{source}",
                    mend="give it the same name in each",
                )


def _tables(listing: Listing) -> list[str]:
    return find_tables(listing, r"metadata\.csv", (IMAGE,), loosely=True)


def _read(listing: Listing, source: str, columns: ColumnNames) -> tuple[pd.DataFrame, list[str]]:
    """One table under the usual names of its columns, so that several can be joined; and what was written otherwise."""
    table, _ = read_table(listing.root / source, expect=IMAGE)
    asked = asdict(columns)
    usual = {IMAGE: "image_path"} | {name: name for name in COLUMNS if asked[name] == name and name != "image_path"}
    found = {name: same_names(name, table.columns) for name in usual if name not in table}
    renamed = {alike[0]: name for name, alike in found.items() if len(alike) == 1}  # of two, it is asked which
    notes = [f"the column '{written}' is taken for the {usual[name]}" for written, name in renamed.items()]
    table = table.rename(columns=renamed)
    folder = posixpath.dirname(source)
    for column in {IMAGE, columns.mask_path} & set(table.columns):
        table[column] = [cell and posixpath.join(folder, cell) for cell in table[column]]
    split = next((SPLIT_NAMES[part] for part in folder.lower().split("/") if part in SPLIT_NAMES), "")
    given = not split or columns.split in table
    return (table if given else table.assign(**{columns.split: split})), notes
