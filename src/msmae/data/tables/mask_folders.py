"""Images and masks in two folders side by side: ``images/a.png`` and ``masks/a.png``, also under split folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from msmae.data.manifest import SEPARATOR, SPLITS, Manifest
from msmae.data.tables.folders import MASK_ENDING, check_not_empty
from msmae.data.tables.listing import Listing, count, left_out, some, without_suffix
from msmae.data.tables.tables import SPLIT_NAMES
from msmae.errors import UserError

IMAGES = ("images", "image", "imgs", "img", "scans", "originals")
MASKS = (
    *("masks", "mask", "segmentations", "segmentation", "annotations", "annotation", "labels", "label"),
    *("ground_truth", "groundtruth", "gt"),
)
Key = tuple[tuple[str, ...], tuple[str, ...], str]


@dataclass(frozen=True)
class Place:
    """A file by the folder that says what it is: the folders above that one and below it, and the file's name."""

    path: str
    above: tuple[str, ...]
    folder: str
    below: tuple[str, ...]
    stem: str

    @property
    def is_image(self) -> bool:
        """Whether it lies among the images; else among the masks."""
        return self.folder.lower() in IMAGES

    def key(self, stem: str) -> Key:
        """What an image shares with its masks; split folders are alike however they are written."""
        above, below = (
            tuple(SPLIT_NAMES.get(name.lower(), name) for name in part) for part in (self.above, self.below)
        )
        return above, below, stem

    @property
    def split(self) -> str:
        """What the folders say, ``""`` where they say nothing."""
        names = [SPLIT_NAMES.get(name.lower(), "") for name in (*self.above, *self.below)]
        return next(filter(None, names), "")


def recognise(listing: Listing) -> str:
    """A folder of images with one of masks beside it.

    Raises:
        UserError: pictures lie elsewhere, too: whether folders are classes cannot be known.
    """
    places = list(_places(listing))
    folders = {(place.above, place.folder) for place in places if place.is_image}
    beside = {(place.above, place.folder) for place in places if not place.is_image}
    pairs = sorted((image, mask) for above, image in folders for there, mask in beside if above == there)
    if not pairs:
        return ""
    side_by_side = "{}/ and {}/ side by side".format(*pairs[0])
    if elsewhere := _elsewhere(listing, places):
        raise UserError(
            f"{side_by_side}, and {count(len(elsewhere), 'picture')} elsewhere ({some(elsewhere, at_most=3)})",
            where=str(listing.root),
            mend="move these away; or say --layout mask-folders, which leaves them out, or --layout folder: classes",
        )
    return side_by_side


def read(listing: Listing) -> Manifest:
    """A row an image, with the masks of its name and no class label; splits from folders named so.

    Raises:
        UserError: there are no such folders, no mask has the name of an image, or one image has masks in two folders.
    """
    check_not_empty(listing)
    places = list(_places(listing))
    images = _by_key([place for place in places if place.is_image], where=str(listing.root))
    masks: dict[Key, list[Place]] = {key: [] for key in images}
    strays = []
    for place in (place for place in places if not place.is_image):
        names = (place.stem, MASK_ENDING.sub("", place.stem))
        owner = next((key for key in map(place.key, names) if key in images), None)
        if owner is None:
            strays.append(place.path)
        else:
            masks[owner].append(place)
    if not any(masks.values()):
        raise UserError(
            f"no file among the masks lies and is named like an image ({some(strays, at_most=3) or 'there is none'})",
            where=str(listing.root),
            mend="name a mask like its image (a.png or a_mask.png for a.png), or say in a CSV which belongs to which",
        )
    cells = {
        "image_path": [image.path for image in images.values()],
        "split": [image.split for image in images.values()],
        "mask_path": [_joined(masks[key], where=image.path) for key, image in images.items()],
    }
    table = pd.DataFrame(cells, dtype=object)
    notes = [*_notes(table, strays, list(images.values())), *listing.notes()]
    elsewhere = _elsewhere(listing, places)
    notes += left_out(len(elsewhere), "picture", f"among neither images nor masks: {some(elsewhere)}")
    return Manifest.from_table(table, root=listing.root, layout="mask-folders", notes=notes)


def _by_key(images: list[Place], *, where: str) -> dict[Key, Place]:
    """Images by what their masks share with them. Raises ``UserError`` for two that differ in their suffix alone."""
    found: dict[Key, Place] = {}
    for image in images:
        key = image.key(image.stem)
        if key in found:
            both = f"{found[key].path} and {image.path}"
            raise UserError(f"{both} would have the same mask", where=where, mend="rename one and its mask")
        found[key] = image
    return found


def _joined(masks: list[Place], *, where: str) -> str:
    """The masks of an image, as a manifest has them. Raises ``UserError`` for those of two folders, or with a ``;``."""
    folders = sorted({mask.folder for mask in masks})
    if len(folders) > 1:
        raise UserError(
            f"masks of one image in {' and '.join(f'{folder}/' for folder in folders)}",
            where=where,
            mend="move away what is not meant, or name the class of each in a CSV (mask_path: a=one.png;b=two.png)",
        )
    for mask in masks:
        if SEPARATOR in mask.path:
            raise UserError(f"a mask's name holds '{SEPARATOR}'", where=mask.path, mend="rename it")
    return SEPARATOR.join(mask.path for mask in masks)


def _places(listing: Listing) -> Iterator[Place]:
    """The files in a folder of images or of masks: the innermost that is called so."""
    for path in listing.images:
        *folders, name = path.split("/")
        named = [i for i, folder in enumerate(folders) if folder.lower() in (*IMAGES, *MASKS)]
        if named:
            at = named[-1]
            yield Place(path, tuple(folders[:at]), folders[at], tuple(folders[at + 1 :]), without_suffix(name))


def _elsewhere(listing: Listing, places: list[Place]) -> list[str]:
    """The pictures that lie in no such folder."""
    return sorted(set(listing.images) - {place.path for place in places})


def _notes(table: pd.DataFrame, strays: list[str], images: list[Place]) -> list[str]:
    given = [split for split in SPLITS if split in set(table["split"])]
    bare = int((table["mask_path"] == "").sum())
    notes = [
        f"{count(len(table) - bare, 'image')} with masks of their name, and no class labels"
        f"{', under split folders for ' + ', '.join(given) if given else ''}"
    ]
    if bare:
        notes.append(f"{count(bare, 'image')} without a mask")
    notes += left_out(len(strays), "mask", f"named like no image: {some(strays)}")
    ways = {(*image.above, *image.below) for image in images}
    further = sorted({name for way in ways for name in way if name.lower() not in SPLIT_NAMES})
    if len(ways) > 1 and further:
        notes.append(f"further folders are taken for no class and no patient ({some(further)}): a CSV can name both")
    return notes
