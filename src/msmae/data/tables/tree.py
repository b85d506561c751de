"""Where the images of a folder lie, taken apart: split, fold, class, patient; and which pictures are masks of which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path

import numpy as np

from msmae.data.manifest import SEPARATOR
from msmae.data.reading.images import read_image
from msmae.data.tables.listing import Listing, without_suffix
from msmae.data.tables.pairing import CALLED_MASK, SIGN, beside_masks, ending_masks, first_pair, named_masks, pair
from msmae.data.tables.places import (
    Folders,
    Place,
    check_folds,
    places_of,
    same_name,
    unwrapped,
    without_derived,
    without_kind,
    without_shelves,
)
from msmae.errors import UserError

_Files = dict[tuple[Folders, str], str]
MOST_BESIDE, SOME, ALIKE, LOOKS = 6, 200, 0.8, 4
"""Folders beside one another that may be images and masks, files compared, the share of names that agree, pictures
read."""
LABELS, PLAIN = 32, 0.8
"""Values of a label map at most, and what share of its pixels have the value of the next."""
BLUR, RIM = 0.06, 0.02
"""A mask saved as JPEG: how far its values stray, as a share of their range, and what share of pixels strays more."""


@dataclass(frozen=True)
class Tree:
    """The images of a listing, their masks, and what belongs to neither.

    ``masks`` image path -> cell of ``mask_path``; ``strays`` masks, by their folder or name, of no image; ``side`` a
    folder of images and one of masks, as people say which belong together, ``""`` where masks lie beside their images.
    """

    images: tuple[Place, ...]
    masks: dict[str, str]
    strays: tuple[str, ...]
    side: str
    wrapping: Folders
    aside: tuple[str, ...] = ()
    """Pictures of folders of masks that are not meant, and pictures made of an image (``a_superpixels``)."""


def read_places(listing: Listing) -> Tree:
    """Take every path apart.

    A level is one of splits or folds where all the folders beside one another are named so. A folder named like masks
    holds masks where its pictures lie and are named like images, and is otherwise a folder like any other.

    Raises ``UserError`` for a folder beside splits that is none, and for an image with masks in two places.
    """
    places, aside = without_derived(places_of(listing))
    if listing.masks:
        told = [place for place in places if place.kind == "mask" and not _is_told(place, listing)]
        places, aside = [place for place in places if place not in told], [*aside, *(place.path for place in told)]
    named = [place for place in places if place.kind == "mask"]
    pictures = [place for place in places if place.kind != "mask"]
    pairs, strays = pair(pictures, named, loosely=bool(listing.masks))
    if listing.masks and named and not pairs:
        raise UserError(
            f"--mask-column {listing.masks} has no effect: no picture in it lies and is named like an image",
            where=named[0].path,
            mend="name its files like the images, in a folder beside theirs; or say in a CSV which belongs to which",
        )
    if named and not pairs:
        places = [without_kind(place) for place in places]
        pictures, strays = places, []
    ending = listing.masks if SIGN.match(listing.masks) and not named else ""
    beside, more = (
        ending_masks([place.path for place in pictures], ending)
        if ending
        else (beside_masks([place.path for place in pictures]), [])
    )
    beside = {path: [mask for mask in masks if mask not in pairs] for path, masks in beside.items()}
    taken = {mask for masks in beside.values() for mask in masks}
    images = [place for place in pictures if place.path not in {*taken, *more}]
    if ending and beside:
        aside = [*aside, *more]
    elif listing.masks:
        beside, aside = {}, [*aside, *sorted(taken)]
        _check_told(listing, named, aside)
    beside = named_masks(beside)
    cells = {place.path: [*pairs.get(place.path, []), *beside.get(place.path, [])] for place in images}
    told_images = bool(pairs) or (bool(images) and all(place.kind == "image" for place in images))
    wrapping, images = unwrapped(images, whole=told_images)
    images = without_shelves(images)
    check_folds(images, where=str(listing.root))
    side = next((f"{image}/ and {mask.inner}/" for image, mask in first_pair(images, named, pairs)), "")
    masks = {path: SEPARATOR.join(masks) for path, masks in cells.items()}
    return Tree(tuple(images), masks, tuple(strays), side, wrapping, tuple(aside))


def without_stray_masks(tree: Tree) -> Tree:
    """The tree without the images of folders that hold nothing but pictures called masks, and lie as a folder of images
    does (``derivatives/x/sub-01/anat`` as ``sub-01/anat``): masks are no images, whose ever they are."""
    folders: dict[str, list[Place]] = {}
    for place in tree.images:
        folders.setdefault(place.path.rpartition("/")[0], []).append(place)
    called = {name for name, inside in folders.items() if all(CALLED_MASK.search(place.stem) for place in inside)}
    others = folders.keys() - called
    called = {name for name in called if any(name[end + 1 :] in others for end in range(len(name)) if name[end] == "/")}
    strays = [place.path for name in called for place in folders[name]]
    images = tuple(place for place in tree.images if place.path.rpartition("/")[0] not in called)
    return replace(tree, images=images, strays=(*tree.strays, *sorted(strays)))


def _is_told(place: Place, listing: Listing) -> bool:
    return any(same_name(name, listing.masks) for name in place.path.split("/")[:-1])


def _check_told(listing: Listing, named: Sequence[Place], aside: Sequence[str]) -> None:
    """Raise ``UserError`` where a folder of masks is told that is not there, or none to be left out."""
    if named or (listing.masks == "none" and aside):
        return
    folders = sorted({place.inner for place in places_of(replace(listing, masks="")) if place.kind == "mask"})
    raise UserError(
        f"--mask-column {listing.masks} has no effect: "
        + (f"folders of masks are {', '.join(folders)}" if folders else "there is no folder of masks"),
        where=str(listing.root),
        mend="name one of the folders, or leave the option out",
    )


def check_drawn(images: Sequence[Place], *, root: Path) -> None:
    """Raise ``UserError`` where of two folders beside one another, with files of the same names, one holds pictures of
    two values, or of a few in plain areas, as masks are drawn, and the other does not. A few of each are read."""
    beside: dict[Folders, dict[str, _Files]] = {}
    for place in images:
        folders = tuple(place.path.split("/")[:-1])
        for depth, name in enumerate(folders):
            inside = beside.setdefault(folders[:depth], {}).setdefault(name, {})
            inside[folders[depth + 1 :], place.stem] = place.path
    _check_drawn_beside(images, root=root)
    looked_at: set[tuple[str, str]] = set()
    for found in beside.values():
        for one, two in combinations(sorted(found), 2) if len(found) <= MOST_BESIDE else ():
            if (one, two) in looked_at:
                continue
            pairs = max(_alike(found[one], found[two]), [(b, a) for a, b in _alike(found[two], found[one])], key=len)
            if len(pairs) < max(2, ALIKE * min(SOME, len(found[one]), len(found[two]))):
                continue
            looked_at.add((one, two))
            drawn = [{_is_drawn(root / path) for path in paths} for paths in zip(*pairs[:LOOKS], strict=True)]
            if drawn in ([{True}, {False}], [{False}, {True}]):
                masks, other = (one, two) if drawn[0] == {True} else (two, one)
                raise UserError(
                    f"the pictures in {masks}/ are named like those in {other}/ and have few values, as masks do",
                    where=str(root),
                    mend=f"say --mask-column {masks} if they are masks, --layout folder if the folders are classes",
                )


def _check_drawn_beside(images: Sequence[Place], *, root: Path) -> None:
    """Raise ``UserError`` for drawn pictures with the name of another beside them and a word more, of any kind."""
    of = {without_suffix(place.path): place.path for place in images}
    ends: dict[str, list[tuple[str, str]]] = {}
    for stem, path in of.items():
        for sign in SIGN.finditer(stem, stem.rfind("/") + 1):
            if stem[: sign.start()] in of:
                ends.setdefault(stem[sign.start() :], []).append((path, of[stem[: sign.start()]]))
    for end, pairs in ends.items():
        if len(pairs) < 2 or [
            {_is_drawn(root / path) for path in paths} for paths in zip(*pairs[:LOOKS], strict=True)
        ] != [
            {True},
            {False},
        ]:
            continue
        raise UserError(
            f"pictures that end in {end} ({pairs[0][0]}) are named like others and have few values, as masks do",
            where=str(root),
            mend=f"say --mask-column={end} if they are masks; or --layout folder, or unlabelled, if they are images",
        )


def _alike(longer: _Files, shorter: _Files) -> list[tuple[str, str]]:
    """Files of both, where the first has the name of the second, or that and more behind a sign."""
    pairs = []
    for (below, stem), path in islice(longer.items(), SOME):
        forms = [stem, *(stem[: sign.start()] for sign in re.finditer(r"[-_ ]", stem))]
        pairs += [(path, shorter[below, form]) for form in forms if (below, form) in shorter][:1]
    return pairs if len({second for _, second in pairs}) == len(pairs) else []


def _is_drawn(path: Path) -> bool:
    """Whether hardly any pixel lies between the darkest and the brightest, or there are few values and most pixels have
    that of the next (label maps); not of a picture that cannot be read."""
    try:
        pixels = read_image(path).astype(np.float32)
    except (UserError, OSError):
        return False
    if np.unique(pixels).size <= LABELS and (pixels[:, 1:] == pixels[:, :-1]).mean() >= PLAIN:
        return True
    low, high = pixels.min(), pixels.max()
    between = (pixels > low + BLUR * (high - low)) & (pixels < high - BLUR * (high - low))
    return bool(between.mean() < RIM)


def masks_unpaired(listing: Listing) -> list[str]:
    """Folders named like masks, beside others, of which no picture lies and is named like an image."""
    places = places_of(listing)
    named = [place for place in places if place.kind == "mask"]
    pictures = [place for place in places if place.kind != "mask"]
    if listing.masks or not named or not pictures or pair(pictures, named)[0]:
        return []
    return sorted({place.inner for place in named})
