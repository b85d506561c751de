"""Labels that exist for patients (or studies, lesions) alone: each of their images gets them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from msmae.data.manifest import SEPARATOR, LeftOut, Manifest, plain, shown
from msmae.data.reading.headers import pseudonym
from msmae.data.spellings import spelled
from msmae.data.tables.findings import few_values
from msmae.data.tables.folders import check_labelled
from msmae.data.tables.labels import check_classes, clean_labels, join_labels, label_notes
from msmae.data.tables.listing import count, some
from msmae.data.tables.meaning import label_columns, patient_column
from msmae.data.tables.tables import read_table, same_names
from msmae.errors import UserError

PATIENT = "patient_id"
TABLE = re.compile(r"(?P<table>.+\.(?:csv|tsv|txt|jsonl)):(?P<column>.+)", re.IGNORECASE)


ROW_AN_IMAGE = "write a CSV with one row per image (image_path, label, patient_id), and give that as DATA"
LOOKED_AT = 5  # tables


def label_table(label_column: str) -> tuple[str, str] | None:
    """Table and column of ``--label-column patients.csv:diagnosis``; None where it says something else."""
    match = TABLE.fullmatch(label_column)
    return (match["table"], match["column"]) if match and not label_column.startswith("path:") else None


def labels_by_table(manifest: Manifest, table: str, column: str, *, unit: str, beside: Path) -> Manifest:
    """Every image with the label that a table gives its unit.

    Args:
        table: relative to ``beside``, or absolute; it has one row per unit.
        column: the table's column of labels.
        unit: the column that names the units, in the manifest and in the table; ``auto``: the patients.

    Raises:
        UserError: the table or a column is not there, it names no unit of the images, or says two things of one.
    """
    file = beside / table
    if not file.is_file():
        raise UserError("there is no such table of labels", where=str(file), mend="name it as it lies beside the data")
    cells, _ = read_table(file)
    key = _key(manifest, unit)
    name = _column_of_units(cells, manifest, key)
    if not name:
        raise UserError(
            f"no column of the table names the {_word(key)} of an image: it has {', '.join(map(str, cells.columns))}",
            where=str(file),
            mend=f"add a column {key} with what the images (or their DICOM headers) call it; or {ROW_AN_IMAGE}",
        )
    if column not in cells:
        raise UserError(
            f"the table has no column '{column}'; it has {', '.join(map(str, cells.columns))}",
            where=str(file),
            mend="name the label's column behind the colon",
        )
    given, told = clean_labels(cells[column])
    check_classes(given, where=str(file))
    of: dict[str, str] = {}
    names = [shown(plain(cell)) for cell in cells[name]]
    alike = spelled if key == PATIENT else list
    of_table = alike(names)
    for called, same, label in zip(names, of_table, given, strict=True):
        if called and of.setdefault(same, label) != label:
            apart = [
                other
                for other in map(str, cells)
                if other not in (name, column) and not cells.duplicated([name, other]).any()
            ]
            parts = f": a row is no {_word(key)}, but one's {apart[0]}" if apart else ""
            raise UserError(
                f"'{called}' has the labels '{of[same]}' and '{label}'{parts}",
                where=str(file),
                mend=ROW_AN_IMAGE if apart else "leave one row, or several labels as a;b",
            )
    units = manifest.table[key].tolist()
    people = alike(units)
    pseudonyms = {
        pseudonym(form): label
        for called, same, label in zip(names, of_table, given, strict=True)
        for form in (called, same)
        if called
    }
    if not set(people) & set(of) and set(units) & set(pseudonyms):
        people, of = units, pseudonyms  # of DICOM headers
    labels = [of.get(one, "") if one else "" for one in people]
    if not any(labels):
        raise UserError(
            f"the table names none of the {len(set(units) - {''})} in {key}: it has "
            f"{some(sorted({*names} - {''}), at_most=2)}, the images {some(sorted(set(units) - {''}), at_most=2)}",
            where=str(file),
            mend="write the names alike",
        )
    check_labelled(sorted(set(labels) - {""}), where=str(file))
    notes = [f"each image has the label of its {_word(key)}", *told]
    if strange := sorted({unit for unit, one in zip(units, people, strict=True) if unit and one not in of}):
        notes.append(f"{file.name} does not name {count(len(strange), _word(key))} of the images: {some(strange)}")
    return _relabelled(manifest, labels, notes, rule=f"the column {column} of {file.name}, by {key}", used=table)


def _column_of_units(cells: pd.DataFrame, manifest: Manifest, key: str) -> str:
    """The column of a table that holds what the images' units are called, by its name or by more than half of them;
    ``""`` for none."""
    named = same_names(key, map(str, cells.columns)) or ([patient_column(cells, "")] if key == PATIENT else [])
    if any(named):
        return named[0]
    known = {plain(name) for name in manifest.table[key] if name}
    return next((str(name) for name in cells if 2 * len(known & _forms(cells[name])) > len(known)), "")


def _forms(cells: Iterable[str]) -> set[str]:
    """What units may be called that a column names, under a pseudonym too."""
    return {form for cell in map(plain, cells) for form in (cell, pseudonym(cell))}


def offer_tables(manifest: Manifest, root: Path, tables: Sequence[str]) -> list[str]:
    """What to say of tables below ``root`` that may have one row per patient, where no image has a label: the option
    that reads one, or why none does."""
    tables = [table for table in tables if table.lower().endswith((".csv", ".tsv", ".jsonl"))]
    if manifest.classes or not tables:
        return []
    if not manifest.table["patient_id"].any():
        return [f"if a row of {tables[0]} is a patient: --patients EXPRESSION --label-column {tables[0]}:NAME"]
    told = []
    for table in tables[:LOOKED_AT]:
        try:
            cells, _ = read_table(root / table)
        except UserError:
            continue
        name = _column_of_units(cells, manifest, PATIENT)
        if not name or not set(manifest.table[PATIENT]) & _forms(filter(None, cells[name])):
            continue
        others = [other for other in map(str, cells) if other != name]
        may = next(iter([*label_columns(cells, others), *few_values(cells, without=[name])]), "NAME")
        pairs = cells[[name, may] if may in cells else [name]]
        if pairs.drop_duplicates().duplicated(name).any() or (may not in cells and pairs.duplicated().any()):
            told.append(
                f"{table} names the patients in several rows each ({name}), which label no patient: {ROW_AN_IMAGE}"
            )
        else:
            told.append(f"{table} has one row per patient ({name}): --label-column {table}:{may}")
    return told


def labels_of_units(manifest: Manifest, unit: str) -> Manifest:
    """Images without a label get that of the other images of their unit, where ``unit`` names a column; several labels
    together. Where those differ, and one image has one label, they stay without. ``auto``: only a note. Units whose
    images contradict each other are told.
    """
    key = PATIENT if unit in ("auto", "none") else unit
    if key not in manifest.table or not manifest.classes or unit == "none":
        return manifest
    of: dict[str, set[str]] = {}
    for name, label in zip(manifest.table[key], manifest.table["label"], strict=True):
        if name and label:
            of.setdefault(name, set()).update(label.split(SEPARATOR) if manifest.multilabel else [label])
    known = {
        name: join_labels(said) if manifest.multilabel else "".join(said)
        for name, said in of.items()
        if manifest.multilabel or len(said) == 1
    }
    if mixed := sorted(set(of) - set(known)):
        told = f"{count(len(mixed), _word(key))} with images of different labels, so without an answer of their own"
        manifest = manifest.with_columns({}, notes=[f"{told}: {some(mixed, at_most=3)}"])
    labels = [
        label or known.get(name, "") for name, label in zip(manifest.table[key], manifest.table["label"], strict=True)
    ]
    filled = sum(new != old for new, old in zip(labels, manifest.table["label"], strict=True))
    if not filled:
        return manifest
    whose = f"{count(filled, 'image')} without a label of a {_word(key)} that has one"
    if unit == "auto":
        return manifest.with_columns({}, notes=[f"{whose}: --unit {key} gives them that label"])
    rule = manifest.rules.get("label", "the images")
    return _relabelled(manifest, labels, [f"{whose}: it is theirs too"], rule=f"{rule}, by {key}")


def _relabelled(manifest: Manifest, labels: list[str], notes: list[str], *, rule: str, used: str = "") -> Manifest:
    """The manifest with other labels, and what is to be said of them in place of what was; ``used``: the table that
    gave them, which is not left out."""
    before = label_notes(manifest.table["label"])
    kept = [
        note for note in manifest.notes if note not in before and "without labels, for pre-training only" not in note
    ]
    kept = [note for note in kept if not (used and isinstance(note, LeftOut) and note.number == 1 and used in note.why)]
    manifest = replace(manifest, notes=tuple(kept))
    return manifest.with_columns({"label": labels}, notes=[*notes, *label_notes(labels)], rules={"label": rule})


def _key(manifest: Manifest, unit: str) -> str:
    """The manifest's column that names what the table labels."""
    key = PATIENT if unit in ("auto", "none") else unit
    if key not in manifest.table or not manifest.table[key].any():
        raise UserError(
            f"no image names its {_word(key)}, so a table cannot label it",
            where=manifest.where,
            mend="--patients or --patient-column names the patients, --unit another column of the data",
        )
    return key


def _word(key: str) -> str:
    return "patient" if key == PATIENT else key
