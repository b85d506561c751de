"""A CSV or TSV as people and programs write it -> a manifest."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.data.manifest import COLUMNS, NO_FINDING, SEPARATOR, Manifest, join_mask, split_mask
from msmae.data.tables.listing import Listing, all_or_file, count, left_out, some
from msmae.errors import UserError

DELIMITERS = (",", "\t", ";", "|")
UNKNOWN = {"", "nan", "na", "n/a", "<na>", "null"}  # a label written like this is not known
SPLIT_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}


@dataclass(frozen=True)
class ColumnNames:
    """What a table calls the columns of a manifest; ``label=""`` says that it has no labels.

    A name that is left as it is here also finds a column that differs from it in capitals and separators only, as
    ``Patient-ID`` does.
    """

    image_path: str = "image_path"
    label: str = "label"
    patient_id: str = "patient_id"
    split: str = "split"
    mask_path: str = "mask_path"
    site: str = "site"


def read_csv_manifest(source: Path, *, columns: ColumnNames | None = None) -> Manifest:
    """Read a CSV or TSV with a column of image paths, relative to the CSV's folder or absolute.

    Byte-order marks, UTF-16, ``,`` ``;`` tab and ``|``, ``\\`` in paths and stray spaces are taken as they come; exact
    duplicates of a row are left out and counted. Raises ``UserError`` for a column that is not there, for images or
    masks that do not exist (all of them named), and for an image with two different rows.
    """
    names = columns or ColumnNames()
    table, notes = read_table(source, expect=names.image_path)
    return manifest_from_table(table, root=source.parent, columns=names, where=str(source), layout="csv", notes=notes)


def manifest_from_table(
    table: pd.DataFrame, *, root: Path, columns: ColumnNames, where: str, layout: str, notes: Sequence[str] = ()
) -> Manifest:
    """Make a manifest of a table whose paths are relative to ``root``; raises as :func:`read_csv_manifest` does."""
    table, names = _named(table, columns, where=where)
    table["label"] = clean_labels(table["label"])
    table["split"] = [SPLIT_NAMES.get(split.lower(), split) for split in table["split"]]
    table["image_path"] = _existing(table["image_path"], root, where=where)
    table["mask_path"] = _existing(table["mask_path"], root, where=where, several=True)
    table, duplicates = _without_duplicates(table, where=where)
    notes = [
        *notes,
        *names,
        *left_out(duplicates, "row", "exact duplicates of another row"),
        *label_notes(table["label"]),
    ]
    return Manifest.from_table(table, root=root, layout=layout, notes=notes, source=where)


def read_table(source: Path, *, expect: str = "") -> tuple[pd.DataFrame, list[str]]:
    """A delimited text file as a table of text, and notes on how it was read.

    The delimiter is the one that gives the header a column ``expect``, or else the most columns. Cells lose stray
    spaces around them, except those of ``expect``, which may name a file.
    """
    text, notes = _decode(source)
    above = len(text[: len(text) - len(text.lstrip("\r\n"))].splitlines())  # empty lines before the header
    text = text.lstrip("\r\n")
    try:
        delimiter = max(DELIMITERS, key=lambda delimiter: _fit(text, delimiter, expect))
        reader = _parse(text, delimiter)
        lined = [(above + reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"this is no readable table: {error}", where=str(source), mend="write it as CSV") from error
    rows = [row for _, row in lined]
    if not rows:
        raise UserError(
            "this table is empty", where=str(source), mend="write a line of column names, then a row an image"
        )
    header, body = [name.strip() for name in rows[0]], rows[1:]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"columns of the same name: {', '.join(repeated)}", where=str(source), mend="rename them")
    lines = [line for line, _ in lined[1:]]
    uneven = [line for line, row in zip(lines, body, strict=True) if len(row) != len(header)]
    if uneven:
        raise UserError(
            f"{count(len(uneven), 'row')} without the header's {len(header)} cells, the first ends in line {uneven[0]}",
            where=str(source),
            mend='put cells that contain the delimiter in double quotes: "a, b"',
        )
    images = next((name for name in (expect, *header) if name in header and _letters(name) == _letters(expect)), "")
    paths = [row[header.index(images)] for row in body] if images else []
    nameless = [line for line, path in zip(lines, paths, strict=False) if not path.strip()]
    if nameless:
        raise UserError(
            f"{count(len(nameless), 'row')} without an image path, the first ends in line {nameless[0]}",
            where=str(source),
            mend="fill it in, or remove the row",
        )
    table = pd.DataFrame(body, columns=header, dtype=object)
    for name in set(header) - {images}:
        table[name] = [_readable(cell).strip() for cell in table[name]]
    return table.astype(object), notes


def find_table(listing: Listing, name: str, columns: Sequence[str]) -> str:
    """The first of the tables that :func:`find_tables` finds; ``""`` if there is none."""
    return next(iter(find_tables(listing, name, columns)), "")


def find_tables(listing: Listing, name: str, columns: Sequence[str], *, loosely: bool = False) -> list[str]:
    """The tables of a listing whose name matches the expression and whose header holds these columns; ``loosely``: but
    for capitals and separators.
    """
    named = [path for path in listing.others if re.fullmatch(name, path.rpartition("/")[2], re.IGNORECASE)]
    return [path for path in named if _has_columns(listing.root / path, columns, loosely=loosely)]


def clean_labels(labels: pd.Series) -> pd.Series:
    """One way of writing each label.

    ``nan`` and its kin become "no label"; ``3.0`` becomes ``3`` where all labels are whole numbers; the pieces of
    ``b; a`` are put in order; ``;`` alone (examined, none of the classes) stays.
    """
    cleaned = ["" if label.strip().lower() in UNKNOWN else label.strip() for label in labels]
    if all(re.fullmatch(r"\d+(\.0*)?", label, re.ASCII) for label in cleaned if label):
        cleaned = [label.partition(".")[0] for label in cleaned]
    cleaned = [_ordered(label) if SEPARATOR in label else label for label in cleaned]
    return pd.Series(cleaned, index=labels.index, dtype=object)


def label_notes(labels: Sequence[str] | pd.Series) -> list[str]:
    """What a person should know about these labels."""
    notes = []
    unlabelled = sum(label == "" for label in labels)
    if unlabelled:
        number = count(unlabelled, "image") if unlabelled < len(labels) else "all images"
        notes.append(f"{number} without a label, for pre-training only")
    by_case: dict[str, set[str]] = {}
    for label in labels:
        for piece in label.split(SEPARATOR):
            by_case.setdefault(piece.casefold(), set()).add(piece)
    twins = sorted(" / ".join(sorted(spellings)) for spellings in by_case.values() if len(spellings) > 1)
    if twins:
        notes.append(f"classes that differ only in capital letters are different classes here: {some(twins)}")
    return notes


def _ordered(label: str) -> str:
    pieces = {piece.strip() for piece in label.split(SEPARATOR)}
    return SEPARATOR.join(sorted(piece for piece in pieces if piece.lower() not in UNKNOWN)) or NO_FINDING


def _decode(source: Path) -> tuple[str, list[str]]:
    try:
        raw = source.read_bytes()
    except PermissionError:
        raise UserError("this table may not be read", where=str(source), mend="ask for the right to read it") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace"), []
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        note = "the table is not UTF-8: file names are taken byte by byte, other cells as Windows-1252"
        return raw.decode("utf-8-sig", "surrogateescape"), [note]


def _readable(cell: str) -> str:
    """Turn bytes that are not UTF-8 into the letters they are in Windows-1252."""
    if cell.isascii() or not re.search("[\udc80-\udcff]", cell):
        return cell
    return cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _parse(text: str, delimiter: str, *, strict: bool = True) -> Any:
    """A ``csv.reader`` of the text."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)


def _fit(text: str, delimiter: str, expect: str) -> tuple[bool, int]:
    """Whether this delimiter gives the header the expected column, and how many columns."""
    header = _header(text, delimiter)
    return (_letters(expect) in map(_letters, header), len(header))


def _has_columns(source: Path, columns: Sequence[str], *, loosely: bool) -> bool:
    with source.open("rb") as stream:
        line = stream.readline().decode("utf-8-sig", "replace")
    headers = [_header(line, delimiter) for delimiter in DELIMITERS]
    return any(
        all(same_names(column, header) if loosely else column in header for column in columns) for header in headers
    )


def _header(text: str, delimiter: str) -> set[str]:
    return {name.strip() for name in next(_parse(text, delimiter, strict=False), [])}


def _named(table: pd.DataFrame, names: ColumnNames, *, where: str) -> tuple[pd.DataFrame, list[str]]:
    """Give the table the manifest's column names, and say which were not written so; a column that had such a name
    already becomes ``<name>_in_file``.
    """
    header = [str(name) for name in table.columns]
    found = {column: _find_column(column, getattr(names, column), header, where=where) for column in COLUMNS}
    renamed = {source: column for column, source in found.items() if source}
    displaced = {column: f"{column}_in_file" for column in COLUMNS if column in table and column not in renamed}
    table = table.rename(columns={**displaced, **renamed})
    usual = ColumnNames()
    notes = [
        f"the column '{source}' is taken for the {column}"
        for column, source in found.items()
        if source not in ("", getattr(names, column)) and getattr(names, column) == getattr(usual, column)
    ]
    for column, source in found.items():
        others = [repr(name) for name in same_names(source, header) if source and name != source]
        notes += [f"the column '{source}' is taken for the {column}, not {some(others)}"] * bool(others)
    maybe = [name for name in header if name not in renamed and re.search("patient|subject|person", name.lower())]
    if maybe and not found["patient_id"]:
        notes.append(f"no column names the patients; {some(maybe)} may, and is not used: --patient-column NAME")
    return table.assign(**{column: "" for column in COLUMNS if column not in table}), notes


def _find_column(column: str, wanted: str, header: Sequence[str], *, where: str) -> str:
    """The name in the header of one of the manifest's columns; ``""`` where it may be missing and is."""
    if wanted in header or not wanted:
        return wanted
    flag = f"--{column.partition('_')[0]}-column"
    alike = same_names(column, header) if wanted == column else []
    if len(alike) > 1:
        raise UserError(
            f"{' and '.join(map(repr, alike))} may both be the {column}", where=where, mend=f"name one: {flag} NAME"
        )
    if not alike and (column in ("image_path", "label") or wanted != column):
        unlabelled = ", or --label-column '' for unlabelled data" if column == "label" else ""
        raise UserError(
            f"there is no column '{wanted}' for the {column}; the columns are {', '.join(header)}",
            where=where,
            mend=f"name the right one, {flag} NAME{unlabelled}",
        )
    return next(iter(alike), "")


def same_names(name: str, header: Iterable[str]) -> list[str]:
    """The columns of a header that are called so, but for capitals and separators."""
    return [column for column in header if _letters(column) == _letters(name)]


def _letters(name: str) -> str:
    """A name without capitals and separators: ``Patient-ID`` is ``patientid``."""
    return re.sub(r"[\W_]", "", name).lower()


def _existing(cells: pd.Series, root: Path, *, where: str, several: bool = False) -> pd.Series:
    """Each path as the file system knows it; raises ``UserError`` naming every file that is not there."""
    resolved: list[str] = []
    missing: list[str] = []
    for cell in cells:
        found = []
        for piece in cell.split(SEPARATOR) if several else [cell]:
            name, path = _mask_in(piece, root) if several else ("", piece)
            if path.strip():
                match = next((form for form in _spellings(path) if _exists(root, form)), None)
                found.append(join_mask(name, path if match is None else match))
                if match is None:
                    missing.append(path.strip())
        resolved.append(SEPARATOR.join(found))
    if missing:
        raise UserError(
            f"{count(len(missing), 'file')} missing: {all_or_file(missing)}",
            where=where,
            mend="paths are taken relative to the folder of this table; correct them or remove the rows",
        )
    return pd.Series(resolved, index=cells.index, dtype=object)


def _mask_in(piece: str, root: Path) -> tuple[str, str]:
    """Class and path of a mask; a file that has the whole name, ``=`` and all, is a mask without a class."""
    name, path = split_mask(piece.strip())
    return ("", f"./{piece.strip()}") if name and _exists(root, piece.strip()) else (name, path if name else piece)


def _spellings(path: str) -> list[str]:
    """The ways in which a file of this name may be known to the file system, likeliest first."""
    forms = [path, path.strip(), path.strip().replace("\\", "/"), _readable(path).strip()]
    return list(dict.fromkeys(forms))


def _exists(folder: Path, path: str) -> bool:
    container, mark, _ = path.partition(".npz#")
    return os.path.exists(os.path.join(folder, container + ".npz" if mark else path))


def _without_duplicates(table: pd.DataFrame, *, where: str) -> tuple[pd.DataFrame, int]:
    """Drop exact duplicates and count them; raises ``UserError`` where an image has rows that differ."""
    exact = table.duplicated().to_numpy()
    table = table[~exact]
    image = [column for column in ("image_path", "axis", "index", "frame") if column in table]
    twice = table[table.duplicated(subset=image, keep=False)]
    if len(twice):
        images = sorted(set(twice["image_path"]))
        raise UserError(
            f"{count(len(images), 'image')} with several rows that differ: {some(images)}",
            where=where,
            mend="write one row an image, and several labels as a;b",
        )
    return table, int(np.count_nonzero(exact))
