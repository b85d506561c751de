"""The labels of other people's tables -> one way of writing each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from msmae.data.manifest import NO_FINDING, SEPARATOR, UNSURE, plain
from msmae.data.tables.listing import count, some
from msmae.data.tables.roles import EXCLUDED, OF_USE, QUALITY, REFUSED, USE, YES_OR_NO, words
from msmae.errors import UserError

UNKNOWN = {"", "nan", "na", "n/a", "<na>", "null", "nat", "#n/a", "?"}  # a label written like this is not known
NOT_SAID = UNKNOWN | {"none"}  # nor is a patient, a split, a site or a mask; a class may be called None
_SIGN = r"[^\w\u0300-\u036f]"  # an accent written by itself is none: NÀ is a name
_AROUND = rf"(?:{_SIGN}|_)*"
ANONYMISED = re.compile(
    rf"0+|{_AROUND}(?:anon[a-z]*(?:{_SIGN}[a-z]+)?|de-?identified|removed|unknown|none|null|nan|na|n/a|test|dummy"
    rf"|patient(?:id|name)?|x+){_AROUND}",
    re.IGNORECASE,
)
"""A PatientID that anonymisation leaves behind: ``ANONYMOUS``, ``Anonymized``, ``XXXX``, ``0000``."""
LONGEST_BLOCK = 50
"""Rows that merged cells of a spreadsheet stand for at most."""
NONE_FOUND = {"no finding", "no findings", "no_finding", "nofinding"}


def clean_labels(labels: pd.Series) -> tuple[pd.Series, list[str]]:
    """One way of writing each label, and what a person should know of it.

    ``nan`` and its kin become "no label"; ``3.0`` and ``3,0`` become ``3`` where all labels are whole numbers; the
    pieces of ``b; a`` are put in order; ``;`` alone (examined, none of the classes) stays. Where no label has a ``;``,
    ``b|a`` are several labels, and so are ``b, a`` and ``b+a`` where each piece is also a label of its own; ``No
    Finding`` among them is none of the classes.
    """
    cleaned = ["" if label.strip().lower() in UNKNOWN else plain(label.strip()) for label in labels]
    cleaned, told = _separated(cleaned)
    if all(re.fullmatch(r"\d+(\.0*|,00?)?", label, re.ASCII) for label in cleaned if label):
        cleaned = [re.split("[.,]", label)[0] for label in cleaned]
    cleaned = [_ordered(label) if SEPARATOR in label else label for label in cleaned]
    return pd.Series(cleaned, index=labels.index, dtype=object), told


def _separated(labels: list[str]) -> tuple[list[str], list[str]]:
    """Labels with ``;`` in place of another sign that joins several, where there is one."""
    if any(SEPARATOR in label for label in labels):
        return labels, []
    alone = set(labels)
    lists = {label: _listed(label) for label in alone if label}
    if lists and all(pieces is not None for pieces in lists.values()):
        several = [SEPARATOR.join(lists[label] or [NO_FINDING]) if label else "" for label in labels]
        return several, [f"a label is a list in brackets ('{min(lists, key=len)}')"]
    for sign in ("|", ",", "+"):
        joined = [label for label in alone if sign in label]
        pieces = {piece.strip() for label in joined for piece in label.split(sign)}
        if not joined or "" in pieces or (sign != "|" and not pieces <= alone):
            continue
        none = next((label for label in alone if label.lower() in NONE_FOUND), "")
        several = [NO_FINDING if none and label == none else label.replace(sign, SEPARATOR) for label in labels]
        example = min(joined, key=lambda label: (len(label), label))
        told = [f"'{sign}' joins several labels of an image ('{example}')"]
        told += [f"'{none}' means none of them"] if none else []
        return several, told
    return labels, []


def _listed(label: str) -> list[str] | None:
    """The pieces of a label written as a list, ``['a', 'b']``; None where it is none."""
    if not re.fullmatch(r"\[.*\]", label, re.DOTALL):
        return None
    inside = label[1:-1].strip()
    pieces = [piece.strip().strip("'\"").strip() for piece in inside.split(",")] if inside else []
    return None if "" in pieces else pieces


MAYBE_NOTHING = {
    "unknown",
    "undetermined",
    "missing",
    "not available",
    "not labelled",
    "not labeled",
    "unclear",
    "unsure",
}
"""What a class may be called, and an image without a label."""


def label_notes(labels: Sequence[str] | pd.Series) -> list[str]:
    """What a person should know about these labels."""
    notes = []
    unlabelled = sum(label == "" for label in labels)
    if unlabelled:
        number = count(unlabelled, "image") if unlabelled < len(labels) else "all images"
        notes.append(f"{number} without a label, for pre-training only")
    hidden = sum(piece.startswith(UNSURE) for label in labels for piece in label.split(SEPARATOR))
    if hidden:
        notes.append(f"{count(hidden, 'label')} with ? before it: not known of its image, and left out of that class")
    names = {piece for label in labels for piece in label.split(SEPARATOR)}
    doubtful = sorted(name for name in names if name.casefold() in MAYBE_NOTHING)
    if doubtful:
        notes.append(f"a class is called {some(doubtful)}: if its images have no label, empty these cells or move them")
    return [*notes, *_alike(names)]


def _alike(names: set[str]) -> list[str]:
    """A sentence where classes differ only in capital letters, or in zeros before a number (``0012``, ``12``), which a
    spreadsheet takes away."""
    notes = []
    alike: dict[str, Callable[[str], str]] = {
        "capital letters": str.casefold,
        "leading zeros": lambda name: name.lstrip("0") or "0",
    }
    for how, key in alike.items():
        spellings: dict[str, set[str]] = {}
        for name in names:
            if how == "capital letters" or name.isdecimal():
                spellings.setdefault(key(name), set()).add(name)
        twins = sorted(" / ".join(sorted(found)) for found in spellings.values() if len(found) > 1)
        if twins:
            notes.append(f"classes that differ only in {how} are different classes here: {some(twins)}")
    return notes


MEASURED = re.compile(r"[+-]?(?:\d*\.\d+|\d\d+,\d+|\d*,\d\d+)(?:[eE][+-]?\d+)?", re.ASCII)
"""A number with decimals; ``1,2`` may be two classes."""


def check_classes(labels: Sequence[str] | pd.Series, *, where: str) -> None:
    """Raise ``UserError`` for measurements in place of classes: numbers with decimals, most of them different."""
    given = [label for label in labels if label]
    measured = [label for label in given if MEASURED.fullmatch(label)]
    if len(given) >= 8 and len(measured) >= 0.8 * len(given) and 2 * len(set(given)) > len(given):
        raise UserError(
            f"the labels are measurements, not classes: {len(set(given)):,} numbers in {count(len(given), 'image')} "
            f"({some(sorted(set(measured)), at_most=3)})",
            where=where,
            mend="cut them into classes, or name another column, --label-column NAME",
        )


def check_merged(table: pd.DataFrame, *, label: str, patient: str, where: str) -> list[str]:
    """What to say of patients that stand in the first row of each block alone, as merged cells of a spreadsheet are
    saved. Raises ``UserError`` where the labels do, too: the rows below are of the same class, not of an unknown one.
    """
    labels, people = (table[name].tolist() if name in table else [] for name in (label, patient))
    alone = _blocks(people, once=True)
    merged = label if _blocks(labels) or (alone and _empty(labels) == _empty(people)) else patient if alone else ""
    told = (
        f"the column {merged} is filled in the first row of each block alone, as merged cells of a spreadsheet are "
        f"saved ({len(_empty(table[merged] if merged else [])):,} of {len(table):,} cells are empty)"
    )
    mend = "if its cells were merged, fill them downwards; where nothing is known, write NA"
    if merged and merged == label:
        raise UserError(told, where=where, mend=mend)
    return [f"{told}: {mend}"] if merged else []


def _empty(cells: Sequence[str] | pd.Series) -> list[int]:
    return [row for row, cell in enumerate(cells) if not cell.strip()]


def _blocks(cells: Sequence[str], *, once: bool = False) -> bool:
    """Whether cells are filled in the first row of blocks alone; ``once``: each name in one row, and then blocks of one
    row tell nothing against it."""
    filled = [row for row, cell in enumerate(cells) if cell.strip()]
    blocks = [after - row for row, after in pairwise([*filled, len(cells)])]
    if len(filled) < 3 or filled[0] or max(blocks) > LONGEST_BLOCK or len(cells) < 1.5 * len(filled):
        return False
    return min(blocks) > 1 or (once and len({cells[row] for row in filled}) == len(filled))


_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")


def check_used(table: pd.DataFrame, *, label: Sequence[str] = (), where: str) -> None:
    """Raise ``UserError`` for a column, but the ``label``, that says of some rows that they are not to be used."""
    for name in (name for name in map(str, table) if name not in label):
        said, rest = set(words(name)), set(words(name)) - OF_USE
        cells = Counter(cell.strip() for cell in table[name]) if said & EXCLUDED or rest <= USE | QUALITY else {}
        told = {cell.lower() for cell in cells}
        refuses = told & REFUSED or (rest & USE and told in YES_OR_NO)
        reasons = bool(said & EXCLUDED) and "" in told and not any(map(_NUMBER.fullmatch, told))
        if len(cells) > 1 and (reasons or (len(cells) <= 3 and (said & EXCLUDED or (rest and refuses)))):
            raise UserError(
                f"the column {name} says which images are not to be used ({some([c for c in cells if c], at_most=3)})",
                where=where,
                mend="remove these rows, and then the column; or rename it, if it says something else",
            )


def people_notes(patients: Sequence[str] | pd.Series) -> list[str]:
    """What a person should know about these patients."""
    names = set(patients)
    rounded = sorted(name for name in names if re.fullmatch(r"\d(?:[.,]\d+)?[eE]\+?\d+|\d{6,}0{6,}(?:\.0)?", name))
    told = f"a spreadsheet has rounded {some(rounded)}: several patients may have become one"
    return [told] if rounded else []


def _ordered(label: str) -> str:
    pieces = {piece.strip() for piece in label.split(SEPARATOR)}
    return join_labels({piece for piece in pieces if piece.lower() not in UNKNOWN})


def join_labels(pieces: set[str]) -> str:
    """Several labels of an image as one; a class that it has is not one of which that is not known (``a``, ``?a``:
    ``a``)."""
    kept = sorted(piece for piece in pieces - {""} if not (piece.startswith(UNSURE) and piece[1:] in pieces))
    joined = SEPARATOR.join(kept) or NO_FINDING
    return joined + SEPARATOR if len(kept) == 1 and joined.startswith(UNSURE) else joined


def cells_of(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """A tuple a row: pandas before 3.1 takes several columns of names that are not UTF-8 for equal."""
    return pd.Series(list(table[columns].itertuples(index=False, name=None)), index=table.index, dtype=object)


def written_alike(paths: Sequence[str] | pd.Series, *, root: Path) -> list[str]:
    """The paths, each file's as it is first written: ``a.png``, ``./a.png`` and ``/data/a.png`` may be one."""
    if not any(path.startswith(("/", "..")) or "./" in path or "//" in path for path in paths):
        return list(paths)
    base, real, first = os.path.realpath(root), lru_cache(maxsize=None)(os.path.realpath), dict[str, str]()

    def place(path: str) -> str:
        folder, name = os.path.split(os.path.join(base, path))
        if ".." in folder:  # behind a link it is another folder than the one before
            folder = real(folder)
        return os.path.normpath(os.path.join(folder, name)) if path else ""

    return [first.setdefault(place(path), path) for path in paths]


def without_duplicates(table: pd.DataFrame, *, where: str) -> tuple[pd.DataFrame, int]:
    """Drop exact duplicates and count them; raises ``UserError`` where an image has rows that differ."""
    exact = cells_of(table, list(table.columns)).duplicated().to_numpy()
    table = table[~exact]
    image = [column for column in ("image_path", "axis", "index", "frame") if column in table]
    twice = table[cells_of(table, image).duplicated(keep=False).to_numpy()]
    if len(twice):
        images = sorted(set(twice["image_path"]))
        raise UserError(
            f"{count(len(images), 'image')} with several rows that differ: {some(images)}",
            where=where,
            mend="write one row per image, and several labels as a;b",
        )
    return table, int(np.count_nonzero(exact))


READER = re.compile(
    r"(rad|radiologist|reader|rater|annotator|observer|grader|doctor|expert|physician)s?[ _-]?(id|no|name|number)?",
    re.IGNORECASE,
)
"""How a column is called that says whose reading a row is."""


def by_majority(table: pd.DataFrame, image: str, said: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row per image of a table with a row a reader: what more than half of an image's readers say in the columns
    ``said``, an empty cell where they are divided. Any other table as it is.
    """
    reader = next((str(name) for name in table if READER.fullmatch(str(name))), "")
    said = [name for name in said if name in table]
    if not reader or reader in said or not table.duplicated(image).any() or table.duplicated([image, reader]).any():
        return table, []
    groups, divided = table.groupby(image, sort=False), 0
    readers = groups.size()  # of every image, in its order
    joined = groups.first().where(groups.nunique() == 1, "")
    for name in said:
        votes = table.groupby([image, name], sort=False).size().rename("votes").reset_index()
        best = votes.sort_values("votes").drop_duplicates(image, keep="last").set_index(image).loc[readers.index]
        clear = 2 * best["votes"] > readers
        joined[name] = best[name].where(clear, "")
        divided += int((~clear).sum())
    joined = joined.reset_index()[list(table.columns)].drop(columns=reader).astype(object)
    most = int(readers.max())
    told = f"up to {count(most, 'reader')} an image (column {reader}): what more than half of them say counts"
    return joined, [f"{told}; {count(divided, 'cell')} where they are divided left empty" if divided else told]
