"""A folder of images that tables beside them name -> a manifest: labels, patients and splits of the tables, images and
masks of the folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from msmae.data.manifest import COLUMNS, SEPARATOR, LeftOut, Manifest, printable
from msmae.data.tables.beside import TableBeside, check_lists, check_once, find_tables_beside, listed_split, says_mask
from msmae.data.tables.choosing import (
    Chosen,
    called_label,
    check_folders,
    check_labels_elsewhere,
    check_words,
    choose,
    two_readings,
)
from msmae.data.tables.findings import read_findings
from msmae.data.tables.folders import read_without_classes
from msmae.data.tables.labels import READER, by_majority, check_classes, check_merged, clean_labels, label_notes
from msmae.data.tables.listing import SPREADSHEETS, Listing, count, left_out, some
from msmae.data.tables.meaning import known_patients, patient_column, site_column
from msmae.data.tables.naming import Names
from msmae.data.tables.split_columns import check_no_flag, check_splits, split_column, split_word
from msmae.data.tables.tables import ColumnNames, folds_kept
from msmae.errors import UserError

LAYOUT = "tables"
OURS = {*COLUMNS, "axis", "index", "frame", "window", "fold", "cluster", "as_written"}
"""Names of columns that mean something here: a stranger's column of this name is called otherwise."""


@dataclass(frozen=True)
class Cells:
    """What tables say of the images: ``values`` [images], "" where nothing; ``rule`` in a few words."""

    values: list[str]
    rule: str


def read_by_tables(listing: Listing, columns: ColumnNames, folders: Manifest | None = None) -> Manifest | None:
    """The images of a folder with the labels, patients, splits and further columns of the tables that name them.

    None where no table does. Columns that are given are taken; otherwise the label's must be the only one that may be.
    ``folders``: the images as their class folders say; the labels then stay those of the folders.

    Raises ``UserError`` where several columns may be the label, or none, where rows of an image contradict, and where
    a column called label, class or diagnosis contradicts the folders.
    """
    base = read_without_classes(replace(listing, others=())) if folders is None else _without_note_on_files(folders)
    paths, splits = base.table["image_path"].tolist(), base.table["split"].tolist()
    names = Names(paths, splits)
    tables = _with_image_column(find_tables_beside(listing, names, column=columns.image_path), columns, names)
    where = str(listing.root)
    masks = _masks(tables, names, columns, where=where)
    if masks:
        base = _masked(base, {paths[image]: [paths[mask] for mask in those] for image, those in masks.items()})
        paths, splits = base.table["image_path"].tolist(), base.table["split"].tolist()
        names = Names(paths, splits)
        tables = _with_image_column(find_tables_beside(listing, names, column=columns.image_path), columns, names)
    _check_columns(tables, columns, where=where)
    if not tables:
        return None
    masked = bool(base.table["mask_path"].any()) or folders is not None
    chosen = _chosen(tables, columns, images=len(paths), masked=masked, folders=folders, where=where)
    try:
        rows, votes = _rows(chosen.tables, chosen.names, where=where) if chosen.names else (pd.DataFrame(), [])
        labels, notes, unknown = _labels(rows, chosen, len(paths), columns.unknown, where=where)
        notes = [*votes, *notes]
    except UserError as error:
        if folders is None:
            raise
        if called_label(chosen) and len({table.path.rpartition("/")[0] for table in chosen.tables}) > 1:
            raise two_readings(folders.classes, chosen, f", and {error.what}", error.mend or "", where=where) from error
        labels, notes, unknown, chosen = [""] * len(paths), [], "", Chosen((), ())  # the folders say the label
    classes = folders.classes if folders else ()
    check_lists(tables, images=len(paths), classes=classes, labels=chosen.names, where=where)
    if folders is not None:
        check_folders(folders.classes, folders.table["label"], labels, chosen, where=where)
        labels, notes, chosen = folders.table["label"].tolist(), [], Chosen((), ())
    aside = [table for table in tables if table.others and table not in chosen.tables]
    aside = [table for table in aside if table.column not in chosen.names]  # it tells of classes, not of images
    if folders is None:
        check_labels_elsewhere(aside, labels, where=where)
    people = _people(chosen, tables, columns, len(paths), where=where)
    if folders is None and columns.patient_id and not (any(people.values) or base.table["patient_id"].any()):
        people = _by_rows(chosen, len(paths))
    for table in tables:
        label = chosen.names[0] if len(chosen.names) == 1 and table in chosen.tables else ""
        people_in = people.rule.rpartition("the column ")[2]
        notes += check_merged(table.table, label=label, patient=people_in, where=f"{where}/{table.path}")
    cut = _splits(base, labels, chosen, tables, columns, where=where)
    told: dict[str, list[str]] = {"label": labels, "split": cut.values}
    rules = {"label": chosen.rule if folders is None else folders.rules["label"]}
    rules |= {"split": cut.rule} if cut.rule else {}
    rules |= {"unknown": unknown} if unknown else {}
    if any(people.values):
        told["patient_id"], rules["patient_id"] = people.values, people.rule
    used = [*chosen.tables]
    further: dict[str, list[str]] = {}
    taken = {table.column for table in tables} | {*chosen.names, people.rule.rpartition("the column ")[2]}
    for table in [*chosen.tables, *aside]:
        more = _further(table, len(paths), skip={*taken, *told}, columns=columns)
        names_people = people.rule.rpartition("the column ")[2] in table.table
        used += [table] if (more or names_people) and table not in used else []
        for name, values in more.items():
            before = further.get(name, [""] * len(paths))
            further[name] = [old or new for old, new in zip(before, values, strict=True)]
    told = {**further, **told}
    if not (chosen.tables or further or any(people.values) or cut.values != splits):
        return None
    notes += _notes(chosen, listing, tables, used, cut)
    if folders is None:
        base, notes = replace(base, layout=LAYOUT, source=""), [*notes, *label_notes(labels)]
    return base.with_columns(told, notes=notes, rules=rules)


def _masks(tables: Sequence[TableBeside], names: Names, columns: ColumnNames, *, where: str) -> dict[int, list[int]]:
    """Image -> its masks, by a second column of a table that names pictures and is called so.

    Raises ``UserError`` for one that is not: a row has several images.
    """
    found: dict[int, list[int]] = {}
    for table in tables:
        own = {image for image in table.images if image >= 0}
        for name in table.others:
            others = names.column(table.table[name].tolist(), split=table.split)
            both = zip(table.images, others, strict=False)
            pairs = dict.fromkeys((image, other) for image, other in both if image >= 0 <= other)
            theirs = {other for _, other in pairs}
            if not pairs or theirs & own or 2 * len(theirs) < len(own):
                continue
            if says_mask(name):
                for image, other in pairs:
                    found.setdefault(image, []).append(other)
            elif columns.image_path == ColumnNames.image_path:
                raise UserError(
                    f"a row names several images, in the columns {table.column} and {name}",
                    where=f"{where}/{table.path}",
                    mend=f"write a CSV with one row per image and its patient_id, or say --image-column {table.column}",
                )
    return found


def _masked(base: Manifest, masks: dict[str, list[str]]) -> Manifest:
    """The images with these masks, which are no longer among them."""
    taken = {mask for those in masks.values() for mask in those}
    kept = [row for row, path in enumerate(base.table["image_path"]) if path not in taken]
    images = base.select(kept)
    both = zip(images.table["image_path"], images.table["mask_path"], strict=True)
    cells = [SEPARATOR.join(masks.get(path, [cell])) for path, cell in both]
    return images.with_columns({"mask_path": cells}, rules={"mask_path": "a column of the table"})


def _without_note_on_files(manifest: Manifest) -> Manifest:
    """The manifest without the note that no table was used."""
    told = ("no image by name", "naming none of the images")
    notes = [n for n in manifest.notes if not (isinstance(n, LeftOut) and n.why.startswith(told))]
    return replace(manifest, notes=tuple(notes))


def _chosen(
    tables: Sequence[TableBeside],
    columns: ColumnNames,
    *,
    images: int,
    masked: bool,
    folders: Manifest | None,
    where: str,
) -> Chosen:
    """The labels' tables; none where no table has any, or where the folders say the labels and it cannot be known."""
    try:
        return choose(tables, columns, images=images, masked=masked, where=where) or Chosen((), ())
    except UserError:
        if folders is None:
            raise
        return Chosen((), ())


def _with_image_column(tables: Sequence[TableBeside], columns: ColumnNames, names: Names) -> list[TableBeside]:
    """The tables, the images named by the column that is given; those without it are no longer among them."""
    if columns.image_path == ColumnNames.image_path:
        return list(tables)
    told = [table for table in tables if columns.image_path in table.table]
    found = [
        replace(
            table,
            column=columns.image_path,
            images=names.column(table.table[columns.image_path].tolist(), split=table.split),
        )
        for table in told
    ]
    return [table for table in found if table.images]


def _check_columns(tables: Sequence[TableBeside], columns: ColumnNames, *, where: str) -> None:
    """Raise ``UserError`` for a column that is asked for and in no table that names images."""
    there = {str(name) for table in tables for name in table.table}
    for column in ("label", "patient_id", "split", "site"):
        wanted = getattr(columns, column)
        for name in wanted.split(SEPARATOR) if column == "label" else [wanted]:
            if tables and wanted != getattr(ColumnNames(), column) and name and name.strip() not in there:
                raise UserError(
                    f"no table that names the images has a column '{name.strip()}' for the {column}; there are "
                    f"{some(sorted(there), at_most=20)}",
                    where=where,
                    mend=f"name one of them, --{column.partition('_')[0]}-column NAME",
                )


def _rows(tables: Sequence[TableBeside], used: Sequence[str], *, where: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the tables that name an image, one each, with the column ``_image``; and how several readers' rows
    became one.

    Raises ``UserError`` where rows of one image differ in a column that is ``used``.
    """
    parts, kept = [], [*used, *(n for table in tables for n in table.others if READER.fullmatch(n) and n not in used)]
    for table in tables:
        part = table.table[[name for name in dict.fromkeys(kept) if name in table.table]].assign(_image=table.images)
        parts.append(part[part["_image"] >= 0])
    rows, votes = by_majority(pd.concat(parts, ignore_index=True).fillna("").drop_duplicates(), "_image", used)
    rows = rows[[*(name for name in used if name in rows), "_image"]].drop_duplicates()
    twice = rows[rows.duplicated("_image", keep=False)]
    if len(twice):
        named = tables[0].table[tables[0].column]
        number = twice["_image"].nunique()
        alike = f" of {some([table.path for table in tables])}" if len(tables) > 1 else ""
        raise UserError(
            f"{count(number, 'image')} with several rows that differ in {some(list(used))}{alike} "
            f"({some(sorted({str(cell) for cell in named})[:2])})",
            where=f"{where}/{tables[0].path}",
            mend="write a CSV, one row per image (several labels: a;b); or move a table away; or --layout unlabelled",
        )
    return rows, votes


def _labels(
    rows: pd.DataFrame, chosen: Chosen, images: int, policy: str, *, where: str
) -> tuple[list[str], list[str], str]:
    """The label of every image, what should be known of it, and the rule for what is not known."""
    labels, unknown = [""] * images, ""
    if not chosen.names or rows.empty:
        return labels, [], ""
    if len(chosen.names) > 1:
        read = read_findings(rows, chosen.names, where=where, policy=policy)
        values, notes, unknown = read.labels, read.notes, read.unknown
    else:
        cleaned, notes = clean_labels(rows[chosen.names[0]])
        check_classes(cleaned, where=f"{where}/{chosen.tables[0].path}")
        values = cleaned.tolist()
        check_words(chosen, where=where)
    for image, value in zip(rows["_image"], values, strict=True):
        labels[image] = value
    return labels, notes, unknown


def _people(chosen: Chosen, tables: Sequence[TableBeside], columns: ColumnNames, images: int, *, where: str) -> Cells:
    """The patient of every image by the first table that knows patients, those with labels first."""
    given = columns.patient_id if columns.patient_id != ColumnNames.patient_id else ""
    if not columns.patient_id:
        return Cells([""] * images, "")
    values, rule = [""] * images, ""
    for table in [*chosen.tables, *(table for table in tables if table not in chosen.tables)]:
        name = given if given in table.table else "" if given else patient_column(table.table, table.column)
        name = name or (rule.removeprefix("the column ") if rule.removeprefix("the column ") in table.table else "")
        if not name:
            continue
        for image, cell in zip(table.images, known_patients(table.table[name]), strict=True):
            if image >= 0 and cell:
                if values[image] not in ("", cell):
                    raise UserError(
                        f"an image has two patients, {values[image]} and {cell} (column {name})",
                        where=f"{where}/{table.path}",
                        mend="correct the rows, or --patient-column NAME",
                    )
                values[image] = cell
        rule = rule or f"the column {name}"
    return Cells(values, rule)


def _by_rows(chosen: Chosen, images: int) -> Cells:
    """Patients by a table of labels that has one row per folder: its images belong together."""
    values, rule = [""] * images, ""
    for table in chosen.tables:
        for image, cell in zip(table.images, table.table[table.column], strict=True) if table.whole else ():
            values[image], rule = cell, f"the column {table.column}"
    return Cells(values, rule)


def _splits(
    base: Manifest,
    labels: Sequence[str],
    chosen: Chosen,
    tables: Sequence[TableBeside],
    columns: ColumnNames,
    *,
    where: str,
) -> Cells:
    """The split of every image: by a column, by lists of names, by folders, or by the names of the labels' tables."""
    folders, paths = base.table["split"].tolist(), base.table["image_path"].tolist()
    told, rule = list(folders), base.rules.get("split", "")
    listed = {table.path: listed_split(table) for table in tables if not table.others}
    if len({word for word in listed.values() if word}) > 1 or (any(listed.values()) and not any(folders)):
        check_once([(table, listed[table.path]) for table in tables if table.path in listed], paths, where=where)
        for table in tables:
            for image in table.images if table.path in listed else ():
                if image >= 0 and listed[table.path]:
                    told[image] = "" if listed[table.path] == "pool" else listed[table.path]
        rule = f"the lists {some([path for path, word in listed.items() if word])}"
    elif not any(folders) and columns.split and len({table.split for table in chosen.tables}) > 1:
        check_once([(table, table.split) for table in chosen.tables], paths, where=where)
        said_by = {image: table.split for table in chosen.tables if table.split for image in table.images if image >= 0}
        if unnamed := [table.path for table in chosen.tables if not table.split and set(table.images) - {-1, *said_by}]:
            mend = "name it train, val or test, or --split-column '' leaves the names out"
            raise UserError(f"beside tables named after splits there is {some(unnamed)}", where=where, mend=mend)
        told = [said_by.get(image, split) for image, split in enumerate(told)]
        rule = "the names of the tables"
    said = dict(enumerate(folders))  # image -> its split by its folder, or by a row before
    for table in tables if columns.split else ():
        given, file = columns.split if columns.split != ColumnNames.split else "", f"{where}/{table.path}"
        found = "" if given else split_column(table.table, table.others, where=file)
        name = given if given in table.table else found
        if not given and not name:
            check_no_flag(table.table, table.others, where=file)
        for image, cell in zip(table.images, table.table[name], strict=True) if name else ():
            word = split_word(cell)
            if image >= 0 and word and said[image] not in ("", word):
                before = f"lies under {said[image]}" if folders[image] else f"is {said[image]} in another row"
                raise UserError(
                    f"{base.table['image_path'].iloc[image]} {before}, and the column {name} says '{cell}'",
                    where=file,
                    mend="correct one of them, or --split-column '' leaves the column out",
                )
            if image >= 0 and word:
                told[image] = said[image] = word
            rule = f"the column {name}"
    check_splits(told, rule=rule, where=where)
    bare = {split for split in ("test", "val") if split in told} - {
        split for split, label in zip(told, labels, strict=True) if label
    }
    if any(labels) and bare:
        told = ["" if split in bare else split for split in told]
        rule += f" ({' and '.join(sorted(bare))} without a label, for pre-training)"
    return Cells(told, rule)


def _further(table: TableBeside, images: int, *, skip: set[str], columns: ColumnNames) -> dict[str, list[str]]:
    """The other columns of a table that say one thing of an image each, [images]."""
    site = columns.site if columns.site in table.table else site_column(table.table, table.others)
    told: dict[str, list[str]] = {}
    for name in table.others:
        if name in skip or not name:
            continue
        values, clear = [""] * images, True
        for image, cell in zip(table.images, table.table[name], strict=True):
            if image >= 0:
                clear = clear and values[image] in ("", cell)
                values[image] = cell
        if clear and any(values):
            told["site" if name == site else f"{name}_in_file" if name in OURS else name] = values
    return told


def _notes(
    chosen: Chosen, listing: Listing, tables: Sequence[TableBeside], used: Sequence[TableBeside], cut: Cells
) -> list[str]:
    """What was used, and what was not."""
    lists = [table.path for table in tables if not table.others]
    by = f", images by the column {some(sorted({table.column for table in used}), at_most=3)}" if used else ""
    notes = [f"tables used: {some([table.path for table in used], at_most=8)}{by}"] if used else []
    for table in chosen.tables:
        notes += left_out(sum(image < 0 for image in table.images), "row", f"of {table.path}, naming no image here")
    notes += [*chosen.notes]
    notes += folds_kept(name for table in used for name in table.others)
    known = {table.path for table in used} | (set(lists) if "the lists" in cut.rule else set())
    others = [printable(path) for path in listing.others if path not in known]
    others = [path for path in others if not path.lower().endswith(SPREADSHEETS)]  # told by themselves
    return [*notes, *left_out(len(others), "file", f"no image and not used: {some(others)}")]
