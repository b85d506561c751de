"""ChestXRay2017, paediatric pneumonia (Kermany et al., Cell 2018): 5,856 radiographs, normal against pneumonia.

The publisher names files ``BACTERIA-1008087-0001.jpeg``; Kaggle's copy ``person12_bacteria_46.jpeg``,
``IM-0117-0001.jpeg`` or ``NORMAL2-IM-0278-0001.jpeg``. Nobody has published whether ``person108_bacteria`` and
``person108_virus`` are one child. The careful rule is that they are: a child counts once, whatever was found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from msmae.data.manifest import Manifest
from msmae.data.tables.folders import read_class_folders
from msmae.data.tables.listing import Listing, count, left_out

PUBLISHED = re.compile(r"(?P<kind>BACTERIA|VIRUS|NORMAL)-(?P<patient>\d+)-\d+")
KAGGLE_PNEUMONIA = re.compile(r"(?P<patient>person\d+)_(?P<kind>bacteria|virus)_\d+")
KAGGLE_NORMAL = re.compile(r"(?P<patient>(?:NORMAL2-)?IM-\d+)-\d+")
TINY = 16  # images in the validation split that only Kaggle's copy has


def recognise(listing: Listing) -> str:
    """Folders NORMAL and PNEUMONIA whose files are named in one of the three ways."""
    classes = {path.split("/")[-2] for path in listing.images if "/" in path}
    named = [path for path in listing.images if _match(path)]
    known = classes == {"NORMAL", "PNEUMONIA"} and 2 * len(named) > len(listing.images)
    return f"folders NORMAL and PNEUMONIA with files named like '{named[0].rpartition('/')[2]}'" if known else ""


def read(listing: Listing) -> Manifest:
    """Labels and splits from the folders, patients from the names; ``pathogen`` is bacteria, virus or unknown.

    The second copy inside Kaggle's archive (``chest_xray/chest_xray``) is left out, and its 16 validation images join
    training, as in the publisher's own split.
    """
    images = _without_copy(listing.images)
    manifest = read_class_folders(replace(listing, images=tuple(images)), layout="chestxray2017")
    matches = [_match(path) for path in manifest.table["image_path"]]
    patients = [_patient(match) for match in matches]
    pathogens = ["" if match is None else match.groupdict().get("kind", "").lower() for match in matches]
    columns: dict[str, Sequence[str]] = {
        "patient_id": patients,
        "pathogen": [name if name in ("bacteria", "virus") else "" for name in pathogens],
    }
    known = sum(map(bool, patients))
    notes = [f"patients from file names: {count(len(set(patients) - {''}), 'patient')} in {count(known, 'image')}"]
    notes += left_out(len(listing.images) - len(images), "image", "the archive's second copy")
    splits = manifest.table["split"]
    if 0 < (splits == "val").sum() <= TINY and (splits == "train").sum() > TINY:
        notes.append(f"{count(int((splits == 'val').sum()), 'validation image')} joined training: too few to choose by")
        columns["split"] = splits.replace("val", "train").tolist()
    rules = {"patient_id": "file names (person12 is one child, with bacteria or a virus)"}
    return manifest.with_columns(columns, notes=notes, rules=rules)


def _match(path: str) -> re.Match[str] | None:
    name = path.rpartition("/")[2]
    return PUBLISHED.match(name) or KAGGLE_PNEUMONIA.match(name) or KAGGLE_NORMAL.match(name)


def _patient(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    if match.re is KAGGLE_PNEUMONIA:
        return match["patient"]
    kind = match.groupdict().get("kind", "normal").lower()
    return f"{kind}-{match['patient']}"


def _without_copy(paths: Sequence[str]) -> list[str]:
    outer = set(paths)
    return [path for path in paths if path == _outer(path) or _outer(path) not in outer]


def _outer(path: str) -> str:
    return path.removeprefix("chest_xray/")
