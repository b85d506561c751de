"""Which tables beside images hold the labels, in which column; and where it cannot be known, what may be meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from msmae.data.manifest import SEPARATOR
from msmae.data.tables.beside import TableBeside
from msmae.data.tables.findings import few_values, finding_columns
from msmae.data.tables.labels import clean_labels
from msmae.data.tables.listing import count, left_out, some
from msmae.data.tables.meaning import (
    anything_but_label,
    label_columns,
    label_findings,
    patient_column,
    site_column,
)
from msmae.data.tables.roles import letters
from msmae.data.tables.split_columns import split_column
from msmae.data.tables.tables import ColumnNames
from msmae.errors import UserError

CALLED_LABEL = {"label", "labels", "class", "classname", "diagnosis", "dx", "target"}
HALF = 0.5
"""Share of the images, or of a split's, that tables of labels must name to be taken unasked."""


@dataclass(frozen=True)
class Chosen:
    """The tables of the labels and the columns they are in: one, or one a finding; none of both for no labels."""

    tables: tuple[TableBeside, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """In a few words, what the labels are."""
        if not self.names:
            return "no column, as told" if self.tables else "no column"
        what = f"the column {self.names[0]}" if len(self.names) == 1 else f"{len(self.names)} columns, one a finding,"
        return f"{what} of {some([table.path for table in self.tables])}"


def choose(
    tables: Sequence[TableBeside], columns: ColumnNames, *, images: int, masked: bool, where: str
) -> Chosen | None:
    """The labels as told, or the only ones that may be; None where no table says more than names.

    Raises ``UserError`` where several columns may be the label, or where none is known for it (``masked`` images need
    none).
    """
    saying = [table for table in tables if table.others]
    if not saying:
        return None
    if not columns.label:
        return Chosen(tuple(saying), ())
    if columns.label != ColumnNames.label:
        names = tuple(name.strip() for name in columns.label.split(SEPARATOR))
        return Chosen(tuple(table for table in saying if set(names) <= set(table.table)), names)
    groups: dict[tuple[str, ...], list[TableBeside]] = {}
    for table in saying:
        groups.setdefault(tuple(map(str, table.table)), []).append(table)
    found: list[Chosen] = []
    for alike in groups.values():
        found += _in_group(alike, images)
    several = [chosen for chosen in found if len(chosen.names) == 1] or found
    if {chosen.names for chosen in several if called_label(chosen)} == {(ColumnNames.label,)}:
        several = [chosen for chosen in several if called_label(chosen)]  # no other is called so
    if len({chosen.names for chosen in several}) == 1:  # one column, of all tables that have it, as if it were told
        names, paths = several[0].names, {table.path for chosen in several for table in chosen.tables}
        notes = tuple(note for chosen in several for note in chosen.notes)
        named = {image for table in saying if table.path in paths for image in table.images}
        other = [table for table in saying if set(names) <= set(table.table) and not named & set(table.images) - {-1}]
        more = [table for table in other if any(table.table[name].nunique() > 1 for name in names)]
        return Chosen(tuple(table for table in saying if table.path in paths or table in more), names, notes)
    large = [table for alike in groups.values() for table in alike if _enough(alike, images)]
    offered = [table for table in large if _offered(table)]
    if several or (large and not masked) or offered:
        raise _unknown(several, offered or large, where=where)
    if not masked:
        return None
    said = "no column of {} is known to be the label ({}): --label-column NAME"
    return Chosen((), (), tuple(said.format(table.path, some(table.others, at_most=8)) for table in large))


def check_labels_elsewhere(tables: Sequence[TableBeside], labels: Sequence[str], *, where: str) -> None:
    """Raise ``UserError`` where a further table holds the classes of images that have no label: under another header
    they were left out."""
    classes = set(labels) - {"", SEPARATOR}
    for table in tables if not all(labels) else ():
        for name in table.others:
            cells = list(zip(table.images, clean_labels(table.table[name])[0], strict=True))
            told = [cell for image, cell in cells if image >= 0 and not labels[image] and cell]
            other = any(image >= 0 and labels[image] not in ("", cell) for image, cell in cells if cell)
            if not other and len(set(told)) > 1 and set(told) <= classes and not anything_but_label(name):
                raise UserError(
                    f"{count(len(told), 'image')} without a label, which the column {name} of {table.path} has",
                    where=where,
                    mend="call the column of the labels alike in all tables; if it is none, move this table away",
                )


def check_words(chosen: Chosen, *, where: str) -> None:
    """Raise ``UserError`` where a table calls all of its classes otherwise than the others: ``0.0`` here, ``benign``
    there. Tables of one class each say the classes together, and of several tables one may be of a class alone."""
    (name,) = chosen.names
    told = [(table, set(clean_labels(table.table[name])[0]) - {"", SEPARATOR}) for table in chosen.tables]
    told = [(table, said) for table, said in told if said]
    if all(len(said) == 1 for _, said in told):
        return
    for table, said in told:
        others = {word for other, words in told if other is not table for word in words}
        if others and not said & others and (len(said) > 1 or len(told) == 2 or table.split):
            beside = next(other.path for other, _ in told if other is not table)
            raise UserError(
                f"{table.path} and {beside} have no label in common ({min(said)}, {min(others)})",
                where=where,
                mend="call the classes alike in both",
            )


def check_folders(
    classes: Sequence[str], folders: Iterable[str], labels: Sequence[str], chosen: Chosen, *, where: str
) -> None:
    """Raise ``UserError`` where a column that is called like a label, or holds the classes, says otherwise than the
    class ``folders`` [n]."""
    folders = list(folders)
    if len(chosen.names) == 1 and {*labels} - {""} and {*labels} - {""} <= {*classes}:
        wrong = [
            row for row, (folder, label) in enumerate(zip(folders, labels, strict=True)) if label not in ("", folder)
        ]
        if wrong:
            first = f"{labels[wrong[0]]} in {folders[wrong[0]]}/"
            says = f", which says otherwise of {count(len(wrong), 'image')} ({first})"
            raise two_readings(classes, chosen, says, "", where=where)
    if not called_label(chosen):
        return
    of: dict[str, set[str]] = {}
    for folder, label in zip(folders, labels, strict=True):
        of.setdefault(folder, set()).update({label} - {""})
    if any(len(said) > 1 for said in of.values()):
        first = next(folder for folder, said in of.items() if len(said) > 1)
        says = f", which says {some(sorted(of[first]), at_most=3)} of images in {first}/"
        raise two_readings(classes, chosen, says, "", where=where)


def called_label(chosen: Chosen) -> bool:
    """Whether the one column that may be the label is called so."""
    return len(chosen.names) == 1 and letters(chosen.names[0]) in CALLED_LABEL


def two_readings(classes: Sequence[str], chosen: Chosen, says: str, then: str, *, where: str) -> UserError:
    """The error where class folders and a column called label exclude each other; ``then``: what the second needs."""
    name = chosen.names[0]
    second = "--layout tables" if name == ColumnNames.label else f"--label-column '{name}'"
    return UserError(
        f"this folder can be read in two ways: each of {some(list(classes), at_most=3)} is a class; or the label is "
        f"{chosen.rule}{says}",
        where=where,
        mend=f"say which: --layout folder for the first, {second} for the second{f' ({then} first)' if then else ''}",
    )


def _in_group(tables: Sequence[TableBeside], images: int) -> list[Chosen]:
    """The columns of tables with the same header that may be the label, each with its tables."""
    named = [table for table in tables if table.images]
    joined = pd.concat([table.table for table in named], ignore_index=True)
    free = [name for name in named[0].others if name not in _taken(named[0])]
    candidates = label_columns(joined, free)
    if not candidates and len(free) == 1 and label_columns(joined.assign(label=joined[free[0]]), ["label"]):
        candidates = [] if anything_but_label(free[0]) else free  # the only column of which nothing else is known
    found = []
    for name in candidates:
        inside, notes = _telling(named, name)
        if _enough(inside, images):
            found.append(Chosen(tuple(inside), (name,), tuple(notes)))
    findings = label_findings(joined, free) if not candidates else []
    if findings and _enough(named, images):
        found.append(Chosen(tuple(named), tuple(findings)))
    return found


def _taken(table: TableBeside) -> set[str]:
    """The columns that are known for something else than the label."""
    cells, others = table.table, table.others
    known = {patient_column(cells, table.column), split_column(cells, others), site_column(cells, others)}
    return known | {table.column}


def _telling(tables: Sequence[TableBeside], name: str) -> tuple[list[TableBeside], list[str]]:
    """The tables in which the column says more than one thing, if there are any beside others that say one only.

    The others count too where they say several things together (``cases.csv``, ``controls.csv``), or lie each in a
    folder of its own, as one a patient.
    """
    several = [table for table in tables if table.table[name].nunique() > 1]
    alone = [table for table in tables if table not in several] if several else []
    folders = {table.path.rpartition("/")[0] for table in tables}
    apart = len(folders) == len(tables) and not any(table.split for table in tables)
    if apart or len({str(table.table[name].iloc[0]) for table in alone}) > 1:
        return list(tables), []
    notes: list[str] = []
    for table in alone:
        notes += left_out(1, "table", f"{table.path}: every {name} in it is '{table.table[name].iloc[0]}'")
    return (several or list(tables)), notes


def _enough(tables: Sequence[TableBeside], images: int) -> bool:
    """Whether tables name enough of the images to be the labels of the whole."""
    named = {image for table in tables for image in table.images if image >= 0}
    return len(named) >= HALF * images


def _offered(table: TableBeside) -> list[str]:
    """Columns a finding that may be the labels, two or more."""
    return [name for name in finding_columns(table.table, fewest=2) if name in table.others]


def _unknown(several: Sequence[Chosen], tables: Sequence[TableBeside], *, where: str) -> UserError:
    """The error where the label cannot be known: the columns that may be it, or all there are."""
    if several:
        may = some([", ".join(chosen.names) for chosen in several], at_most=8)
        files = dict.fromkeys(table.path for chosen in several for table in chosen.tables)
        says = f"{some(list(files), at_most=3)} name the images, and the label may be in one of several columns: {may}"
        told = [SEPARATOR.join(chosen.names) for chosen in several]
        first = next(name for name in told if name != ColumnNames.label)  # which is what is looked for untold
    else:
        table = tables[0]
        findings = _offered(table)
        says = (
            f"{table.path} names the images, and none of its columns is known to be the label "
            f"({some(table.others, at_most=12)})"
        )
        few = few_values(table.table, without=[table.column, *_taken(table)])
        few = sorted(few, key=lambda name: (anything_but_label(name), table.table[name].nunique()))
        first = SEPARATOR.join(findings) if findings else (few or ["NAME"])[0]
        apart = [other.path for other in tables if not other.split]
        says += f"; if {some(apart, at_most=3)} are the classes, write one table with a column label" * (len(apart) > 1)
    return UserError(
        says,
        where=where,
        mend=f"say which it is: --label-column '{first}' (patients: --patient-column NAME, or --patients with an "
        "expression); or --label-column '' for no labels, or --layout unlabelled, which leaves tables out",
    )
