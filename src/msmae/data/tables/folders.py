"""A folder of class folders, or of images without labels -> a manifest."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from msmae.data.manifest import SEPARATOR, SPLITS, Manifest, printable
from msmae.data.tables.listing import Listing, count, some, without_suffix
from msmae.data.tables.patients import is_dicom, read_headers
from msmae.data.tables.tables import SPLIT_NAMES, label_notes
from msmae.errors import UserError

UNLABELLED = ("unlabelled", "unlabeled")  # a folder of this name beside the class folders holds images without label
MASK_ENDING = re.compile(r"[_\- ](?:masks?|seg(?:mentation)?|annotation|labels?|gt)(?:[_\-]?\d+)?$", re.IGNORECASE)
"""What the name of a mask may have behind its image's: ``a_mask.png``, ``a_segmentation_1.png``."""


@dataclass(frozen=True)
class Tree:
    """Where the images of a listing lie: ``wrapping`` folders all share, then ``[split/]class/...`` for each image."""

    wrapping: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]


def read_class_folders(listing: Listing, *, layout: str = "folder") -> Manifest:
    """``ROOT/<class>/...`` or ``ROOT/<split>/<class>/...``: the class is the name of the folder.

    Folders that merely wrap the data set are passed through; images deeper in a class folder belong to that class.
    ``a_mask.png`` or ``a_seg_1.png`` (``MASK_ENDING``) beside ``a.png`` is its mask and no image.

    Raises ``UserError`` for no images, an empty folder, a folder beside the splits that is none, no label.
    """
    where = str(listing.root)
    check_not_empty(listing)
    if listing.empty:
        raise UserError(
            f"{count(len(listing.empty), 'folder')} without an image: {some(listing.empty, at_most=20)}",
            where=where,
            mend="put the images in, or remove the folder",
        )
    images, masks = split_off_masks(listing.images)
    tree = read_tree(replace(listing, images=tuple(images)))
    labels = [_class_name(folders[0], where=where) if folders else "" for folders in tree.classes]
    check_labelled(sorted(set(labels) - {""}), where=where)
    columns = {"image_path": images, "label": labels, "split": tree.splits, "mask_path": masks}
    notes = [*_tree_notes(tree), *_mask_notes(masks), *label_notes(labels), *listing.notes()]
    table = pd.DataFrame(columns, dtype=object)
    return Manifest.from_table(table, root=listing.root, layout=layout, notes=notes)


def read_unlabelled(listing: Listing) -> Manifest:
    """Every image of the folder, without a label: for pre-training and for ``check``."""
    check_not_empty(listing)
    images, masks = split_off_masks(listing.images)
    table = pd.DataFrame({"image_path": images, "mask_path": masks}, dtype=object)
    notes = [f"{count(len(images), 'image')} without labels, for pre-training only"]
    notes += [*_mask_notes(masks), *listing.notes()]
    return Manifest.from_table(table, root=listing.root, layout="unlabelled", notes=notes)


def reason_for_no_labels(listing: Listing) -> str:
    """Why the folders of this listing are no classes, in a few words; ``""`` where they may be."""
    folders = [tuple(path.split("/")[:-1]) for path in listing.images]
    if not any(folders):
        return "they lie in no class folder"
    if not all(is_dicom(path) for path in listing.images):
        return ""
    if len(set(folders)) == 1:
        return "a DICOM series"
    one_of_each = dict(zip(folders, listing.images, strict=True))
    patients = read_headers([listing.root / path for path in one_of_each.values()])["patient_id"]
    wrapped = len(_wrapping(folders))
    of_top: dict[tuple[str, ...], set[str]] = {}
    for folder, patient in zip(one_of_each, patients, strict=True):
        of_top.setdefault(folder[wrapped : wrapped + 1], set()).add(patient)
    nested = any(len(folder) > wrapped + 1 for folder in folders)
    one_each = all(len(names) == 1 and "" not in names for names in of_top.values())
    return "a DICOM folder for each patient" if nested and one_each else ""


def read_tree(listing: Listing) -> Tree:
    """Take the folders of each image apart into wrapping, split and class; raises as ``read_class_folders`` does."""
    folders = [tuple(path.split("/")[:-1]) for path in listing.images]
    wrapping = _wrapping(folders)
    inner = [names[len(wrapping) :] for names in folders]
    if not any(names and names[0].lower() in SPLIT_NAMES for names in inner):
        return Tree(wrapping, ("",) * len(inner), tuple(inner))
    splits = _splits(inner, where=str(listing.root))
    return Tree(wrapping, tuple(splits), tuple(names[1:] for names in inner))


def split_off_masks(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images, and for each its masks joined by ``;``: ``a_mask.png``, ``a_seg_1.png`` are masks of ``a.png``."""
    image_of = {without_suffix(path): path for path in paths}
    masks: dict[str, list[str]] = {}
    for path in paths:
        owner = _masked_by(without_suffix(path), image_of)
        if owner:
            if SEPARATOR in path:
                raise UserError(f"a mask's name holds '{SEPARATOR}'", where=path, mend="rename it")
            masks.setdefault(image_of[owner], []).append(path)
    taken = {mask for of_image in masks.values() for mask in of_image}
    images = [path for path in paths if path not in taken]
    return images, [SEPARATOR.join(masks.get(path, [])) for path in images]


def _masked_by(stem: str, images: Collection[str]) -> str:
    """The name of the image whose mask one of this name is, also through a mask's mask; ``""`` if it is none."""
    owner = MASK_ENDING.sub("", stem)
    if owner == stem or owner not in images:
        return ""
    return _masked_by(owner, images) or owner


def check_not_empty(listing: Listing) -> None:
    """Raise ``UserError`` where there is no image at all."""
    if not listing.images:
        raise UserError("there is no image in this folder", where=str(listing.root), mend="check the path")


def check_labelled(classes: Sequence[str], *, where: str) -> None:
    """Raise ``UserError`` where no image has a label. One class is enough to test on; training asks for two."""
    if not classes:
        mend = "put the images into one folder a class, or say layout=unlabelled to pre-train on it"
        raise UserError("no image has a label", where=where, mend=mend)


def _wrapping(folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The leading folders all images share, as far as they are neither a split nor the only class."""
    shared: list[str] = []
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1 or level[0].lower() in SPLIT_NAMES:
            return tuple(shared)
        shared.append(level[0])
    return tuple(shared[:-1]) if len(set(folders)) == 1 else tuple(shared)


def _splits(inner: Sequence[tuple[str, ...]], *, where: str) -> list[str]:
    tops = {names[0] if names else "" for names in inner}
    others = sorted(top for top in tops if top.lower() not in SPLIT_NAMES)
    if others:
        raise UserError(
            f"beside split folders there is {', '.join(repr(top) if top else 'a loose image' for top in others)}",
            where=where,
            mend=f"name every folder there one of {', '.join(SPLIT_NAMES)}, or move it elsewhere",
        )
    return [SPLIT_NAMES[names[0].lower()] for names in inner]


def _class_name(folder: str, *, where: str) -> str:
    if SEPARATOR in folder:
        raise UserError(f"the folder '{folder}' has a '{SEPARATOR}' in its name", where=where, mend="rename it")
    return "" if folder.lower() in UNLABELLED else printable(folder).strip()


def _tree_notes(tree: Tree) -> list[str]:
    given = [split for split in SPLITS if split in tree.splits]
    notes = [f"one folder a class{', under split folders for ' + ', '.join(given) if given else ''}"]
    if tree.wrapping:
        notes.append(f"the data set lies in {'/'.join(tree.wrapping)}")
    deeper = sum(len(names) > 1 for names in tree.classes)
    if deeper:
        notes.append(f"{count(deeper, 'image')} deeper in a class folder taken for that class")
    return notes


def _mask_notes(masks: Sequence[str]) -> list[str]:
    given = [mask.split(SEPARATOR) for mask in masks if mask]
    notes = [f"{count(len(given), 'image')} with masks beside them ({given[0][0]})"] if given else []
    mixed = [names for names in given if len({_kind(name) for name in names}) > 1]
    if mixed:
        notes.append(f"masks with several endings are joined, as if of one class ({' and '.join(mixed[0])})")
    return notes


def _kind(mask: str) -> str:
    """What the ending of a mask's name calls it, without a number: ``_seg``."""
    ending = MASK_ENDING.search(without_suffix(mask))
    return "" if ending is None else re.sub(r"[_\-]?\d+$", "", ending[0]).lower()
