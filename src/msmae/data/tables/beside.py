"""Tables that lie beside images and name them: never passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from msmae.data.manifest import plain
from msmae.data.tables.findings import finding_columns
from msmae.data.tables.listing import Listing, some, without_suffix
from msmae.data.tables.tables import read_table
from msmae.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl")
LOOKED_AT = 20  # tables
LARGEST = 50_000_000  # bytes
MOST = 0.8  # share of the cells that must name an image
CLASSES = 50


def refuse_tables_beside(listing: Listing) -> None:
    """Raise ``UserError`` where a table names most of the images, which are about to be read without labels."""
    for path in [path for path in listing.others if path.lower().endswith(SUFFIXES)][:LOOKED_AT]:
        found = _names_images(listing, path)
        if found is None:
            continue
        column, table = found
        label = _label_column(table, column)
        where = listing.root / path
        raise UserError(
            f"no folder is a class, and {path} names the images (columns {some(list(map(str, table.columns)))})",
            where=str(listing.root),
            mend=f"give the table as DATA: {where} --image-column {column} --label-column {label}; or --layout "
            "unlabelled leaves it out",
        )


def _names_images(listing: Listing, path: str) -> tuple[str, pd.DataFrame] | None:
    """The column of a table that names images, and the table; None where there is none."""
    file = Path(listing.root / path)
    try:
        table = read_table(file)[0] if file.stat().st_size <= LARGEST else None
    except (UserError, OSError):
        return None  # no table for us
    if table is None or table.empty:
        return None
    known = {plain(name.rpartition("/")[2]) for name in listing.images}
    known |= {without_suffix(name) for name in known}
    for column in table:
        cells = [plain(str(cell).replace("\\", "/").rpartition("/")[2]) for cell in table[column] if cell]
        if cells and sum(cell in known for cell in cells) >= max(2, MOST * len(cells)):
            return str(column), table
    return None


def _label_column(table: pd.DataFrame, images: str) -> str:
    """The column that may hold the labels: a few different values, each more than once."""
    findings = [name for name in finding_columns(table) if name != images]
    if findings:
        return f"'{';'.join(findings)}'"
    for column in table:
        values = set(table[column]) - {""}
        if column != images and 2 <= len(values) <= min(CLASSES, max(2, len(table) // 2)):
            return str(column)
    return "NAME"
