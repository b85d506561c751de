"""A folder, a table or an archive -> the manifest, and how it was recognised."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from msmae.data.listing import Listing, count, list_folder, some
from msmae.data.manifest import SEPARATOR, Manifest, printable
from msmae.data.published.medmnist import read_medmnist
from msmae.data.tables import SPLIT_NAMES, ColumnNames, label_notes, read_csv_manifest
from msmae.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
UNLABELLED = ("unlabelled", "unlabeled")  # a folder of this name beside the class folders holds images without label


def open_dataset(
    data: str | Path,
    *,
    layout: str = "auto",
    image_column: str = "image_path",
    label_column: str = "label",
    patient_column: str = "patient_id",
    split_column: str = "split",
    mask_column: str = "mask_path",
    site_column: str = "site",
) -> Manifest:
    """Read ``data`` as a manifest and say in its notes what it was taken for.

    ``data`` is a folder of class folders (``ROOT/<class>/``, ``ROOT/{train,val,test}/<class>/``, ``Training`` and
    ``Testing``), a CSV or TSV with a row an image, or a MedMNIST ``.npz``. ``layout`` forces one instead of recognising
    it; the column names apply to a CSV or TSV.

    Raises ``UserError`` for a path that is not there, a folder without images, an empty class folder, a single class,
    a missing column, missing files.
    """
    path = Path(data)
    columns = ColumnNames(image_column, label_column, patient_column, split_column, mask_column, site_column)
    if not path.exists():
        raise UserError("there is no such file or folder", where=str(path), mend=_nearest(path))
    if path.is_dir():
        return read_class_folders(list_folder(path))
    if path.suffix.lower() == ".npz":
        return read_medmnist(path)
    if path.suffix.lower() in TABLE_SUFFIXES:
        manifest = read_csv_manifest(path, columns=columns)
        check_classes(manifest.classes, where=str(path), unlabelled=label_column == "")
        return manifest
    raise UserError(
        "a data set is a folder, a CSV or TSV table, or a MedMNIST .npz",
        where=str(path),
        mend="give the folder this file lies in, or a CSV that names it",
    )


def read_class_folders(listing: Listing) -> Manifest:
    """``ROOT/<class>/...`` or ``ROOT/<split>/<class>/...``: the class is the name of the folder.

    Folders that merely wrap the data set are passed through; images deeper in a class folder belong to that class.
    Raises ``UserError`` for no images, an empty folder, a folder beside the splits that is none, a single class.
    """
    where = str(listing.root)
    if not listing.images:
        raise UserError("there is no image in this folder", where=where, mend="check the path")
    if listing.empty:
        raise UserError(
            f"{count(len(listing.empty), 'folder')} without an image: {some(listing.empty, at_most=20)}",
            where=where,
            mend="put the images in, or remove the folder",
        )
    parts = [tuple(path.split("/")[:-1]) for path in listing.images]
    wrapping = _wrapping(parts)
    inner = [folders[len(wrapping) :] for folders in parts]  # the folders between the wrapping and each image
    has_splits = any(folders and folders[0].lower() in SPLIT_NAMES for folders in inner)
    splits = _splits(inner, where=where) if has_splits else [""] * len(inner)
    inner = [folders[1:] for folders in inner] if has_splits else inner
    labels = [_class_name(folders[0], where=where) if folders else "" for folders in inner]
    check_classes(sorted(set(labels) - {""}), where=where)
    table = pd.DataFrame({"image_path": listing.images, "label": labels, "split": splits}, dtype=object)
    return Manifest.from_table(
        table,
        root=listing.root,
        layout="folder",
        notes=[*_folder_notes(wrapping, inner, splits), *label_notes(labels), *listing.notes()],
    )


def check_classes(classes: Sequence[str], *, where: str, unlabelled: bool = False) -> None:
    """Raise ``UserError`` where there is nothing to tell apart."""
    if len(classes) == 1:
        raise UserError(
            f"there is only one class, '{classes[0]}'", where=where, mend="give images of at least two classes"
        )
    if not classes and not unlabelled:
        raise UserError("no image has a label", where=where, mend="put the images into one folder a class")


def _wrapping(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The leading folders all images share, as far as they are neither a split nor the only class."""
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1 or level[0].lower() in SPLIT_NAMES:
            return tuple(shared)
        shared.append(level[0])
    return tuple(shared[:-1])


def _splits(inner: Sequence[tuple[str, ...]], *, where: str) -> list[str]:
    tops = {folders[0] if folders else "" for folders in inner}
    others = sorted(top for top in tops if top.lower() not in SPLIT_NAMES)
    if others:
        raise UserError(
            f"beside split folders there is {', '.join(repr(top) if top else 'a loose image' for top in others)}",
            where=where,
            mend=f"name every folder there one of {', '.join(SPLIT_NAMES)}, or move it elsewhere",
        )
    return [SPLIT_NAMES[folders[0].lower()] for folders in inner]


def _class_name(folder: str, *, where: str) -> str:
    if SEPARATOR in folder:
        raise UserError(f"the folder '{folder}' has a '{SEPARATOR}' in its name", where=where, mend="rename it")
    return "" if folder.lower() in UNLABELLED else printable(folder).strip()


def _folder_notes(wrapping: tuple[str, ...], inner: Sequence[tuple[str, ...]], splits: Sequence[str]) -> list[str]:
    given = [split for split in ("train", "val", "test") if split in splits]
    notes = [f"one folder a class{', under split folders for ' + ', '.join(given) if given else ''}"]
    if wrapping:
        notes.append(f"the data set lies in {'/'.join(wrapping)}")
    deeper = sum(len(folders) > 1 for folders in inner)
    if deeper:
        notes.append(f"{count(deeper, 'image')} deeper in a class folder taken for that class")
    return notes


def _nearest(path: Path) -> str:
    """What to do about a path that is not there: the nearest name beside it, if any."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / nearest[0]}?" if nearest else "check the path"
