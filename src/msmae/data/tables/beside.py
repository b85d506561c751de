"""The tables that lie beside images and name them: never passed over in silence."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from msmae.data.tables.files_there import LARGEST, ROUNDED, raw_bytes, whole_number
from msmae.data.tables.findings import few_values
from msmae.data.tables.labels import check_used
from msmae.data.tables.listing import Listing, count, some, without_suffix
from msmae.data.tables.meaning import says_person
from msmae.data.tables.naming import MOST, Names
from msmae.data.tables.roles import EXCLUDED, MASKS, OF_IMAGES, OF_ROWS, SPLIT_NAMES, fold_of, letters, split_of, words
from msmae.data.tables.tables import read_table
from msmae.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".csv.gz", ".tsv.gz")
TEXTS = (".txt", ".json", ".yaml", ".yml", ".xml", ".lst")
PEOPLE = 6
"""Class folders from which those that a table has a row of may be patients."""
ALL = 0.95
"""Share of the images from which a list names all of them, and says nothing."""
LOOKED_AT = 40  # tables
CASES = {"case", "caseid", "casenumber", "donor", "individual"}
"""Names of columns that tell a patient where folders are parts of one."""


@dataclass(frozen=True)
class TableBeside:
    """A table that names images: its cells, the column that names them, and the ``images`` [rows], -1 for none.

    ``header`` is False where its first line names an image, too: its columns are called 1, 2, ... then. ``split`` is
    the one that its name says, "" for none or several. ``whole``: it has one row per folder, repeated for its images.
    """

    path: str
    table: pd.DataFrame
    column: str
    images: list[int]
    header: bool
    split: str
    whole: bool = False

    @property
    def others(self) -> list[str]:
        """Its columns but the one that names the images."""
        return [str(name) for name in self.table.columns if name != self.column]


def find_tables_beside(listing: Listing, names: Names, *, column: str = "") -> list[TableBeside]:
    """Every table of a listing that names at least two of its images, by the ``column`` where it has one of that name.

    Raises ``UserError`` for a text that names the images line by line, and is no table.
    """
    found = []
    for path in [path for path in listing.others if path.lower().endswith((*SUFFIXES, *TEXTS))][:LOOKED_AT]:
        file = Path(listing.root / path)
        if file.stat().st_size > LARGEST:
            continue
        table = _named(path, file, names, column) if path.lower().endswith(SUFFIXES) else None
        if table is not None:
            found.append(table)
        elif path.lower().endswith(TEXTS):
            _refuse_text(path, file, names, where=str(listing.root))
        else:
            _check_numbers(path, file, names, where=str(listing.root))
            _check_shared(path, file, names, where=str(listing.root))
    return _with_folds(found)


def _with_folds(tables: list[TableBeside]) -> list[TableBeside]:
    """The tables, with a column ``fold`` where all of several are named after one: ``fold_0.csv``, ``fold_1.csv``."""
    folds = [fold_of(table.path.rpartition("/")[2].partition(".")[0]) for table in tables]
    if len(set(folds)) < 2 or "" in folds or any("fold" in table.table for table in tables):
        return tables
    return [replace(table, table=table.table.assign(fold=fold)) for table, fold in zip(tables, folds, strict=True)]


def _check_numbers(path: str, file: Path, names: Names, *, where: str) -> None:
    """Raise ``UserError`` for a table that names no image because a program made numbers of its ids: ``1.0``,
    ``1,2E+05``."""
    table = _with_header(file)
    for number, (name, column) in enumerate(() if table is None else table.items()):
        cells = [cell for cell in column if cell.strip()]
        whole = [whole_number(cell) for cell in cells]
        rounded = sum(bool(ROUNDED.fullmatch(cell)) for cell in cells)
        long = sum(bool(re.search(r"\d{5}", without_suffix(path.rpartition("/")[2]))) for path in names.paths)
        if not number and rounded >= MOST * max(2, len(cells)) and long >= MOST * len(names.paths):
            what = f"a spreadsheet rounded the numbers in the column {name} ({cells[0]}), which may name the images"
        elif len({*whole} - {""}) >= MOST * max(2, len(cells)) and names.column(whole):
            what = f"a program made decimal numbers of the ids in the column {name} ({cells[0]} for {whole[0]})"
        else:
            continue
        raise UserError(
            what,
            where=f"{where}/{path}",
            mend="save the table again from its source, with this column as text; or --layout folder, or unlabelled, "
            "leaves it out",
        )


def _check_shared(path: str, file: Path, names: Names, *, where: str) -> None:
    """Raise ``UserError`` for a table of classes whose rows name several images each, of one name in several folders:
    these may be views, phases or sites."""
    table = _with_header(file)
    if table is None:
        return
    for name in table:
        several = [those for cell in table[name] if len(those := names.called(cell)) > 1]
        few = few_values(table, without=[str(name)]) if several else []
        if few and len(several) >= MOST * max(2, len(table)):
            raise UserError(
                f"each row names several images, in folders of their own ({some(several[0], at_most=2)}), and has a "
                f"{few[0]} for all of them",
                where=f"{where}/{path}",
                mend="write a CSV with one row per image (image_path with its folder, label, patient_id); or --layout "
                "folder, or unlabelled, leaves the table out",
            )


def split_of_table(path: str) -> str:
    """The split that a table's name says: ``trainLabels.csv``, ``ISIC2018_Task3_Test_GroundTruth.csv``."""
    said = {SPLIT_NAMES[word] for word in words(without_suffix(Path(path).stem)) if word in SPLIT_NAMES}
    said = said or {split for name in path.split("/")[:-1] if (split := split_of(name))}
    return said.pop() if len(said) == 1 else ""


def _named(path: str, file: Path, names: Names, told: str) -> TableBeside | None:
    """The table, with the column that names most images; None where it names none."""
    split, folder = split_of_table(path), path.rpartition("/")[0]
    for header, table in ((True, _with_header(file)), (False, _without_header(file))):
        if table is None or table.empty:
            continue
        if header and any(_is_data(str(name), table[name].tolist(), names, split) for name in table):
            continue
        columns = {str(name): names.column(table[name].tolist(), split=split, folder=folder) for name in table}
        if any(columns.values()):
            best = (
                told if columns.get(told) else _image_column(columns, table, names, where=str(file) if header else "")
            )
            return TableBeside(path, table, best, columns[best], header, split)
        if by_folder := _of_folders(path, table, names, header=header, split=split):
            return by_folder
    return None


def _image_column(columns: Mapping[str, list[int]], table: pd.DataFrame, names: Names, *, where: str) -> str:
    """Of the columns that may name the images the one that names most, and these as the files are written; else by its
    own name.

    Raises ``UserError``, if told ``where``, for columns of numbers that name other images each, and are called alike:
    one may only count the rows.
    """

    def rank(name: str) -> tuple[Any, ...]:
        said = set(words(name))
        called = 1 if said & OF_IMAGES else 0 if said - OF_ROWS else -1 if said else -2
        return not says_mask(name), names.exactly(table[name].tolist()), called, len(set(columns[name]))

    naming = sorted((name for name in columns if columns[name]), key=rank, reverse=True)
    best = naming[0]
    for other in naming[1:]:
        both = len({*columns[other]} & {*columns[best]})
        alike = where and rank(other) == rank(best) and 2 * both > len({*columns[best]})
        if alike and columns[other] != columns[best]:
            raise UserError(
                f"the images may be named by the column {best} or {other}, which do not say the same",
                where=where,
                mend=f"say which: --image-column '{best}' or --image-column '{other}'",
            )
    return best


def says_mask(name: str) -> bool:
    """Whether a column is called as one of masks is."""
    return bool(set(words(name)) & MASKS) or "mask" in name.lower()


def _is_data(name: str, cells: list[str], names: Names, split: str) -> bool:
    """Whether the first cell of a column is no name, but names an image or a folder as the cells below do."""
    return names.find(name, split=split) >= 0 or bool(names.inside(name) and names.folders([name, *cells]))


def _of_folders(path: str, table: pd.DataFrame, names: Names, *, header: bool, split: str) -> TableBeside | None:
    """A table with one row per folder, as a patient's, as one with one row per image; None where it is none."""
    for name in table:
        inside = names.folders(table[name].tolist(), folder=path.rpartition("/")[0])
        if inside and len(table.columns) > 1:
            rows = [row for row, images in enumerate(inside) for _ in images]
            images = [image for one in inside for image in one]
            return TableBeside(path, table.iloc[rows].reset_index(drop=True), str(name), images, header, split, True)
    return None


def listed_split(table: TableBeside) -> str:
    """The split that the name of a list of images says; ``pool`` for ``train_val_list``."""
    said = {SPLIT_NAMES[word] for word in words(table.path.rpartition("/")[2].partition(".")[0]) if word in SPLIT_NAMES}
    return table.split or ("pool" if said == {"train", "val"} else "")


def check_once(tables: Sequence[tuple[TableBeside, str]], paths: Sequence[str], *, where: str) -> None:
    """Raise ``UserError`` where tables named after splits, given with these, name an image under several: it is in
    training and test, or the tables are those of several folds."""
    said: dict[int, tuple[str, TableBeside]] = {}
    twice: dict[int, str] = {}
    for table, split in tables:
        for image in table.images if split and split != "pool" else ():
            before, other = said.setdefault(image, (split, table))
            if image >= 0 and before != split:
                twice.setdefault(image, f"{paths[image]} in {other.path} and {table.path}")
    if twice:
        raise UserError(
            f"{count(len(twice), 'image')} listed under several splits ({next(iter(twice.values()))})",
            where=where,
            mend="take each image out of all tables but one; of several folds, leave the tables of one here",
        )


def check_lists(
    tables: Sequence[TableBeside], *, images: int, classes: Sequence[str], labels: Sequence[str], where: str
) -> None:
    """Raise ``UserError`` for a list of some labelled images, or one of several, that says nothing of them; for images
    that are not to be used (``exclude.txt``, a column ``excluded``); and for a table with a row a class folder, if its
    columns divide them: the folders may be patients. ``classes``: those of the folders; ``labels``: the columns that
    hold them."""
    lists = [table for table in tables if not table.others and not listed_split(table)]
    for table in tables:
        number = len({image for image in table.images if image >= 0})
        aside = bool(set(words(table.path.rpartition("/")[2].partition(".")[0])) & EXCLUDED)
        if aside or (table in lists and (classes or labels or len(lists) > 1) and number < ALL * images):
            what = "its name says that they are not to be used" if aside else "nothing says what they are"
            mend = "move them away" if aside else "write a table with one row per image (label, split)"
            raise UserError(
                f"{table.path} names {number:,} of {count(images, 'image')}, and {what}",
                where=where,
                mend=f"{mend}, then move the list away; or --layout folder, or unlabelled, leaves it out",
            )
        check_used(table.table, label=labels, where=f"{where}/{table.path}")
        _check_rows(table, classes, where=where)


def _check_rows(table: TableBeside, classes: Sequence[str], *, where: str) -> None:
    rows = table.table.drop_duplicates(table.column) if table.whole else table.table[:0]
    few = few_values(rows, without=[table.column]) if len(rows) >= PEOPLE else []
    if few and len({*rows[table.column]} & set(classes)) >= max(PEOPLE, MOST * len(classes)):
        several = [
            name
            for name in table.others
            if (says_person(name) or letters(name) in CASES) and 1 < rows[name].nunique() < len(rows)
        ]
        what = f"a part of a patient, as the column {several[0]} of {table.path} says" if several else "a patient"
        second = f"--layout patient-folders --label-column {table.path}:{few[0]}"
        if several:
            second = f"--layout tables --label-column '{few[0]}' --patient-column '{several[0]}'"
        raise UserError(
            f"this folder can be read in two ways: each of {len(classes)} folders is a class; or each is {what}, and "
            f"{table.path} tells more ({some([name for name in few if name not in several], at_most=3)})",
            where=where,
            mend=f"say which: --layout folder for the first, {second} for the second",
        )


def _with_header(file: Path) -> pd.DataFrame | None:
    try:
        return read_table(file)[0]
    except (UserError, OSError):
        return None  # no table for us


def _without_header(file: Path) -> pd.DataFrame | None:
    """A table without a line of column names, whose columns are then called by their numbers; None if it is none."""
    try:
        text = raw_bytes(file).decode("utf-8-sig", "replace")
    except (UserError, OSError):
        return None
    kept = [line for line in text.splitlines() if line.strip()]
    for delimiter in (",", "\t", ";", " "):
        try:
            rows = [[cell.strip() for cell in row] for row in csv.reader(kept, delimiter=delimiter)]
        except csv.Error:
            continue
        widths = {len(row) for row in rows}
        if len(widths) == 1 and (widths != {1} or delimiter == " "):
            return pd.DataFrame(rows, columns=[str(k + 1) for k in range(widths.pop())], dtype=object)
    return pd.DataFrame([[line.strip()] for line in kept], columns=["1"], dtype=object) if kept else None


def _refuse_text(path: str, file: Path, names: Names, *, where: str) -> None:
    """Raise ``UserError`` for a text that names most images (as first words of its lines, or within quotes), or some
    where it is called after a split, or as what is not to be used."""
    text = file.read_bytes()[:LARGEST].decode("utf-8", "replace")
    first = [re.split(r"[\s,;:|]+", line.strip(), maxsplit=1)[0] for line in text.splitlines()]
    if not path.lower().endswith(".txt"):
        first += re.findall(r"[\"'>]([^\"'<>\n]{1,300})[\"'<]", text)
    telling = set(words(path.rpartition("/")[2].partition(".")[0])) & {*SPLIT_NAMES, *EXCLUDED, "split", "splits"}
    named = {number for number in (names.find(word) for word in first if word) if number >= 0}
    if len(named) >= 2 and (telling or 2 * len(named) >= len(names.paths)):
        raise UserError(
            f"{path} names {len(named)} of the {len(names.paths)} images, and is no table",
            where=where,
            mend="write it as a CSV with one row per image (columns image_path, label, split) and give that as DATA; "
            "or --layout folder, or unlabelled, leaves it out",
        )
