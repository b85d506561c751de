"""Where the images of a folder lie, taken apart: split, fold, class, patient; and which pictures are masks of which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from msmae.data.manifest import SEPARATOR, join_mask, plain
from msmae.data.tables.listing import Listing, without_suffix
from msmae.data.tables.roles import MASKS, fold_of, kind_of, split_of
from msmae.data.tables.tables import SPLIT_NAMES
from msmae.errors import UserError

MASK_ENDING = re.compile(r"[_\- ](?:masks?|seg(?:mentation)?|annotation|labels?|gt)(?:[_\-]?\d+)?$", re.IGNORECASE)
"""What the name of a mask may have behind its image's: ``a_mask.png``, ``a_segmentation_1.png``."""
_PART = re.compile(r"(?:images|labels)(Tr|Ts)")  # nnU-Net's and the decathlon's folders
Folders = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A picture by its folders: the split, fold and kind (``image``, ``mask``, ``""``) they name, and the ``rest``."""

    path: str
    rest: Folders
    split: str = ""
    fold: str = ""
    kind: str = ""
    inner: str = ""
    """The innermost folder that says the kind."""
    nested: bool = False
    """It lies in another folder of masks."""

    @property
    def stem(self) -> str:
        return plain(without_suffix(self.path.rpartition("/")[2]))


@dataclass(frozen=True)
class Tree:
    """The images of a listing, their masks, and what belongs to neither.

    ``masks`` image path -> cell of ``mask_path``; ``strays`` pictures in folders of masks, of no image; ``side`` a
    folder of images and one of masks, as people say which belong together, ``""`` where masks lie beside their images.
    """

    images: tuple[Place, ...]
    masks: dict[str, str]
    strays: tuple[str, ...]
    side: str
    wrapping: Folders


def read_places(listing: Listing) -> Tree:
    """Take every path apart.

    A level is one of splits or folds where all the folders beside one another are named so. A folder named like masks
    holds masks where its pictures lie and are named like images, and is otherwise a folder like any other.

    Raises ``UserError`` for a folder beside splits that is none, and for an image with masks in two places.
    """
    places = _places(listing)
    named = [place for place in places if place.kind == "mask"]
    pictures = [place for place in places if place.kind != "mask"]
    pairs, strays = _pair(pictures, named)
    if named and not pairs:
        places = [_unkind(place) for place in places]
        pictures, strays = places, []
    beside = beside_masks([place.path for place in pictures])
    beside = {path: [mask for mask in masks if mask not in pairs] for path, masks in beside.items()}
    taken = {mask for masks in beside.values() for mask in masks}
    images = [place for place in pictures if place.path not in taken]
    cells = {place.path: [*pairs.get(place.path, []), *beside.get(place.path, [])] for place in images}
    told = bool(pairs) or (bool(images) and all(place.kind == "image" for place in images))
    wrapping, images = _unwrapped(images, whole=told)
    _check_folds(images, where=str(listing.root))
    side = next((f"{image}/ and {mask.inner}/" for image, mask in _first_pair(images, named, pairs)), "")
    return Tree(
        tuple(images), {path: SEPARATOR.join(masks) for path, masks in cells.items()}, tuple(strays), side, wrapping
    )


def masks_unpaired(listing: Listing) -> list[str]:
    """Folders named like masks, beside others, of which no picture lies and is named like an image."""
    places = _places(listing)
    named = [place for place in places if place.kind == "mask"]
    pictures = [place for place in places if place.kind != "mask"]
    if not named or not pictures or _pair(pictures, named)[0]:
        return []
    return sorted({place.inner for place in named})


def beside_masks(paths: Sequence[str]) -> dict[str, list[str]]:
    """Image -> the masks that lie beside it, by their names.

    ``a_mask.png`` and ``a_seg_1.png`` (``MASK_ENDING``) are masks of ``a.png``; where there is no ``a`` but ``a_t1``
    and ``a_flair``, of each of these; ``segmentation.nii.gz`` is one of what else lies in its folder.
    """
    image_of = {plain(without_suffix(path)): path for path in paths}
    of_folder: dict[str, list[str]] = {}
    for stem in image_of:
        of_folder.setdefault(stem.rpartition("/")[0], []).append(stem)
    found: dict[str, list[str]] = {}
    for path in paths:
        stem = plain(without_suffix(path))
        folder, _, name = stem.rpartition("/")
        owner = _masked_by(stem, image_of)
        if owner:
            owners = [owner]
        elif name.lower() in MASKS or MASK_ENDING.sub("", stem) != stem:
            begin = "" if name.lower() in MASKS else MASK_ENDING.sub("", stem) + "_"
            others = [other for other in of_folder[folder] if other != stem and not _ends_like_a_mask(other)]
            owners = [other for other in others if other.startswith(begin)]
            if not owners and folder and name.startswith(f"{folder.rpartition('/')[2]}_"):
                owners = others  # case_7/case_7_tumour_segmentation: of what else is of the case
            if not begin and len(owners) > 8:  # a folder of images, one of which is called so
                owners = []
        else:
            owners = []
        for one in owners:
            if SEPARATOR in path:
                raise UserError(f"a mask's name holds '{SEPARATOR}'", where=path, mend="rename it")
            found.setdefault(image_of[one], []).append(path)
    return found


def _masked_by(stem: str, images: Collection[str]) -> str:
    """The name of the image whose mask one of this name is, also through a mask's mask; ``""`` if it is none."""
    owner = MASK_ENDING.sub("", stem)
    if owner == stem or owner not in images:
        return ""
    return _masked_by(owner, images) or owner


def _ends_like_a_mask(stem: str) -> bool:
    name = stem.rpartition("/")[2]
    return name.lower() in MASKS or MASK_ENDING.search(name) is not None


def _places(listing: Listing) -> list[Place]:
    folders = {path: tuple(plain(name) for name in path.split("/")[:-1]) for path in listing.images}
    below: dict[Folders, set[str]] = {}
    loose = set(folders.values())
    for names in folders.values():
        for depth in range(len(names)):
            below.setdefault(names[:depth], set()).add(names[depth])
    top = next((above for above in sorted(below, key=len) if len(below[above]) > 1 or above in loose), ())
    _check_splits(top, below, loose, where=str(listing.root))
    divided = {above for above, names in below.items() if above not in loose and all(map(split_of, names))}
    folded = {above for above, names in below.items() if above not in loose and all(map(fold_of, names))}
    return [_place(path, names, divided, folded) for path, names in folders.items()]


def _place(path: str, names: Folders, divided: set[Folders], folded: set[Folders]) -> Place:
    place, rest = Place(path, ()), []
    for depth, name in enumerate(names):
        split = split_of(name) if names[:depth] in divided else ""
        if _PART.fullmatch(name):
            split = "test" if name.endswith("Ts") else ""
        fold = fold_of(name) if names[:depth] in folded else ""
        kind = kind_of(name)
        if kind:
            nested = place.kind == "mask" == kind
            place = replace(place, kind=kind, inner=name, nested=nested)
        place = replace(place, split=place.split or split, fold=place.fold or fold)
        if not (split or fold or kind):
            rest.append(name)
    return replace(place, rest=tuple(rest))


def _unkind(place: Place) -> Place:
    """The place, with the folders that say a kind among the rest: they turned out to say nothing."""
    names = [plain(name) for name in place.path.split("/")[:-1]]
    kept = list(place.rest)
    rest = [name for name in names if name in kept or (kind_of(name) and not split_of(name))]
    return replace(place, kind="", inner="", nested=False, rest=tuple(rest))


def _check_splits(top: Folders, below: dict[Folders, set[str]], loose: set[Folders], *, where: str) -> None:
    names = below.get(top, set())
    exact = [name for name in names if name.lower() in SPLIT_NAMES]
    others = sorted(repr(name) for name in names if not split_of(name) and not kind_of(name))
    others += ["a loose image"] if top in loose else []
    if exact and others:
        raise UserError(
            f"beside split folders there is {', '.join(others)}",
            where=where,
            mend=f"name every folder there one of {', '.join(SPLIT_NAMES)}, or move it elsewhere",
        )


def _pair(images: Sequence[Place], masks: Sequence[Place]) -> tuple[dict[str, list[str]], list[str]]:
    """Image -> its masks in folders of masks, and the masks of no image.

    A mask has the split and the folders of its image, and its name, behind which there may be more; a further folder of
    masks, or within one, names the mask's class where an image has masks in several.
    """
    if not masks:
        return {}, []
    at = {(place.split, place.rest, place.stem): place for place in images}
    stems: dict[tuple[str, Folders], list[str]] = {}
    for split, rest, stem in at:
        stems.setdefault((split, rest), []).append(stem)
    owned: dict[str, list[tuple[Place, str]]] = {}
    strays: list[str] = []
    for mask in masks:
        owner, further = None, ""
        for depth in range(len(mask.rest), -1, -1):
            rest = mask.rest[:depth]
            stem = _stem_among(mask.stem, (mask.split, rest), stems)
            if stem:
                owner, further = at[mask.split, rest, stem], "/".join(mask.rest[depth:])
                break
        if owner is None:
            strays.append(mask.path)
        else:
            owned.setdefault(owner.path, []).append((mask, further or (mask.inner if mask.nested else "")))
    several = len({name for found in owned.values() for _, name in found}) > 1
    pairs = {path: [_cell(mask, name if several else "") for mask, name in found] for path, found in owned.items()}
    for path, found in owned.items():
        folders = sorted({mask.inner for mask, name in found if not name})
        if len(folders) > 1:
            raise UserError(
                f"masks of one image in {' and '.join(f'{folder}/' for folder in folders)}",
                where=path,
                mend="move away what is not meant, or name the class of each in a CSV (mask_path: a=one.png;b=two.png)",
            )
    _check_suffixes(images, owned)
    _check_rivals(masks, owned, strays)
    return pairs, strays


def _check_folds(images: Sequence[Place], *, where: str) -> None:
    """Raise ``UserError`` where each of several folds holds splits of its own: they are not one data set, but several
    divisions of one."""
    inside = {(place.fold, place.split) for place in images if place.fold and place.split}
    folds = sorted({fold for fold, _ in inside})
    if len(folds) > 1 and len({split for _, split in inside}) > 1:
        raise UserError(
            f"each of the {len(folds)} folds holds splits of its own, so that an image may be in all of them",
            where=where,
            mend="give the folder of one fold as DATA, or one copy of the images with `msmae check DATA --folds`",
        )


def _check_rivals(masks: Sequence[Place], owned: dict[str, list[tuple[Place, str]]], strays: Sequence[str]) -> None:
    """Raise ``UserError`` where a whole folder of masks belongs to no image and another one does: which is meant?"""
    inner = {place.path: place.inner for place in masks}
    used = {mask.inner for found in owned.values() for mask, _ in found}
    unused = sorted({inner[path] for path in strays} - used)
    if used and unused:
        raise UserError(
            f"the files of {min(used)}/ are named like the images, those of {unused[0]}/ are not",
            where=strays[0],
            mend="name the masks that are meant like their images and move the others away, or say in a CSV which "
            "belongs to which (columns image_path, mask_path)",
        )


def _check_suffixes(images: Sequence[Place], owned: dict[str, list[tuple[Place, str]]]) -> None:
    keys = Counter((place.split, place.rest, place.stem) for place in images)
    for place in images:
        if keys[place.split, place.rest, place.stem] > 1 and owned:
            twins = [other.path for other in images if other.stem == place.stem and other.rest == place.rest]
            raise UserError(f"{' and '.join(twins)} would have the same mask", mend="rename one and its mask")


def _stem_among(stem: str, place: tuple[str, Folders], stems: dict[tuple[str, Folders], list[str]]) -> str:
    """The image's name that a mask of this name has, or begins with, before a sign; ``""`` where there is none."""
    names = set(stems.get(place, ()))
    for form in (stem, MASK_ENDING.sub("", stem)):
        if form in names:
            return form
    shorter = [stem[: match.start()] for match in re.finditer(r"[_\- ]", stem)]
    return next((form for form in reversed(shorter) if form in names), "")


def _cell(mask: Place, name: str) -> str:
    if SEPARATOR in mask.path:
        raise UserError(f"a mask's name holds '{SEPARATOR}'", where=mask.path, mend="rename it")
    return join_mask(re.sub(r"^\d+\.\s*", "", name), mask.path)


def _first_pair(
    images: Iterable[Place], masks: Sequence[Place], pairs: dict[str, list[str]]
) -> Iterable[tuple[str, Place]]:
    for image in images:
        if pairs.get(image.path):
            cell = pairs[image.path][0]
            mask = next(mask for mask in masks if cell.endswith(mask.path))
            yield image.inner or (image.rest[-1] if image.rest else "."), mask


def _unwrapped(images: list[Place], *, whole: bool) -> tuple[Folders, list[Place]]:
    """The folders that all images share, and the images without them.

    Of images in one folder the last stays, as the only class, unless they are told to be images by its name
    (``whole``).
    """
    shared: list[str] = []
    for level in zip(*(place.rest for place in images), strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    if not whole and len({place.rest for place in images}) == 1:
        shared = shared[:-1]
    return tuple(shared), [replace(place, rest=place.rest[len(shared) :]) for place in images]
