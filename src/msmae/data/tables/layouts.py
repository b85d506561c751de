"""A folder, a table or an archive -> the manifest, and how it was recognised."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from pathlib import Path

from msmae.data.copies import with_copies
from msmae.data.manifest import LeftOut, Manifest, plain
from msmae.data.spellings import one_patient_a_spelling
from msmae.data.tables.by_tables import LAYOUT, read_by_tables
from msmae.data.tables.findings import parse_labels
from msmae.data.tables.folders import READERS, check_labelled, read_without_classes, recognise_folders
from msmae.data.tables.listing import SPREADSHEETS, Listing, left_out, list_folder, some
from msmae.data.tables.patients import labels_as_told, suggest_patients, with_words_of_names
from msmae.data.tables.places import check_aside
from msmae.data.tables.published import LAYOUTS, imagefolder, recognise
from msmae.data.tables.published.medmnist import read_medmnist
from msmae.data.tables.tables import ColumnNames, find_tables, read_csv_manifest
from msmae.data.unit_labels import offer_tables
from msmae.errors import UserError

FOLDER_LAYOUTS = (*LAYOUTS, "imagefolder", LAYOUT, *READERS)
FILE_LAYOUTS = ("csv", "medmnist")
WITHOUT_CLASSES = "without classes"
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".csv.gz", ".tsv.gz")


def open_dataset(
    data: str | Path,
    *,
    layout: str = "auto",
    patients: str = "auto",
    image_column: str = "image_path",
    label_column: str = "label",
    patient_column: str = "patient_id",
    split_column: str = "split",
    mask_column: str = "mask_path",
    site_column: str = "site",
) -> Manifest:
    """Read ``data`` as a manifest; its first note says what it was taken for, and why.

    ``data`` is a published data set's folder (``LAYOUTS``), a folder of class folders (``ROOT/<class>/``,
    ``ROOT/{train,val,test}/<class>/``, ``Training`` and ``Testing``), folders ``images`` and ``masks``, a folder of
    images or a DICOM series without labels, a CSV or TSV with one row per image, a MedMNIST ``.npz``, or a folder
    with a ``manifest.csv`` or one ``.npz``.

    ``layout`` forces one of ``FOLDER_LAYOUTS`` or ``FILE_LAYOUTS`` instead of recognising it. ``patients`` says where a
    patient's name is found when no table gives it (see ``suggest_patients``). The column names apply to a CSV,
    TSV or ``metadata.csv``, and to tables beside the images of a folder; ``label_column=""`` reads no labels;
    ``path:EXPRESSION`` searches them in the paths (see ``labels_as_told``), and ``a;b;unknown=zeros`` reads a column a
    finding (see ``findings.read_findings``).

    Raises ``UserError`` for a path that is not there, a folder without images, an empty class folder, a single class, a
    missing column, missing files (all named), or a layout that ``data`` does not have.
    """
    path = Path(data)
    label_column, unknown, expression = parse_labels(label_column)
    columns = ColumnNames(image_column, label_column, patient_column, split_column, mask_column, site_column, unknown)
    if layout not in ("auto", *FOLDER_LAYOUTS, *FILE_LAYOUTS):
        names = ", ".join(("auto", *FOLDER_LAYOUTS, *FILE_LAYOUTS))
        raise UserError(f"there is no layout '{layout}'", mend=f"use one of {names}")
    if not path.exists():
        raise UserError("there is no such file or folder", where=str(path), mend=_nearest(path))
    if expression:
        layout = WITHOUT_CLASSES if layout == "auto" and path.is_dir() else layout
    listing = list_folder(path) if path.is_dir() else None
    manifest = _open_folder(path, listing, layout, columns) if listing else _open_file(path, layout, columns)
    manifest = labels_as_told(manifest, expression) if expression else manifest
    manifest = manifest.with_columns({}, notes=_levels_unused(manifest) if expression else [])
    if unknown != ColumnNames.unknown and "unknown" not in manifest.rules:
        raise UserError(
            f"--label-column unknown={unknown} has no effect: no cell of a finding's column is -1 or empty",
            where=manifest.where,
            mend="leave it out",
        )
    manifest = with_words_of_names(manifest, splits=split_column != "")
    manifest = with_copies(one_patient_a_spelling(suggest_patients(manifest, patients=patients)))
    if listing is None or not label_column or layout == "unlabelled" or manifest.layout == LAYOUT:
        return manifest
    return manifest.with_columns({}, notes=offer_tables(manifest, path, listing.others))


def _open_folder(path: Path, listing: Listing, layout: str, columns: ColumnNames) -> Manifest:
    masks = "" if columns.mask_path == ColumnNames.mask_path else columns.mask_path
    channel = "" if columns.image_path == ColumnNames.image_path else columns.image_path
    listing = replace(listing, masks=masks, channel=channel)
    ends = [path for path in listing.images if re.search(rf"[_-]{re.escape(channel)}\.nii", path, re.IGNORECASE)]
    if channel and ends and not find_tables(listing, r".*\.(?:csv|tsv|txt|jsonl)", (channel,)):
        columns = replace(columns, image_path=ColumnNames.image_path)
    manifest = _open_listing(path, listing, layout, columns)
    sheets = [name for name in listing.others if name.lower().endswith(SPREADSHEETS)]
    why = f"which msmae does not read: save {some(sheets, at_most=2)} as CSV in the same folder if it names the images"
    notes = [*left_out(len(sheets), "spreadsheet", why), *_named_in_no_row(manifest, listing)]
    notes += left_out(len(listing.results), "result", f"written by msmae: {some(listing.results)}")
    return manifest.with_columns({}, notes=notes)


def _named_in_no_row(manifest: Manifest, listing: Listing) -> list[LeftOut]:
    """What to say of images beside a table that alone says which images there are."""
    if manifest.layout not in ("csv", "imagefolder"):
        return []
    table, here = manifest.table, os.path.abspath(listing.root)
    paths = [os.path.join(manifest.root, path) for path in table["image_path"]]
    paths += [str(path) for row in table.index[table["mask_path"] != ""] for path in manifest.mask_paths(row)]
    named = {plain(os.path.abspath(path)) for path in paths}
    others = [path for path in listing.images if plain(os.path.join(here, path)) not in named]
    return left_out(len(others), "image", f"in no row of the table: {some(others, at_most=3)}")


def _levels_unused(manifest: Manifest) -> list[LeftOut]:
    """What to say of outermost folders that each hold several labels, found within the paths: sites, maybe."""
    of: dict[str, set[str]] = {}
    for path, label, split, site in manifest.table[["image_path", "label", "split", "site"]].itertuples(index=False):
        if "/" in path and label and not (split or site):
            of.setdefault(path.partition("/")[0], set()).add(label)
    several = sorted(name for name, labels in of.items() if len(labels) > 1)
    why = f"each with several labels: {some(several, at_most=3)} (sites or patients: write a table with that column)"
    return left_out(len(several), "folder", why) if 1 < len(several) == len(of) else []


def _open_listing(path: Path, listing: Listing, layout: str, columns: ColumnNames) -> Manifest:
    if layout in FILE_LAYOUTS:
        raise UserError(f"layout '{layout}' is a file, and this is a folder", where=str(path), mend="give the file")
    if layout == WITHOUT_CLASSES:
        return _as(read_without_classes(listing), "labels as told")
    if layout != "auto":
        return _as(_read_folder(listing, layout, columns), "as told")
    archives = [name for name in listing.others if name.lower().endswith(".npz")]
    if len(archives) == 1 and not listing.images:
        return _open_file(path / archives[0], layout, columns)
    if "manifest.csv" in find_tables(listing, r"manifest\.csv", (columns.image_path,)):
        return _open_file(path / "manifest.csv", layout, columns)
    if told := _recognise_published(listing):
        return _as(_read_folder(listing, told[0], columns), told[1])
    return _open_unknown(listing, columns)


def _open_unknown(listing: Listing, columns: ColumnNames) -> Manifest:
    """A folder that is no published set: by its folders, and by the tables that name its images; these say the label
    where no folders are classes, or where its column is asked for."""
    check_aside(listing.images, where=str(listing.root))
    doubt: UserError | None = None
    manifest: Manifest | None = None
    try:
        layout, reason = recognise_folders(listing)
        manifest = _as(_read_folder(listing, layout, columns), reason)
    except UserError as error:
        doubt = error
    classes = manifest is not None and len(manifest.classes) > 1 and columns.label == ColumnNames.label
    if listing.images and listing.others:
        try:
            by_tables = read_by_tables(listing, columns, manifest if classes else None)
        except UserError as error:
            raise error from doubt
        if by_tables is not None and doubt is not None and not by_tables.classes and columns.label:
            raise doubt
        if by_tables is not None:
            return by_tables if classes else _as(by_tables, "tables name the images")
    if manifest is None:
        raise doubt or UserError("this folder cannot be read", where=str(listing.root), mend="check the path")
    return manifest


def _as(manifest: Manifest, reason: str) -> Manifest:
    """The manifest, with why it was read so: as its first note and as a rule."""
    first = manifest.with_notes_first(f"read as {manifest.layout}: {reason}")
    return first.with_columns({}, rules={"layout": reason})


def _recognise_published(listing: Listing) -> tuple[str, str] | None:
    """The published layout of a folder, or Hugging Face's, and why; None where it is neither."""
    layout, reason = recognise(listing)
    if layout:
        return layout, reason
    reason = imagefolder.recognise(listing)
    return ("imagefolder", reason) if reason else None


def _read_folder(listing: Listing, layout: str, columns: ColumnNames) -> Manifest:
    if layout in READERS:
        return READERS[layout](listing)
    if layout == "imagefolder":
        return imagefolder.read(listing, columns=columns)
    if layout == LAYOUT:
        found = read_by_tables(listing, columns)
        if found is None:
            raise UserError("no table names these images", where=str(listing.root), mend="check --layout")
        return found
    manifest: Manifest = LAYOUTS[layout].read(listing)
    return manifest


def _open_file(path: Path, layout: str, columns: ColumnNames) -> Manifest:
    if layout == "medmnist" or (layout == "auto" and path.suffix.lower() == ".npz"):
        manifest = read_medmnist(path)
        return _as(manifest, path.name)
    if layout == "csv" or (layout == "auto" and path.name.lower().endswith(TABLE_SUFFIXES)):
        manifest = read_csv_manifest(path, columns=columns)
        if columns.label:
            check_labelled(manifest.classes, where=str(path))
        return _as(manifest, f"{path.name}, one row per image")
    if path.suffix.lower() in SPREADSHEETS:
        raise UserError("this is a spreadsheet", where=str(path), mend="save the sheet as CSV, and give that")
    if path.name.lower().endswith((*TABLE_SUFFIXES, ".npz")):
        mend = f"give the folder that holds it, or leave --layout {layout} out"
        raise UserError(f"the layout {layout} is of folders, and this is a file", where=str(path), mend=mend)
    raise UserError(
        "a data set is a folder, a CSV or TSV table, or a MedMNIST .npz",
        where=str(path),
        mend="give the folder this file lies in, or a CSV that names it",
    )


def _nearest(path: Path) -> str:
    """What to do about a path that is not there: the nearest name beside it, if any."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / nearest[0]}?" if nearest else "check the path"
