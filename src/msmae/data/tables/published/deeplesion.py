"""DeepLesion, lesions in CT (Yan et al., Journal of Medical Imaging 2018): 32,120 key slices of 4,427 patients.

``DL_info.csv`` has one row per lesion; the key slice ``000001_01_01_109.png`` lies in ``Key_slices/`` or in
``Images_png/000001_01_01/109.png``. The PNGs hold 16 bits: value - 32768 = Hounsfield units. The coarse lesion type is
only known for the lesions of the published validation and test splits.
"""

from __future__ import annotations

import re

import pandas as pd

from msmae.data.manifest import Manifest
from msmae.data.tables.listing import Listing, count, left_out
from msmae.data.tables.tables import find_table, read_table
from msmae.errors import UserError

TYPES = {
    **{"1": "bone", "2": "abdomen", "3": "mediastinum", "4": "liver"},
    **{"5": "lung", "6": "kidney", "7": "soft tissue", "8": "pelvis"},
}
PUBLISHED_SPLITS = {"1": "train", "2": "val", "3": "test"}
COLUMNS = ("File_name", "Patient_index", "Coarse_lesion_type", "DICOM_windows", "Train_Val_Test")
HOUNSFIELD_OFFSET = "-32768"


def recognise(listing: Listing) -> str:
    """``DL_info.csv`` with the publisher's columns."""
    table = _table(listing)
    return f"{table} with the columns {', '.join(COLUMNS)}" if table else ""


def read(listing: Listing) -> Manifest:
    """A row a key slice that is here; label = coarse type, where known and the same for all lesions of the slice.

    ``intensity_offset`` (-32768) makes Hounsfield units of the file's values, ``window`` is the slice's ``low,high`` in
    them; ``bounding_boxes`` holds ``x1,y1,x2,y2`` a lesion, joined by ``;``. The published split is kept as
    ``published_split`` only, because its training part has no types. Raises ``UserError`` for missing table or images.
    """
    source = _table(listing)
    if not source:
        raise UserError("DL_info.csv is not here", where=str(listing.root), mend="put it beside the images")
    table, notes = read_table(listing.root / source)
    paths = {_key_slice(path): path for path in listing.images}
    lesions_of: dict[str, list[dict[str, str]]] = {}
    for lesion in table.to_dict("records"):
        if lesion["File_name"] in paths:
            lesions_of.setdefault(lesion["File_name"], []).append({str(key): cell for key, cell in lesion.items()})
    if not lesions_of:
        raise UserError(f"no key slice of {source} is here", where=str(listing.root), mend="put Images_png beside it")
    types = {
        name: {TYPES.get(lesion["Coarse_lesion_type"], "") for lesion in found} for name, found in lesions_of.items()
    }
    rows = [_row(paths[name], name, lesions, types[name]) for name, lesions in sorted(lesions_of.items())]
    mixed = sum(len(kinds) > 1 for kinds in types.values())
    notes += [
        "the types, published for validation and test only, are split anew by patient; published_split keeps the old",
        *([f"{count(mixed, 'slice')} without label, with lesions of several types"] if mixed else []),
        *left_out(len(table) - sum(map(len, lesions_of.values())), "lesion", f"of {source}, without an image here"),
        *left_out(len(listing.images) - len(rows), "image", "no key slice"),
    ]
    return Manifest.from_table(pd.DataFrame(rows, dtype=object), root=listing.root, layout="deeplesion", notes=notes)


def _row(path: str, name: str, lesions: list[dict[str, str]], types: set[str]) -> dict[str, str]:
    first = lesions[0]
    return {
        "image_path": path,
        "label": next(iter(types)) if len(types) == 1 else "",
        "patient_id": name[:6],
        "study_id": name[:9],
        "published_split": PUBLISHED_SPLITS.get(first["Train_Val_Test"], ""),
        "intensity_offset": HOUNSFIELD_OFFSET,
        "window": first["DICOM_windows"].replace(" ", ""),
        "age": first.get("Patient_age", ""),
        "sex": first.get("Patient_gender", ""),
        "possibly_noisy": max(lesion.get("Possibly_noisy", "") for lesion in lesions),
        "bounding_boxes": ";".join(lesion.get("Bounding_boxes", "").replace(" ", "") for lesion in lesions),
    }


def _key_slice(path: str) -> str:
    """The name of a slice in ``DL_info.csv``: ``.../000001_01_01/109.png`` is ``000001_01_01_109.png``."""
    folder, _, name = path.rpartition("/")
    series = folder.rpartition("/")[2]
    return f"{series}_{name}" if re.fullmatch(r"\d{6}_\d{2}_\d{2}", series) else name


def _table(listing: Listing) -> str:
    return find_table(listing, r"DL_info.*\.csv", COLUMNS)
