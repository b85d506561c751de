"""Hugging Face's image folder: a ``metadata.csv`` beside the images, with a column ``file_name``.

There may be one in each of ``train``, ``validation`` and ``test``; paths are relative to the file.
"""

from __future__ import annotations

import posixpath
from dataclasses import asdict, replace

import pandas as pd

from msmae.data.manifest import COLUMNS, Manifest
from msmae.data.tables.listing import Listing
from msmae.data.tables.roles import SPLIT_NAMES
from msmae.data.tables.tables import ColumnNames, find_tables, manifest_from_table, read_table, same_names
from msmae.errors import UserError

IMAGE = "file_name"


def recognise(listing: Listing) -> str:
    """``metadata.csv`` with a column file_name."""
    found = _tables(listing)
    return f"{found[0]} with the column {IMAGE}" if found else ""


def read(listing: Listing, *, columns: ColumnNames) -> Manifest:
    """A row a line of metadata; labels from its label column, or else from class folders, or none.

    Raises ``UserError`` as for any table: a column asked for that is not there, or is called otherwise in one of
    several tables, missing files, rows that differ.
    """
    sources = _tables(listing)
    if not sources:
        raise UserError(
            f"there is no metadata.csv with a column {IMAGE}", where=str(listing.root), mend="check the path"
        )
    parts = [_read(listing, source, columns) for source in sources]
    notes = list(dict.fromkeys(note for _, told in parts for note in told))
    notes += _compared({source: part for source, (part, _) in zip(sources, parts, strict=True)}, columns, listing)
    divided = [_in_split(part, source, columns) for source, (part, _) in zip(sources, parts, strict=True)]
    table = pd.concat(divided, ignore_index=True).fillna("")
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


def _compared(tables: dict[str, pd.DataFrame], columns: ColumnNames, listing: Listing) -> list[str]:
    """What should be known of columns that some of the tables have, and others do not.

    Raises ``UserError`` where another column of such a table may be meant: its cells would be taken for empty.
    """
    notes = []
    for column in COLUMNS:
        name = getattr(columns, column)
        lacking = [source for source, table in tables.items() if name not in table]
        if column in ("image_path", "split") or not name or len(lacking) == len(tables):
            continue
        for source in lacking:
            alike = [repr(other) for other in same_names(name, tables[source].columns)]
            if alike:
                raise UserError(
                    f"other tables have a column '{name}' for the {column}, this one {' and '.join(alike)}",
                    where=f"{listing.root}/{source}",
                    mend="call it alike in all of them",
                )
            there = ", ".join(map(str, tables[source].columns))
            notes.append(f"{source} has no column '{name}', as other tables have, and is read without; it has {there}")
    return notes


def _tables(listing: Listing) -> list[str]:
    return find_tables(listing, r"metadata\.(?:csv|jsonl)", (IMAGE,), loosely=True)


def _read(listing: Listing, source: str, columns: ColumnNames) -> tuple[pd.DataFrame, list[str]]:
    """One table under the usual names of its columns, so that several can be joined; and what was written otherwise."""
    table, _ = read_table(listing.root / source, expect=IMAGE)
    asked = asdict(columns)
    usual = {IMAGE: "image_path"} | {name: name for name in COLUMNS if asked[name] == name and name != "image_path"}
    found = {name: same_names(name, table.columns) for name in usual if name not in table}
    renamed = {alike[0]: name for name, alike in found.items() if len(alike) == 1}  # of two, neither
    notes = [f"the column '{written}' is taken for the {usual[name]}" for written, name in renamed.items()]
    table = table.rename(columns=renamed)
    folder = posixpath.dirname(source)
    for column in {IMAGE, columns.mask_path} & set(table.columns):
        table[column] = [cell and posixpath.join(folder, cell) for cell in table[column]]
    return table, notes


def _in_split(table: pd.DataFrame, source: str, columns: ColumnNames) -> pd.DataFrame:
    """The table, with the split that its folder is named after, unless it says so itself."""
    folders = posixpath.dirname(source).lower().split("/")
    split = next((SPLIT_NAMES[part] for part in folders if part in SPLIT_NAMES), "")
    return table if not split or columns.split in table else table.assign(**{columns.split: split})
