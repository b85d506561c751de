"""The images that a prediction is asked for: files, what folders hold, the rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from msmae.config import DatasetSettings, Settings
from msmae.data.manifest import Manifest
from msmae.data.opening import open_data
from msmae.data.reading.decoding import image_sources
from msmae.data.reading.images import ImageSource
from msmae.data.tables.findings import is_image
from msmae.data.tables.folders import split_off_masks
from msmae.data.tables.listing import SPREADSHEETS, TABLES, count, list_folder, some
from msmae.data.tables.places import places_of
from msmae.data.tables.slices import expand_slices
from msmae.data.tables.tables import read_table as read_cells
from msmae.data.tables.tables import same_names
from msmae.data.tables.tree import check_drawn, read_places
from msmae.errors import UserError

PLANE = ("axis", "index", "frame")
"""The columns that name a plane of a file."""


@dataclass(frozen=True)
class Item:
    """An image to predict, and what a manifest says of it."""

    source: ImageSource
    patient_id: str = ""
    split: str = ""
    label: str = ""
    unit: str = ""
    """What it is an image of, where that is no patient: a lesion, a study."""

    def __str__(self) -> str:
        plane = self.source.plane
        numbers = [getattr(plane, name) for name in PLANE]
        return "#".join([self.source.path, *(str(number) for number in numbers if number is not None)])


def planes_of(items: Sequence[Item]) -> tuple[str, ...]:
    """The columns that name the planes of these images: those that one of them needs."""
    planes = [item.source.plane for item in items]
    return tuple(name for name in PLANE if any(getattr(plane, name) is not None for plane in planes))


def find_items(paths: list[str], *, on_error: Literal["stop", "skip"], slices: str = "", unit: str = "") -> list[Item]:
    """The files named, the image files in the folders named, and the rows of the tables named, in order and once each;
    masks of images are left out. ``slices``: NIfTI volumes are cut, as in training (``axial:5``). ``unit``: the column
    of a table that names units other than patients.

    Raises:
        UserError: nothing was named, a path does not exist, a folder holds no images, or a table cannot be read; no
            volume is there to be cut.
    """
    if not paths:
        raise UserError("no images were named", mend="msmae predict RUN FILE_OR_FOLDER ... --out DIR")
    found: list[Item] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += [Item(ImageSource(str(path / image))) for image in images_of(path)]
        elif path.name.lower().endswith(TABLES) and path.exists():
            found += read_table(path, on_error=on_error, unit=unit)
        elif path.name.lower().endswith((".txt", *SPREADSHEETS)) and path.exists():
            mend = "write a CSV with a column image_path, and give that"
            raise UserError("this is no image and no CSV", where=str(path), mend=mend)
        elif path.exists() or "#" in path.name:
            found.append(Item(ImageSource(str(path))))
        else:
            raise UserError("no such file or folder", where=str(path), mend="check the path")
    found = list({str(item): item for item in found}.values())
    return cut_volumes(found, slices) if slices else found


def images_of(folder: Path) -> Sequence[str]:
    """The images that a folder holds, without what training takes for masks; what is left out and not read is said.

    Raises:
        UserError: it holds none.
    """
    listing = list_folder(folder)
    if not listing.images:
        raise UserError("the folder holds no images", where=str(folder), mend="name another folder")
    try:
        known = {place.path for place in read_places(listing).images}
    except UserError as error:  # what training needs to know, and prediction does not
        print(f"- {folder}: {error.what}: only masks that lie beside their images are left out")
        known = set(split_off_masks(listing.images)[0])
    try:
        check_drawn([place for place in places_of(listing) if place.path in known], root=folder)
    except UserError as error:
        print(f"- {folder}: {error.what}; they are predicted, too")
    masks = [image for image in listing.images if image not in known]
    if masks:
        print(f"- {folder}: {count(len(masks), 'mask')} of images, not predicted ({some(masks, at_most=2)})")
    tables = [other for other in listing.others if other.lower().endswith(TABLES)]
    if tables:
        one = folder / tables[0]
        print(f"- {folder}: tables are not read ({some(tables, at_most=2)}); `msmae predict RUN {one}` reads one")
    return [image for image in listing.images if image in known]


def cut_volumes(items: list[Item], slices: str) -> list[Item]:
    """The items, each volume among them as its slices; those of a volume have its name as patient, unless it has one.

    Raises:
        UserError: ``slices`` is not known, or there is no volume.
    """
    cells = [
        {"image_path": item.source.path, "patient_id": item.patient_id, "item": number, **plane_of(item)}
        for number, item in enumerate(items)
    ]
    whole = Manifest.from_table(pd.DataFrame(cells, dtype=object), root=Path(), layout="files")
    cut = expand_slices(whole, slices=slices)
    rows = zip(image_sources(cut), cut.table["patient_id"], cut.table["item"].map(int), strict=True)
    return [
        replace(items[number], patient_id=patient, source=replace(items[number].source, plane=source.plane))
        for source, patient, number in rows
    ]


def plane_of(item: Item) -> dict[str, str]:
    """The columns of a manifest that name an item's plane."""
    return {name: "" if value is None else str(value) for name, value in asdict(item.source.plane).items()}


def read_table(path: Path, *, on_error: Literal["stop", "skip"], unit: str = "") -> list[Item]:
    """The images of a CSV manifest, with their planes, patients, splits, labels and units."""
    manifest = open_data(str(path), Settings(dataset=DatasetSettings(on_error=on_error, **columns_there(path))))
    named = ["patient_id", "split", "label", *([unit] if unit in manifest.table else [])]
    rows = manifest.table[named].to_numpy(dtype=object)
    return [Item(source, *map(str, row)) for source, row in zip(image_sources(manifest), rows, strict=True)]


def columns_there(path: Path) -> dict[str, Any]:
    """The settings under which a table is read where labels are not needed: without them if it has none, and with its
    only column of image files, if none is called ``image_path``; that is said.

    Raises:
        UserError: several columns name files, or none does.
    """
    cells = read_cells(path)[0]
    header = [str(name) for name in cells.columns]
    chosen: dict[str, Any] = {} if same_names("label", header) else {"label_column": ""}
    if same_names("image_path", header):
        return chosen
    files = [name for name in header if name != "mask_path" and all(map(is_image, cells[name]))]
    if len(files) != 1:
        raise UserError(
            f"there is no column image_path; the columns are {', '.join(header)}",
            where=str(path),
            mend="give the column of the image files this name",
        )
    print(f"- {path}: the column {files[0]} names the images")
    return {**chosen, "image_column": files[0]}
