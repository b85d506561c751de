"""Which pictures are masks of which: in folders of masks, or beside their images, by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from msmae.data.manifest import SEPARATOR, join_mask, plain
from msmae.data.tables.listing import without_suffix
from msmae.data.tables.places import NUMBERED_MASKS, Folders, Place
from msmae.data.tables.roles import IMAGES, MASKS, words
from msmae.errors import UserError

MASK_ENDING = re.compile(r"[_\- ](?:masks?|seg(?:mentation)?|annotation|labels?|gt)(?:[_\-]?\d+)?$", re.IGNORECASE)
"""What the name of a mask may have behind its image's: ``a_mask.png``, ``a_segmentation_1.png``."""
CALLED_MASK = re.compile(r"[_\- ](?:masks?|d?seg(?:mentation)?|annotation|gt)(?:[_\-]?\d+)?$", re.IGNORECASE)
"""What a mask's name ends with, whose ever it is."""
MASK_INSIDE = re.compile(r"[_\- ](?:masks?|seg(?:mentation)?|gt)[_\- ][^\W\d_]+\d*$", re.IGNORECASE)
"""What the name of a mask of something may have behind its image's: ``a_mask_lesion.png``."""

MASK_BEFORE = re.compile(r"((?:.*/)?)(?:masks?|seg(?:mentation)?|gt)[_\- ](?:(?:of|for)[_\- ])?([^/]+)", re.IGNORECASE)
"""What the name of a mask may have before its image's: ``mask_of_a.png``."""

SIGN = re.compile(r"[-_ ]")
NUMBERED = re.compile(r"([^\W\d_]*)[_\- ]?(\d.*)", re.DOTALL)
"""A name that is a word and what begins with a number: ``segmentation-0`` is the mask of ``volume-0``."""
VOLUMES = ("volume", "vol", "ct", "mr", "case", "patient")
"""Words before the number of an image, beside ``IMAGES``."""


def pair(
    images: Sequence[Place], masks: Sequence[Place], *, loosely: bool = False
) -> tuple[dict[str, list[str]], list[str]]:
    """Image -> its masks in folders of masks, and the masks of no image; ``loosely``: names that begin with the same
    number are enough.

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
            stem = _stem_among(mask.stem, (mask.split, rest), stems, loosely=loosely)
            if stem:
                owner, further = at[mask.split, rest, stem], "/".join(mask.rest[depth:])
                break
        if owner is None:
            strays.append(mask.path)
        else:
            owned.setdefault(owner.path, []).append((mask, further or (mask.inner if mask.nested else "")))
    owned = {path: _named_by_number(found) for path, found in owned.items()}
    several = len({name for found in owned.values() for _, name in found}) > 1
    _check_readers({name for found in owned.values() for _, name in found})
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


READERS = {"annotator", "reader", "rater", "observer", "expert", "grader", "radiologist", "reviewer", "annot", "manual"}
"""Words in the names of folders that hold the masks of one person each."""


def _check_readers(names: Collection[str]) -> None:
    """Raise ``UserError`` for masks of several people, who drew the same: they are no classes."""
    rest = {frozenset(word for word in words(name) if word not in READERS and len(word) > 1) for name in names}
    if len(names) > 1 and len(rest) == 1 and all(set(words(name)) & READERS for name in names):
        told = sorted(names)
        raise UserError(
            f"the folders {' and '.join(told)} seem to hold the masks of several people, who outlined the same",
            mend=f"take those of one: --mask-column {told[0]}; or, if they are classes, name them in a CSV (mask_path: "
            "a=one.png;b=two.png)",
        )


def _named_by_number(found: list[tuple[Place, str]]) -> list[tuple[Place, str]]:
    """An image's masks, those of several numbered folders (``mask-0``, ``mask-1``) named by the folder."""
    folders = {mask.inner for mask, name in found if not name}
    if len(folders) < 2 or not all(NUMBERED_MASKS.fullmatch(folder) for folder in folders):
        return found
    return [(mask, name or mask.inner) for mask, name in found]


def _check_rivals(masks: Sequence[Place], owned: dict[str, list[tuple[Place, str]]], strays: Sequence[str]) -> None:
    """Raise ``UserError`` where a whole folder of masks belongs to no image and another one does: which is meant?"""
    inner = {place.path: place.inner for place in masks}
    used = {mask.inner for found in owned.values() for mask, _ in found}
    unused = sorted({inner[path] for path in strays} - used)
    if used and unused:
        raise UserError(
            f"the files of {min(used)}/ are named like the images, those of {unused[0]}/ are not",
            where=strays[0],
            mend=f"say which are meant, --mask-column {unused[0]} or --mask-column {min(used)}; or name them like "
            "their images; or say in a CSV which belongs to which (columns image_path, mask_path)",
        )


def _check_suffixes(images: Sequence[Place], owned: dict[str, list[tuple[Place, str]]]) -> None:
    keys = Counter((place.split, place.rest, place.stem) for place in images)
    for place in images:
        if keys[place.split, place.rest, place.stem] > 1 and owned:
            twins = [other.path for other in images if other.stem == place.stem and other.rest == place.rest]
            raise UserError(f"{' and '.join(twins)} would have the same mask", mend="rename one and its mask")


def _stem_among(
    stem: str, place: tuple[str, Folders], stems: dict[tuple[str, Folders], list[str]], *, loosely: bool = False
) -> str:
    """The image's name that a mask of this name has, or begins with, before a sign; ``""`` where there is none."""
    names = set(stems.get(place, ()))
    number = re.match(r"\d+", stem) if loosely else None
    alike = [name for name in names if number and re.match(r"\d+", name) and name.startswith(number[0])]
    alike = [name for name in alike if number and not name[len(number[0]) :][:1].isdigit()]
    for form in (stem, MASK_ENDING.sub("", stem)):
        if form in names:
            return form
    found = NUMBERED.fullmatch(stem)
    if found and found[1].lower() in MASKS:  # label0001 of img0001, or of 0001
        likely = {f"{word}{stem[len(found[1]) :]}" for word in (*IMAGES, *VOLUMES)} | {found[2]}
        if len(likely & names) == 1:
            return (likely & names).pop()
    shorter = [stem[: match.start()] for match in re.finditer(r"[_\- ]", stem)]
    return next((form for form in reversed(shorter) if form in names), alike[0] if len(alike) == 1 else "")


def _cell(mask: Place, name: str) -> str:
    if SEPARATOR in mask.path:
        raise UserError(f"a mask's name holds '{SEPARATOR}'", where=mask.path, mend="rename it")
    return join_mask(re.sub(r"^\d+\.\s*", "", name), mask.path)


def first_pair(
    images: Iterable[Place], masks: Sequence[Place], pairs: dict[str, list[str]]
) -> Iterable[tuple[str, Place]]:
    for image in images:
        if pairs.get(image.path):
            cell = pairs[image.path][0]
            mask = next(mask for mask in masks if cell.endswith(mask.path))
            yield image.inner or (image.rest[-1] if image.rest else "."), mask


def ending_masks(paths: Sequence[str], ending: str) -> tuple[dict[str, list[str]], list[str]]:
    """Image -> the picture beside it that has its name and the ``ending``; and what else has its name and more."""
    image_of = {plain(without_suffix(path)): path for path in paths}
    masks = {image_of[stem]: [image_of[stem + plain(ending)]] for stem in image_of if stem + plain(ending) in image_of}
    owners = {plain(without_suffix(path)) for path in masks}
    more = [
        path
        for stem, path in image_of.items()
        if not stem.endswith(plain(ending)) and any(stem[: sign.start()] in owners for sign in SIGN.finditer(stem))
    ]
    return masks, more


def beside_masks(paths: Sequence[str]) -> dict[str, list[str]]:
    """Image -> the masks that lie beside it, by their names.

    ``a_mask.png`` and ``a_seg_1.png`` (``MASK_ENDING``) are masks of ``a.png``; where there is no ``a`` but ``a_t1``
    and ``a_flair``, of each of these; ``segmentation.nii.gz`` is one of what else lies in its folder; ``mask_07`` that
    of ``img_07``, if nothing else there has that number.
    """
    image_of = {plain(without_suffix(path)): path for path in paths}
    of_folder: dict[str, list[str]] = {}
    numbered: dict[tuple[str, str], list[str]] = {}
    for stem in image_of:
        folder, _, name = stem.rpartition("/")
        of_folder.setdefault(folder, []).append(stem)
        match = NUMBERED.fullmatch(name)
        if match and match[1].lower() not in MASKS:
            numbered.setdefault((folder, match[2]), []).append(stem)
    found: dict[str, list[str]] = {}
    for path in paths:
        stem = plain(without_suffix(path))
        folder, _, name = stem.rpartition("/")
        owner, match = _masked_by(stem, image_of), NUMBERED.fullmatch(name)
        alike = numbered.get((folder, match[2]), []) if match and match[1].lower() in MASKS else []
        if owner or len(alike) == 1:
            owners = [owner or alike[0]]
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
    """The name of the image whose mask one of this name is, also through a mask's mask; ``""`` if it is none.

    Of ``a.png``: ``a_mask``, ``a_mask_2``, ``a_lesion_mask``, ``a_mask_lesion``, ``a.png_mask``, ``mask_of_a``.
    """
    if (match := MASK_BEFORE.fullmatch(stem)) and match[1] + match[2] in images:
        return match[1] + match[2]
    owner = without_suffix(MASK_ENDING.sub("", stem))
    if owner == stem and (match := MASK_INSIDE.search(stem)):
        owner = stem[: match.start()]
        return owner if owner in images else ""
    if owner == stem:
        return ""
    while owner not in images:
        shorter = re.sub(r"[_\- ][^_\- /]+$", "", owner)
        if shorter == owner:
            return ""
        owner = shorter
    return _masked_by(owner, images) or owner


def mask_words(masks: Sequence[str], image: str) -> list[str]:
    """What each of an image's masks beside it is called beyond ``mask``: ``lesion`` of ``a_lesion_mask``, or ``""``."""
    begin = len(plain(without_suffix(image)))
    rest = [re.findall(r"[^\W\d_]+", plain(without_suffix(mask))[begin:].lower()) for mask in masks]
    return ["_".join(word for word in words if word not in MASKS) for words in rest]


def named_masks(masks: dict[str, list[str]]) -> dict[str, list[str]]:
    """Masks beside their images, as cells: named by a class where an image has several with words of their own."""
    words = {image: mask_words(found, image) for image, found in masks.items()}
    told = {word for said in words.values() for word in said}
    if len(told - {""}) < 2 or not any(len(set(said)) > 1 for said in words.values()) or "" in told:
        return masks
    return {image: [join_mask(word, mask) for word, mask in zip(words[image], found, strict=True)]
            for image, found in masks.items()}  # fmt: skip


def _ends_like_a_mask(stem: str) -> bool:
    name = stem.rpartition("/")[2]
    return name.lower() in MASKS or MASK_ENDING.search(name) is not None
