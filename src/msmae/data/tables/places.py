"""Where each picture of a folder lies, taken apart: split, fold, kind, and the other folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from msmae.data.manifest import plain
from msmae.data.tables.listing import Listing, some, without_suffix
from msmae.data.tables.roles import (
    LOT,
    PARTS,
    SPLIT_NAMES,
    are_visits,
    fold_of,
    kind_of,
    put_aside,
    shared_words,
    split_of,
    words,
)
from msmae.errors import UserError

DERIVED = re.compile(
    r"[_\- ](?:super-?pixels?|overlay|heat-?map|contours?|annotated|preview|thumb(?:nail)?)$", re.IGNORECASE
)
"""What the name of a picture that was made of an image has behind the image's: it is neither image nor mask."""
NUMBERED_MASKS = re.compile(r"(?:mask|label|gt|annotation|seg(?:mentation)?)s?[-_ ]?\d+", re.IGNORECASE)
"""Folders of masks, one a reader or a lesion, where there is a folder of images beside them."""
SITE_FOLDER = re.compile(
    r"(?:site|cent(?:er|re)|hospital|clinic|institut(?:e|ion)|scanner|vendor)[-_ ]?[^\W_]{1,12}", re.IGNORECASE
)
"""Folders of the places that images come from, where all beside one another are called so."""
FORMATS = {"png", "tif", "tiff", "jpg", "jpeg", "bmp", "gif", "dicom", "dcm", "nii", "nifti", "raw"}
COPIES = {
    *(
        "preprocessed",
        "processed",
        "resized",
        "cropped",
        "enhanced",
        "augmented",
        "normalized",
        "normalised",
        "denoised",
    ),
    *("clahe", "small", "thumbnails", "thumbs", "previews", "raw"),
}
"""Words in the name of a folder whose images were made of those in another."""
SMALLER = {*("thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews", "vorschau", "miniaturas", "overlays")}
"""Words in the name of a folder within another, whose images it holds again for people to look at."""
_PART = re.compile(r"(?:images|labels)(Tr|Ts)")  # nnU-Net's and the decathlon's folders
Folders = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A picture by its folders: the split, fold, site and kind (``image``, ``mask``, ``""``) they name, and the
    ``rest``."""

    path: str
    rest: Folders
    split: str = ""
    fold: str = ""
    site: str = ""
    kind: str = ""
    inner: str = ""
    """The innermost folder that says the kind."""
    nested: bool = False
    """It lies in another folder of masks."""

    @property
    def stem(self) -> str:
        return plain(without_suffix(self.path.rpartition("/")[2]))


def places_of(listing: Listing) -> list[Place]:
    folders = {path: tuple(plain(name) for name in path.split("/")[:-1]) for path in listing.images}
    below: dict[Folders, set[str]] = {}
    loose = set(folders.values())
    for names in folders.values():
        for depth in range(len(names)):
            below.setdefault(names[:depth], set()).add(names[depth])
    top = next((above for above in sorted(below, key=len) if len(below[above]) > 1 or above in loose), ())
    _check_splits(top, below, loose, where=str(listing.root))
    shared = {above: shared_words(names) for above, names in below.items()}
    divided = {
        above
        for above, names in below.items()
        if above not in loose and all(split_of(name, shared[above]) for name in names)
    }
    folded = {above for above, names in below.items() if above not in loose and all(map(fold_of, names))}
    sited = {
        above
        for above, names in below.items()
        if above not in loose and len(names) > 1 and all(map(SITE_FOLDER.fullmatch, names))
    }
    cut = {above: found for above, names in below.items() if above not in loose and (found := _cut_classes(names))}
    numbered = {above for above, names in below.items() if any(kind_of(name) == "image" for name in names)}
    kinds: dict[Folders, str] = {}
    for above, inside in below.items():
        for name in inside:
            mask = (above in numbered and NUMBERED_MASKS.fullmatch(name)) or same_name(name, listing.masks)
            kinds[(*above, name)] = "mask" if mask else kind_of(name, shared[above])
        alone = [name for name in inside if not (same_name(name, listing.masks) or split_of(name))]
        within = any(kinds[above[: depth + 1]] == "mask" for depth in range(len(above)))
        if len(alone) == 1 < len(inside) and listing.masks and above not in loose and not within:
            kinds[(*above, alone[0])] = "image"  # it alone lies beside the folder of masks that was told
    placed = [_place(path, names, divided, folded, kinds, shared, cut) for path, names in folders.items()]
    return [_with_site(place, sited) for place in placed]


def _with_site(place: Place, sited: set[Folders]) -> Place:
    """The place, the site taken from the folders that are left."""
    names = tuple(plain(name) for name in place.path.split("/")[:-1])
    site = next((name for depth, name in enumerate(names) if names[:depth] in sited and name in place.rest), "")
    return replace(place, site=site, rest=tuple(name for name in place.rest if name != site)) if site else place


def _place(
    path: str,
    names: Folders,
    divided: set[Folders],
    folded: set[Folders],
    kinds: Mapping[Folders, str],
    shared: Mapping[Folders, Collection[str]],
    cut: Mapping[Folders, Mapping[str, tuple[str, str]]],
) -> Place:
    place, rest = Place(path, ()), []
    for depth, name in enumerate(names):
        split = split_of(name, shared[names[:depth]]) if names[:depth] in divided else ""
        if _PART.fullmatch(name):
            split = "test" if name.endswith("Ts") else ""
        fold = fold_of(name) if names[:depth] in folded else ""
        kind = kinds[names[: depth + 1]]
        if kind:
            nested = place.kind == "mask" == kind
            place = replace(place, kind=kind, inner=name, nested=nested)
        place = replace(place, split=place.split or split, fold=place.fold or fold)
        if not (split or fold or kind):
            name, split = cut.get(names[:depth], {}).get(name, (name, ""))
            place = replace(place, split=place.split or split)
            rest.append(name)
    return replace(place, rest=tuple(rest))


def _cut_classes(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Folder -> class and split, where all of several are called after both: ``nv_train``, ``test_mel``."""
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        first, last = re.split(r"[-_ ]", name, maxsplit=1)[0], re.split(r"[-_ ]", name)[-1]
        for word, base in ((last, name[: -len(last) - 1]), (first, name[len(first) + 1 :])):
            if len(base) > 1 and word.lower() in SPLIT_NAMES and not kind_of(base) and name not in found:
                found[name] = base, SPLIT_NAMES[word.lower()]
    bases, splits = {base for base, _ in found.values()}, {split for _, split in found.values()}
    whole = len(found) == len(names) > len(bases) > 1 and len(splits) > 1
    return found if whole and not any(split_of(base) for base in bases) else {}


def without_kind(place: Place) -> Place:
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
            mend="name every folder there train, val or test, or move it elsewhere",
        )


def without_derived(places: Sequence[Place]) -> tuple[list[Place], list[str]]:
    """The places, but for pictures that were made of another that is there."""
    there = {without_suffix(place.path) for place in places}
    made = {
        place.path
        for place in places
        if (stem := DERIVED.sub("", without_suffix(place.path))) != without_suffix(place.path) and stem in there
    }
    for place in places:  # class/thumbs/a of class/a
        folders, _, name = without_suffix(place.path).rpartition("/")
        kept = [folder for folder in folders.split("/") if not set(words(folder)) & SMALLER]
        made |= {place.path} if folders and "/".join([*kept, name]) in there - {without_suffix(place.path)} else set()
    return [place for place in places if place.path not in made], sorted(made)


def without_shelves(images: list[Place]) -> list[Place]:
    """The images without an outermost folder that only holds those whose names begin alike: ``p10/p10000032``."""
    for place in images:
        outer, inner = (*place.rest, "", "")[:2]
        if not (re.search(r"\d", outer) and inner.startswith(outer) and inner[len(outer) :].isdigit()):
            return images
    return [replace(place, rest=place.rest[1:]) for place in images]


def unwrapped(images: list[Place], *, whole: bool) -> tuple[Folders, list[Place]]:
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


def check_folds(images: Sequence[Place], *, where: str) -> None:
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


def check_aside(paths: Sequence[str], *, where: str) -> None:
    """Raise ``UserError`` for images in a folder that is called as what is not to be used, or has no labels yet."""
    folders = {path.rpartition("/")[0] for path in paths}
    above = {"/".join(folder.split("/")[:depth]) for folder in folders for depth in range(1, folder.count("/") + 2)}
    for folder in sorted(above - {""}):
        outer, _, name = folder.rpartition("/")
        if said := put_aside(name, [other.rpartition("/")[2] for other in above if other.rpartition("/")[0] == outer]):
            number = sum(path.startswith(f"{folder}/") for path in paths)
            raise UserError(
                f"{folder}/ holds {number:,} of {len(paths):,} images, and its name says that {said}",
                where=where,
                mend="move it out of this folder (or call it unlabelled: for pre-training); or say --layout folder if "
                "it is a class or its images count (tables, if a table has the labels; or unlabelled)",
            )


def check_visits(images: Sequence[Place], names: str, *, where: str) -> None:
    """Raise ``UserError`` where visits lie below the outermost folders (``names`` of which there are), which may be
    patients then."""
    below = {place.rest[1] if len(place.rest) > 1 else "" for place in images}
    if len(below) > 1 and are_visits(below) and len({place.rest[0] for place in images}) > 1:
        raise UserError(
            f"this folder can be read in two ways: each of {names} is a class; or each is a patient, and the folders "
            f"below are visits ({some(sorted(below), at_most=3)})",
            where=where,
            mend="say which: --layout folder for the first, --layout patient-folders for the second (labels: "
            "--label-column TABLE.csv:NAME)",
        )


def check_letters(images: Sequence[Place], *, where: str) -> None:
    """Raise ``UserError`` where folders of one split differ in a letter, maybe the class: ``trainA``, ``x_train``."""
    folders = {place.path.rpartition("/")[0].rpartition("/")[2] for place in images}
    behind = [(m[1], m[2]) for name in folders if (m := re.fullmatch(r"(.+?)[-_ ]?([A-Za-z])", name))]
    before = [(m[2], m[1]) for name in folders if (m := re.fullmatch(r"([A-Za-z])[-_ ](.+)", name))]
    found = {(word, letter) for word, letter in behind + before if split_of(word)}
    letters = sorted({letter for _, letter in found})
    if len(letters) > 1 and len(found) > len({word for word, _ in found}):
        either = f"({'|'.join(letters)})"
        option = f"path:{either}/[^/]*$" if found & set(behind) else f"path:(?:^|/){either}[-_ ]"
        raise UserError(
            f"several folders of one split, which differ in a letter ({', '.join(letters)})",
            where=where,
            mend=f"if that is the class: --label-column '{option}'; if one holds masks, name them like the images, in "
            "masks/ beside images/; else --layout unlabelled",
        )


def same_name(name: str, told: str) -> bool:
    return plain(name).casefold() == plain(told).casefold()


def check_doubts(images: Sequence[Place], names: str, *, where: str) -> None:
    """Raise ``UserError`` where the outermost folders (``names`` of which there are) may be something else than classes
    or patients: copies of one data set, or what divides every class."""
    _check_words_below(images, names, where=where)
    tops = sorted({place.rest[0] for place in images if place.rest})
    _check_words_beside_numbers(tops, where=where)
    if len(tops) > 1 and all(map(LOT.fullmatch, tops)):
        raise UserError(
            f"this folder can be read in two ways: each of {names} is a class; or each is a part of one set",
            where=where,
            mend="say which: --layout folder for the first, --layout unlabelled for the second",
        )
    of: dict[str, set[str]] = {}
    for place in images:
        of.setdefault(place.rest[0] if place.rest else "", set()).add(place.stem)
    formats = len(of) > 1 and all(name.lower() in FORMATS for name in of)
    made = [name for name in of if set(words(name)) & COPIES or re.search(r"\d+x\d+", name)]
    for name in made:  # M01_01_00 was made of M01_01
        others = set().union(*(of[other] for other in of if other != name))
        of[name] = {_made_of(stem, others) for stem in of[name]}
    pairs = [(one, two) for one in made for two in of if one != two and len(of[one] & of[two]) >= 0.8 * len(of[one])]
    twins = [sorted(pair) for pair in pairs]
    if any(place.kind == "image" and not place.rest for place in images):  # beside images/, the folder ""
        beside = [name for name in of if name and len(of[name] & of[""]) >= 0.8 * len(of[name])]
        twins += [[name, "the images"] for name in beside]
    apart = {one: [of[name] for name in of if name != one] for one in of}
    twins += [[one, "the others"] for one in of if _repeats(of[one], apart[one], at_least=0.5 if one in made else 1.0)]
    if formats and len(of) <= 6:
        twins = [sorted(of)]
    if not twins or (len(of) > 6 and twins[0][1] != "the others"):
        return
    raise UserError(
        f"the folders {' and '.join(twins[0])} seem to hold the same images twice",
        where=where,
        mend="give one of them as DATA, or say --mask-column FOLDER if it holds masks, --layout folder if classes",
    )


def _made_of(stem: str, others: Collection[str]) -> str:
    """The name among others that this one begins with, up to a sign; itself where there is none."""
    shorter = [stem[: sign.start()] for sign in re.finditer(r"[-_ .]", stem)]
    return next((form for form in (stem, *reversed(shorter)) if form in others), stem)


def _repeats(names: set[str], others: Sequence[set[str]], *, at_least: float) -> bool:
    """Whether a folder has the files of two or more other folders again, by name: ``all/``, ``thumbnails/``. It has a
    file of each name, and no two of the others share one; or, ``at_least`` a share of its names is theirs."""
    whole: set[str] = set().union(*others)
    if len(others) < 2 or len(whole) < 4:
        return False
    apart = len(whole) == sum(map(len, others))
    return names == whole and apart if at_least == 1 else len(names & whole) >= at_least * len(names)


def _check_words_beside_numbers(tops: Sequence[str], *, where: str) -> None:
    """Raise ``UserError`` for folders of a number and one of a few words: ``001_benign``, ``002_malignant``."""
    found = [re.fullmatch(r"\d+[_\- ]([^\W\d_]+)|([^\W\d_]+)[_\- ]\d+", name) for name in tops]
    said = [match[1] or match[2] for match in found if match]
    each = {word: said.count(word) for word in said}
    if len(said) < len(tops) or len(tops) < 6 or len(each) < 2 or min(each.values()) < 2:
        return
    raise UserError(
        f"this folder can be read in two ways: each of the {len(tops)} folders is a class; or each is a patient, and "
        f"the label is in its name ({', '.join(tops[:3])})",
        where=where,
        mend="say which: --layout folder for the first, --label-column "
        f"'path:({'|'.join(sorted(each))})' --patients folder for the second",
    )


def _check_words_below(images: Sequence[Place], names: str, *, where: str) -> None:
    """Raise ``UserError`` where folders below divide the outermost ones by the same few words: ``study1_positive`` and
    ``study2_negative``; ``lung/tumour``, ``colon/tumour``, ``lung/normal``, ``colon/normal``."""
    for depth in range(1, max((len(place.rest) for place in images), default=0)):
        at = [(place.rest[0], place.rest[depth]) for place in images if len(place.rest) > depth]
        numbered = [re.fullmatch(r".*\d[_-]([^\W\d_]+)", name) for _, name in at]
        said = [match[1] if match else name for match, (_, name) in zip(numbered, at, strict=True)]
        if len(at) < len(images) or any(re.search(r"\d", word) for word in said):
            continue
        tops: dict[str, set[str]] = {}
        for (top, _), word in zip(at, said, strict=True):
            tops.setdefault(word, set()).add(top)
        shared = [word for word, inside in tops.items() if len(inside) > 1]
        if len(tops) <= 8 and len(shared) >= 2 and not {word.lower() for word in tops} <= PARTS:
            sign = r"\d[_-]" if any(numbered) else "/"
            either = "|".join(re.escape(word) for word in sorted(tops))
            raise UserError(
                f"this folder can be read in two ways: each of {names} is a class; or the label is in the folders "
                f"below ({some(sorted({name for _, name in at}), at_most=3)})",
                where=where,
                mend="say which: --layout folder for the first, or --label-column "
                f"'path:{sign}({either})/' for the second, 'path:/([^/]+)/[^/]+$' for the innermost folders",
            )
