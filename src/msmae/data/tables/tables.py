"""A CSV or TSV as people and programs write it -> a manifest."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from msmae.data.manifest import COLUMNS, SEPARATOR, Manifest, join_mask, split_mask
from msmae.data.tables.files_there import FilesThere, decoded, exists, readable
from msmae.data.tables.findings import offer, read_findings
from msmae.data.tables.labels import (
    ANONYMISED,
    NOT_SAID,
    by_majority,
    check_classes,
    check_merged,
    check_used,
    clean_labels,
    label_notes,
    people_notes,
    without_duplicates,
    written_alike,
)
from msmae.data.tables.listing import Listing, all_or_file, count, left_out, some
from msmae.data.tables.roles import letters
from msmae.data.tables.split_columns import check_no_flag, check_splits, split_column, split_word
from msmae.errors import UserError

DELIMITERS = (",", "\t", ";", "|")
AS_WRITTEN = "as_written"
"""A column of our own manifests whose cells say ``yes``: no cell of them means anything but itself."""
ONE_PLANE = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".jp2")
WHOLE_NUMBER = r"\d+(?:\.0*|,0+)?"
WINDOW = r"-?[\d.]+\s*,\s*-?[\d.]+"


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
    unknown: str = "ignore"
    """What -1 and empty cells of columns a finding count as (``findings.POLICIES``)."""


def read_csv_manifest(source: Path, *, columns: ColumnNames | None = None) -> Manifest:
    """Read a CSV or TSV with a column of image paths, relative to the CSV's folder or absolute.

    Byte-order marks, UTF-16, ``,`` ``;`` tab and ``|``, ``\\`` in paths and stray spaces are taken as they come; exact
    duplicates of a row are left out and counted. Raises ``UserError`` for a column that is not there, for images or
    masks that do not exist (all of them named), and for an image with two different rows.
    """
    names = columns or ColumnNames()
    table, notes = read_table(source, expect=names.image_path)
    if table.empty:
        raise UserError("the table has no row below its header", where=str(source), mend="write one row per image")
    return manifest_from_table(table, root=source.parent, columns=names, where=str(source), layout="csv", notes=notes)


def manifest_from_table(
    table: pd.DataFrame, *, root: Path, columns: ColumnNames, where: str, layout: str, notes: Sequence[str] = ()
) -> Manifest:
    """Make a manifest of a table whose paths are relative to ``root``; raises as :func:`read_csv_manifest` does."""
    findings = [name.strip() for name in columns.label.split(SEPARATOR)] if SEPARATOR in columns.label else []
    image = _find_column("image_path", columns.image_path, table, where=where)
    table = table.assign(**{image: written_alike(table[image], root=root)})
    table, votes = by_majority(table, image, findings or [_find_column("label", columns.label, table, where=where)])
    found, unknown = [], ""
    if findings:
        read = read_findings(table, findings, where=where, policy=columns.unknown)
        found, unknown = read.notes, read.unknown
        table, columns = table.assign(label=read.labels), replace(columns, label="label")
    table, names, written = _named(table, columns, where=where)
    empty: list[str] = []
    ours = AS_WRITTEN in table and set(table[AS_WRITTEN]) == {"yes"}
    if not ours:
        check_used(table, label=["label", *findings], where=where)
        names += check_merged(table, label="label", patient="patient_id", where=where)
        table, empty = _without_words_for_nothing(table)
        table["label"], told = (table["label"], found) if findings else clean_labels(table["label"])
        check_classes(table["label"], where=where)
        empty += told
    table = table.drop(columns=AS_WRITTEN) if ours else table
    table["split"] = [split_word(split) for split in table["split"]]
    check_splits(table["split"], rule=f"the column {written['split']}", where=where)
    files = FilesThere(root)
    table["image_path"] = written_alike(_existing(table["image_path"], files, where=where), root=root)
    masks = [cell.split(SEPARATOR) for cell in _existing(table["mask_path"], files, where=where, several=True)]
    alike = iter(written_alike([piece for pieces in masks for piece in pieces], root=root))
    table["mask_path"] = [SEPARATOR.join(next(alike) for _ in pieces) for pieces in masks]
    _check_masks(table, where=where)
    empty += files.notes()
    table, planes = _planes(table)
    empty += planes
    table, duplicates = without_duplicates(table, where=where)
    notes = [
        *notes,
        *votes,
        *names,
        *empty,
        *left_out(duplicates, "row", "exact duplicates of another row"),
        *label_notes(table["label"]),
        *people_notes(table["patient_id"]),
    ]
    rules = {column: f"the column {name}" for column, name in written.items() if name and table[column].any()}
    rules |= {"unknown": unknown} if unknown else {}
    return Manifest.from_table(table, root=root, layout=layout, notes=notes, source=where, rules=rules)


def _without_words_for_nothing(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with ``nan``, ``None``, ``NA`` and their like as empty cells, and how many of them there were."""
    told = []
    for column in ("patient_id", "split", "mask_path", "site"):
        cells = [str(cell).strip() if str(cell).strip().lower() in NOT_SAID else str(cell) for cell in table[column]]
        nothing = [cell for cell in cells if cell and cell.lower() in NOT_SAID]
        if nothing:
            word = Counter(nothing).most_common(1)[0][0]
            told.append(f"{count(len(nothing), 'cell')} of the {column} read as empty ('{word}')")
        table[column] = ["" if cell.lower() in NOT_SAID else cell for cell in cells]
    people = list(table["patient_id"])
    if people and all(re.fullmatch(r"\d+\.0", cell) for cell in people if cell):
        table["patient_id"] = people = [cell.partition(".")[0] for cell in people]  # as programs write whole numbers
    nobody = [cell for cell in people if cell and not cell.isdecimal() and ANONYMISED.fullmatch(cell.strip())]
    if nobody:
        told.append(f"{count(len(nobody), 'cell')} of the patient_id name nobody ('{nobody[0]}'): read as empty")
        table["patient_id"] = ["" if cell in nobody else cell for cell in people]
    return table, told


def read_table(source: Path, *, expect: str = "") -> tuple[pd.DataFrame, list[str]]:
    """A delimited text file as a table of text, and notes on how it was read.

    The delimiter is the one that gives the header a column ``expect``, or else the most columns. Cells lose stray
    spaces around them, except those of ``expect``, which may name a file.
    """
    text, notes = decoded(source)
    if source.suffix.lower() == ".jsonl":
        return _read_lines(text, where=str(source)), notes
    told = re.match(r"[\r\n]*sep=(.)\r?\n", text)  # Excel's first line
    text = text[told.end() - 1 :] if told else text
    above = bool(told) + len(text[: len(text) - len(text.lstrip("\r\n"))].splitlines())  # empty lines before the header
    text = text.lstrip("\r\n")
    try:
        delimiter = told[1] if told else max(DELIMITERS, key=lambda delimiter: _fit(text, delimiter, expect))
        reader = _parse(text, delimiter)
        lined = [(above + reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"this is no readable table: {error}", where=str(source), mend="write it as CSV") from error
    rows = [row for _, row in lined]
    if not rows:
        raise UserError(
            "this table is empty", where=str(source), mend="write a line of column names, then one row per image"
        )
    header, body = _without_empty_ends([readable(name).strip() for name in rows[0]], rows[1:])
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
    images = next((name for name in (expect, *header) if name in header and letters(name) == letters(expect)), "")
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
        table[name] = [readable(cell).strip() for cell in table[name]]
    return table.astype(object), notes


def _read_lines(text: str, *, where: str) -> pd.DataFrame:
    """A table of text from a JSON object a line, as ``metadata.jsonl`` of Hugging Face has them."""
    rows: list[dict[str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"line {number} is no JSON object", where=where, mend="write an object a line, or a CSV")
        rows.append({str(name): "" if cell is None else str(cell).strip() for name, cell in row.items()})
    if not rows:
        raise UserError("this table is empty", where=where, mend="write an object a line")
    return pd.DataFrame(rows, dtype=object).fillna("").astype(object)


def _without_empty_ends(header: list[str], body: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table without columns at its end that have neither a name nor a cell, as Excel writes them."""
    width = len(header)
    while width and not header[width - 1]:
        width -= 1
    if any(cell.strip() for row in body for cell in row[width : len(header)]):
        return header, body
    ends = len(header) - width
    return header[:width], [row[:width] if 0 <= len(row) - width <= ends else row for row in body]


def find_table(listing: Listing, name: str, columns: Sequence[str]) -> str:
    """The first of the tables that :func:`find_tables` finds; ``""`` if there is none."""
    return next(iter(find_tables(listing, name, columns)), "")


def find_tables(listing: Listing, name: str, columns: Sequence[str], *, loosely: bool = False) -> list[str]:
    """The tables of a listing whose name matches the expression and whose header holds these columns; ``loosely``: but
    for capitals and separators.
    """
    named = [path for path in listing.others if re.fullmatch(name, path.rpartition("/")[2], re.IGNORECASE)]
    return [path for path in named if _has_columns(listing.root / path, columns, loosely=loosely)]


def _parse(text: str, delimiter: str, *, strict: bool = True) -> Any:
    """A ``csv.reader`` of the text."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)


def _fit(text: str, delimiter: str, expect: str) -> tuple[bool, int]:
    """Whether this delimiter gives the header the expected column, and how many columns."""
    header = _header(text, delimiter)
    return (letters(expect) in map(letters, header), len(header))


def _has_columns(source: Path, columns: Sequence[str], *, loosely: bool) -> bool:
    with source.open("rb") as stream:
        line = stream.readline().decode("utf-8-sig", "replace")
    if source.suffix.lower() == ".jsonl":
        try:
            line = ",".join(json.loads(line))
        except (ValueError, TypeError):
            return False
    headers = [_header(line, delimiter) for delimiter in DELIMITERS]
    return any(
        all(same_names(column, header) if loosely else column in header for column in columns) for header in headers
    )


def _header(text: str, delimiter: str) -> set[str]:
    return {name.strip() for name in next(_parse(text, delimiter, strict=False), [])}


def _named(table: pd.DataFrame, names: ColumnNames, *, where: str) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Give the table the manifest's column names, say which were not written so, and how each was written (``""``: it
    has none); a column that had such a name already becomes ``<name>_in_file``.
    """
    header = [str(name) for name in table.columns]
    found = {column: _find_column(column, getattr(names, column), table, where=where) for column in COLUMNS}
    if names.split == ColumnNames.split and not found["split"]:
        free = [name for name in header if name not in found.values()]
        found["split"] = split_column(table, free, where=where)
        if not found["split"]:
            check_no_flag(table, free, where=where)
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
    notes += folds_kept(name for name in header if name not in renamed)
    return table.assign(**{column: "" for column in COLUMNS if column not in table}), notes, found


def _find_column(column: str, wanted: str, table: pd.DataFrame, *, where: str) -> str:
    """The name in the header of one of the manifest's columns; ``""`` where it may be missing and is."""
    header = [str(name) for name in table.columns]
    if wanted in header or not wanted:
        return wanted
    flag = f"--{column.partition('_')[0]}-column"
    alike = same_names(column, header) if wanted == column else []
    if len(alike) > 1:
        raise UserError(
            f"{' and '.join(map(repr, alike))} may both be the {column}", where=where, mend=f"name one: {flag} NAME"
        )
    if not alike and (column in ("image_path", "label") or wanted != column):
        raise UserError(
            f"there is no column '{wanted}' for the {column}; the columns are {', '.join(header)}",
            where=where,
            mend=offer(column, table),
        )
    return next(iter(alike), "")


def folds_kept(names: Iterable[str]) -> list[str]:
    """What to say of columns that number folds."""
    folds = [name for name in dict.fromkeys(names) if re.fullmatch(r"(?:k|cv)?[-_ ]?folds?", name.lower())]
    return [f"the column {name} divides nothing here: kept as a column" for name in folds]


def same_names(name: str, header: Iterable[str]) -> list[str]:
    """The columns of a header that are called so, but for capitals and separators."""
    return [column for column in header if letters(column) == letters(name)]


def _existing(cells: pd.Series, files: FilesThere, *, where: str, several: bool = False) -> pd.Series:
    """Each path as the file system knows it; raises ``UserError`` naming every file that is not there."""
    resolved: list[str] = []
    missing: list[str] = []
    for cell in cells:
        found = []
        for piece in cell.split(SEPARATOR) if several else [cell]:
            name, path = _mask_in(piece, files.root) if several else ("", piece)
            if path.strip():
                match = files.find(path)
                found.append(join_mask(name, path if match is None else match))
                if match is None:
                    missing.append(path.strip())
        resolved.append(SEPARATOR.join(found))
    missing = list(dict.fromkeys(missing))
    if missing:
        raise UserError(
            f"{count(len(missing), 'file')} missing: {all_or_file(missing)}",
            where=where,
            mend=files.nearest(missing[0])
            or "paths are taken relative to the folder of this table; correct them or remove the rows",
        )
    return pd.Series(resolved, index=cells.index, dtype=object)


def _check_masks(table: pd.DataFrame, *, where: str) -> None:
    """Raise ``UserError`` where a mask is an image of the table, too."""
    images = set(table["image_path"])
    masks = {split_mask(piece)[1] for cell in table["mask_path"] for piece in cell.split(SEPARATOR) if piece}
    both = sorted(images & masks)
    if both:
        raise UserError(
            f"{count(len(both), 'file')} named as image and as mask: {some(both)}",
            where=where,
            mend="correct the mask_path, or remove the rows of masks",
        )


def _mask_in(piece: str, root: Path) -> tuple[str, str]:
    """Class and path of a mask; a file that has the whole name, ``=`` and all, is a mask without a class."""
    name, path = split_mask(piece.strip())
    return ("", f"./{piece.strip()}") if name and exists(root, piece.strip()) else (name, path if name else piece)


def _planes(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with ``frame``, ``axis``, ``index`` as whole numbers and ``window`` as two; where they are something
    else, or every file is a plain picture of one plane, they are columns of the user's own and are called so."""
    pictures = all(path.lower().endswith(ONE_PLANE) for path in table["image_path"])
    told, renamed = [], {}
    for column in ("frame", "axis", "index", "window"):
        if column not in table:
            continue
        cells = ["" if str(cell).strip().lower() in NOT_SAID else str(cell).strip() for cell in table[column]]
        pattern = WINDOW if column == "window" else WHOLE_NUMBER
        if (pictures and column != "window") or not all(re.fullmatch(pattern, cell) for cell in cells if cell):
            renamed[column] = f"{column}_in_file"
            told.append(f"the column '{column}' is taken for one of your own, and chooses no plane: {column}_in_file")
        elif column != "window":
            table[column] = [re.split("[.,]", cell)[0] for cell in cells]
        else:
            table[column] = cells
    return table.rename(columns=renamed), told
