"""Options that have no effect on the data at hand: each is an error, for whoever gave it meant something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msmae.config import DatasetSettings
from msmae.data.manifest import Manifest
from msmae.data.reading.headers import is_dicom
from msmae.data.unit_labels import label_table
from msmae.errors import UserError

ROW_AN_IMAGE = ("csv", "imagefolder")
"""Layouts whose table alone says which images there are."""
TABLES = (*ROW_AN_IMAGE, "tables")
"""Layouts whose columns can be named."""
FOLDERS = ("tables", "folder", "patient-folders", "mask-folders", "unlabelled")
"""Layouts whose folder of masks can be named."""
COLUMNS = ("image_column", "label_column", "patient_column", "split_column", "mask_column", "site_column")


EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp")
"""Formats of 8 bits a channel, whatever they show."""


def check_effects(manifest: Manifest, chosen: DatasetSettings) -> None:
    """Raise ``UserError`` for options that could not change how this data was read."""
    _refuse(_without_effect(manifest, chosen), manifest)


def check_cuts(manifest: Manifest, chosen: DatasetSettings) -> None:
    """Raise ``UserError`` for a share to be cut of a split that the data gives; ``manifest`` as it was given."""
    given, usual = set(manifest.table["split"]), DatasetSettings()
    _refuse(
        (
            (f"{split}_fraction", f"the data gives its {split} split", "leave it out, or --split-column ''")
            for split in ("val", "test")
            if split in given and getattr(chosen, f"{split}_fraction") != getattr(usual, f"{split}_fraction")
        ),
        manifest,
    )


def _without_effect(manifest: Manifest, chosen: DatasetSettings) -> Iterator[tuple[str, str, str]]:
    usual = DatasetSettings()
    for name in COLUMNS:
        if getattr(chosen, name) == getattr(usual, name):
            continue
        if name == "mask_column" and manifest.layout in FOLDERS:
            continue  # it names the folder or the ending of masks, and was refused if there is none
        if f"the column {getattr(chosen, name)}" in manifest.rules.values():
            continue  # of a table beside class folders
        if name == "split_column" and manifest.rules.get("split", "").endswith("as told"):
            continue  # it leaves out the splits that file names say
        if name == "image_column" and manifest.rules.get("channels", "").endswith("as told"):
            continue  # it names a channel
        if name == "label_column" and (chosen.label_column.startswith("path:") or label_table(chosen.label_column)):
            continue  # an expression or a table, which was refused if it names nothing
        if manifest.layout not in TABLES:
            mend = "give the table as DATA, or leave the option out"
            if name == "label_column" and not chosen.label_column:
                mend = "say --layout unlabelled"
            yield name, f"the data is read as {manifest.layout}, and not from a table", mend
        elif name == "image_column" and manifest.layout == "imagefolder":
            yield name, "an image folder's column of paths is file_name", "give its metadata.csv as DATA"
    if chosen.window == "none" and not any(map(is_dicom, manifest.table["image_path"])):
        yield "window", "no image is DICOM, the only kind with a window to switch off", "leave it out"
    if chosen.window not in ("file", "none") and all(
        str(path).lower().endswith(EIGHT_BITS) for path in manifest.table["image_path"]
    ):
        yield "window", "the files hold numbers of 8 bits, and no modality units", "leave it out"
    if chosen.ordinal and (manifest.multilabel or len(manifest.classes) < 2):
        what = "images carry several labels" if manifest.multilabel else "there are no two classes"
        yield "ordinal", f"{what}, and grades exclude one another", "leave it out"
    if chosen.class_order and not manifest.classes:
        yield "class_order", "no image has a label", "leave it out"


def _refuse(found: Iterable[tuple[str, str, str]], manifest: Manifest) -> None:
    for name, why, mend in found:
        flag = f"--{name.replace('_', '-')} (dataset.{name})"
        raise UserError(f"{flag} has no effect: {why}", where=manifest.where, mend=mend)
