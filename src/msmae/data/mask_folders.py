"""Images and masks in two folders side by side: ``images/a.png`` and ``masks/a.png``, also under split folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from msmae.data.listing import IMAGE_SUFFIXES, Listing, count, some
from msmae.data.manifest import SEPARATOR, SPLITS, Manifest
from msmae.data.tables import SPLIT_NAMES
from msmae.errors import UserError

IMAGES = ("images", "image", "imgs", "img", "scans", "originals")
MASKS = ("masks", "mask", "segmentations", "segmentation", "annotations", "labels", "ground_truth", "groundtruth", "gt")
ENDING = re.compile(r"[_\- ](?:masks?|seg(?:mentation)?|annotation|labels?|gt)(?:[_\-]?\d+)?$", re.IGNORECASE)
"""What the name of a mask may have behind its image's: ``a_mask.png``, ``a_segmentation_1.png``."""

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Place:
    """A file by the folder that says what it is: what lies above that folder and below it, and its name."""

    path: str
    above: str
    folder: str
    below: str
    stem: str

    @property
    def is_image(self) -> bool:
        """Whether it lies among the images; else among the masks."""
        return self.folder.lower() in IMAGES

    @property
    def key(self) -> Key:
        """What an image shares with its masks."""
        return self.above, self.below, self.stem


def recognise(listing: Listing) -> str:
    """Every picture in a folder of images or of masks, and both folders in the same place at least once."""
    places = list(_places(listing))
    if len(places) < len(listing.images):
        return ""
    folders = {(place.above, place.folder) for place in places if place.is_image}
    beside = {(place.above, place.folder) for place in places if not place.is_image}
    pairs = [(image, mask) for above, image in folders for there, mask in beside if above == there]
    return "{}/ and {}/ side by side".format(*min(pairs)) if pairs else ""


def read(listing: Listing) -> Manifest:
    """A row an image, with the masks of its name and no class label; splits from folders named so.

    Raises:
        UserError: there are no such folders, or no mask has the name of an image.
    """
    places = list(_places(listing))
    images = _by_key([place for place in places if place.is_image])
    masks: dict[Key, list[str]] = {key: [] for key in images}
    strays = []
    for place in (place for place in places if not place.is_image):
        shorter = (place.above, place.below, ENDING.sub("", place.stem))
        owner = next((key for key in (place.key, shorter) if key in images), None)
        if owner is None:
            strays.append(place.path)
        elif SEPARATOR in place.path:
            raise UserError(f"a mask's name holds '{SEPARATOR}'", where=place.path, mend="rename it")
        else:
            masks[owner].append(place.path)
    if not any(masks.values()):
        raise UserError(
            f"no file among the masks is named like an image ({some(strays, at_most=3) or 'there is none'})",
            where=str(listing.root),
            mend="name a mask like its image (a.png or a_mask.png for a.png), or say in a CSV which belongs to which",
        )
    cells = {
        "image_path": [image.path for image in images.values()],
        "split": [_split(image) for image in images.values()],
        "mask_path": [SEPARATOR.join(masks[key]) for key in images],
    }
    table = pd.DataFrame(cells, dtype=object)
    return Manifest.from_table(
        table, root=listing.root, layout="mask-folders", notes=_notes(table, strays, list(images.values()))
    )


def _by_key(images: list[Place]) -> dict[Key, Place]:
    """Images by what their masks share with them. Raises ``UserError`` for two that differ in their suffix alone."""
    found: dict[Key, Place] = {}
    for image in images:
        if image.key in found:
            raise UserError(
                f"{image.path} and {found[image.key].path} would have the same mask", mend="rename one and its mask"
            )
        found[image.key] = image
    return found


def _places(listing: Listing) -> Iterator[Place]:
    for path in listing.images:
        *folders, name = path.split("/")
        at = next((i for i, folder in enumerate(folders) if folder.lower() in (*IMAGES, *MASKS)), None)
        if at is not None:
            above, below = "/".join(folders[:at]), "/".join(folders[at + 1 :])
            yield Place(path, above, folders[at], below, _stem(name))


def _stem(name: str) -> str:
    """A file's name without what says its type; further dots are part of the name, as in ``case.1.nii.gz``."""
    suffix = next((ending for ending in (".nii.gz", *IMAGE_SUFFIXES) if name.lower().endswith(ending)), "")
    return name.removesuffix(name[len(name) - len(suffix) :])


def _split(image: Place) -> str:
    folders = [*image.above.lower().split("/"), *image.below.lower().split("/")]
    return next((SPLIT_NAMES[folder] for folder in folders if folder in SPLIT_NAMES), "")


def _notes(table: pd.DataFrame, strays: list[str], images: list[Place]) -> list[str]:
    given = [split for split in SPLITS if split in set(table["split"])]
    bare = int((table["mask_path"] == "").sum())
    notes = [
        f"{count(len(table) - bare, 'image')} with masks of their name, and no class labels"
        f"{', under split folders for ' + ', '.join(given) if given else ''}"
    ]
    if bare:
        notes.append(f"{count(bare, 'image')} without a mask")
    if strays:
        notes.append(f"{count(len(strays), 'mask')} left out, named like no image: {some(strays)}")
    deeper = sorted({image.below for image in images} - {"", *SPLIT_NAMES})
    if deeper:
        notes.append(f"folders below them are taken for no class and no patient ({some(deeper)}): a CSV can name both")
    return notes
