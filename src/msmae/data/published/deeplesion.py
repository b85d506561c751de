"""DeepLesion, lesions in CT (Yan et al., Journal of Medical Imaging 2018): 32,120 key slices of 4,427 patients.

``DL_info.csv`` has a row a lesion; the key slice ``000001_01_01_109.png`` lies in ``Images_png/000001_01_01/109.png``
or in ``Key_slices/``. The PNGs hold 16 bits: value - 32768 = Hounsfield units. The coarse lesion type is only known for
the lesions of the published validation and test splits.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from msmae.data.listing import Listing, count
from msmae.data.manifest import Manifest
from msmae.data.tables import find_tables, read_table
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
    lesions, notes = read_table(listing.root / source)
    paths = {_key_slice(path): path for path in listing.images}
    here = lesions["File_name"].isin(set(paths)).to_numpy()
    if not here.any():
        raise UserError(f"no key slice of {source} is here", where=str(listing.root), mend="put Images_png beside it")
    rows = [_row(name, group, paths[str(name)]) for name, group in lesions[here].groupby("File_name", sort=True)]
    table = pd.DataFrame(rows, dtype=object)
    mixed = int((table["label"] == "several").sum())
    table["label"] = table["label"].replace("several", "")
    context = len(listing.images) - len(table)
    notes += [
        "the types, published for validation and test only, are split anew by patient; published_split keeps the old",
        *([f"{count(mixed, 'slice')} without label, with lesions of several types"] if mixed else []),
        *(
            [f"{count(int((~here).sum()), 'lesion')} of {source} left out, without an image here"]
            if not here.all()
            else []
        ),
        *([f"{count(context, 'image')} left out, no key slice"] if context else []),
    ]
    return Manifest.from_table(table, root=listing.root, layout="deeplesion", notes=notes)


def _row(name: object, lesions: pd.DataFrame, path: str) -> dict[str, str]:
    """What the lesions of one slice have in common; ``label`` is ``several`` where their types differ."""
    first = lesions.iloc[0]
    types = sorted({TYPES[code] for code in lesions["Coarse_lesion_type"] if code in TYPES})
    noisy = np.any(lesions.get("Possibly_noisy", pd.Series(["0"])) == "1")
    return {
        "image_path": path,
        "label": types[0] if len(types) == 1 else "several" if types else "",
        "patient_id": str(name)[:6],
        "study_id": str(name)[:9],
        "published_split": PUBLISHED_SPLITS.get(first["Train_Val_Test"], ""),
        "intensity_offset": HOUNSFIELD_OFFSET,
        "window": first["DICOM_windows"].replace(" ", ""),
        "age": first.get("Patient_age", ""),
        "sex": first.get("Patient_gender", ""),
        "possibly_noisy": "1" if noisy else "0",
        "bounding_boxes": ";".join(box.replace(" ", "") for box in lesions.get("Bounding_boxes", [])),
    }


def _key_slice(path: str) -> str:
    """The name of a slice in ``DL_info.csv``: ``.../000001_01_01/109.png`` is ``000001_01_01_109.png``."""
    folder, _, name = path.rpartition("/")
    series = folder.rpartition("/")[2]
    return f"{series}_{name}" if re.fullmatch(r"\d{6}_\d{2}_\d{2}", series) else name


def _table(listing: Listing) -> str:
    return next(iter(find_tables(listing, r"DL_info.*\.csv", COLUMNS)), "")
