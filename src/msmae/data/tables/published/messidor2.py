"""Messidor-2, diabetic retinopathy (Decenciere et al., 2014; grades of Krause et al., Ophthalmology 2018).

1,748 fundus photographs of 874 examinations. The images and ``messidor-2.csv`` (``left;right``, the two eyes of a
patient) come from the image publisher, the adjudicated grades 0 to 4 in ``messidor_data.csv`` from the graders; four
photographs were ungradable.
"""

from __future__ import annotations

import itertools

from msmae.data.manifest import Manifest
from msmae.data.tables.labels import clean_labels
from msmae.data.tables.listing import Listing, by_stem, left_out
from msmae.data.tables.tables import find_table, read_table
from msmae.errors import UserError

NAMES = {"id_code": "image_id", "diagnosis": "adjudicated_dr_grade"}  # as Kaggle's preprocessed copy calls them
GRADABLE = "adjudicated_gradable"


def recognise(listing: Listing) -> str:
    """A table of adjudicated grades."""
    table = _grades(listing)
    return f"{table} with the column {GRADABLE}" if table else ""


def read(listing: Listing) -> Manifest:
    """Label = grade; both eyes of a patient share a ``patient_id``; ``adjudicated_dme`` is kept.

    Without ``messidor-2.csv`` neighbours by name are taken for the two eyes, and a note says so.
    Raises ``UserError`` where the grades or all of their images are missing.
    """
    source = _grades(listing)
    if not source:
        raise UserError(
            "messidor_data.csv is not here", where=str(listing.root), mend="put the grades beside the images"
        )
    table, notes = read_table(listing.root / source)
    table = table.rename(columns={old: new for old, new in NAMES.items() if new not in table})
    stems = {_stem(stem): path for stem, path in by_stem(listing.images)[0].items()}
    table["image_id"] = [_stem(name) for name in table["image_id"]]
    pairs, pair_notes = _patients(listing, table["image_id"].tolist())
    table["patient_id"] = [pairs.get(name, "") for name in table["image_id"]]
    there = table["image_id"].isin(set(stems))
    ungradable = (table[GRADABLE].str.strip() == "0") | (table["adjudicated_dr_grade"] == "")
    if not (there & ~ungradable).any():
        raise UserError(f"no image of {source} is here", where=str(listing.root), mend="put the image folder beside it")
    notes += left_out(int(ungradable.sum()), "image", "not gradable")
    notes += left_out(int((~there).sum()), "row", f"of {source}, without an image here")
    table = table[there & ~ungradable]
    table = table.assign(
        image_path=[stems[name] for name in table["image_id"]], label=clean_labels(table["adjudicated_dr_grade"])[0]
    )
    table = table.drop(columns=["image_id", "adjudicated_dr_grade", GRADABLE])
    return Manifest.from_table(table, root=listing.root, layout="messidor2", notes=[*notes, *pair_notes])


def _grades(listing: Listing) -> str:
    return find_table(listing, r".*\.csv", (*NAMES.values(), GRADABLE)) or find_table(
        listing, r".*\.csv", (*NAMES, GRADABLE)
    )


def _patients(listing: Listing, images: list[str]) -> tuple[dict[str, str], list[str]]:
    """The patient of every image, by its name in lower case without suffix, and how that is known."""
    source = find_table(listing, r".*\.csv", ("left", "right"))
    if source:
        pairs = read_table(listing.root / source)[0][["left", "right"]].to_numpy().tolist()
        note = f"both eyes of a patient by {source}"
    else:
        series = [list(names) for _, names in itertools.groupby(sorted(images), key=lambda name: name.startswith("im"))]
        pairs = [names[place : place + 2] for names in series for place in range(0, len(names), 2)]
        note = "messidor-2.csv is not here: neighbours by name taken for the two eyes of a patient"
    patient_of = {_stem(name): f"patient{number:04d}" for number, pair in enumerate(pairs, 1) for name in pair}
    return patient_of, [note]


def _stem(name: str) -> str:
    return name.partition(".")[0].lower()  # .JPG on disk, .jpg in the table
