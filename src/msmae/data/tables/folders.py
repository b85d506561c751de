"""A folder of class folders, of patients, of images and masks, or of images without labels -> a manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import pandas as pd

from msmae.data.manifest import SEPARATOR, Manifest, printable
from msmae.data.reading.headers import is_dicom, read_headers
from msmae.data.tables.labels import label_notes
from msmae.data.tables.listing import Listing, count, left_out, some, without_suffix
from msmae.data.tables.pairing import MASK_ENDING, beside_masks
from msmae.data.tables.places import Place, check_doubts, check_letters, check_visits
from msmae.data.tables.roles import YEAR, are_lots, are_visits, is_list, parts_of_one, told_apart
from msmae.data.tables.tree import Tree, check_drawn, masks_unpaired, read_places, without_stray_masks
from msmae.errors import UserError

UNLABELLED = ("unlabelled", "unlabeled", "pred", "predict")
"""Names of folders beside class folders that hold images without a label."""
MANY = 20  # folders from which few images in each may mean that each is a patient
FEW = 10
SURE = 30  # images in each of a few folders that are rather classes than patients


@dataclass(frozen=True)
class Reading:
    """One way to read a folder: the ``layout`` that ``--layout`` takes, and what it makes of the folders."""

    layout: str
    says: str


def read_class_folders(listing: Listing, *, layout: str = "folder") -> Manifest:
    """``ROOT/<class>/...``, with split folders, folds, and folders of images and masks at any level.

    The class is the outermost folder that says none of these; a folder below it whose name counts (``case_07``) is the
    patient. Masks lie in folders of their own, or beside their images (``a_mask.png``); they are never images.

    Raises ``UserError`` for no images, an empty folder, a folder beside the splits that is none, no label.
    """
    check_not_empty(listing)
    _check_empty_folders(listing)
    tree = read_places(listing)
    labels = [_class_name(place.rest[0], where=str(listing.root)) if place.rest else "" for place in tree.images]
    check_labelled(sorted(set(labels) - {""}), where=str(listing.root))
    deeper = [place.rest[1:] for place in tree.images]
    patients, rule = _patients_below(tree, labels, deeper)
    rules = {"label": "the folders", "patient_id": rule} if rule else {"label": "the folders"}
    notes = [*_tree_notes(tree), *_deeper_notes(tree.images, patients, above=1), *label_notes(labels)]
    return _manifest(listing, tree, layout, {"label": labels, "patient_id": patients}, rules, notes)


def read_patient_folders(listing: Listing) -> Manifest:
    """``ROOT/<patient>/...``: every outermost folder is a patient; no image has a label, unless the folders below count
    classes (``10253/0``, ``10253/1``).

    Raises ``UserError`` where the images lie in no folders.
    """
    check_not_empty(listing)
    tree = read_places(listing)
    folders = [place.rest[0] if place.rest else "" for place in tree.images]
    below = [place.rest[1] if len(place.rest) > 1 else "" for place in tree.images]
    if len(set(folders) - {""}) < 2:
        raise UserError("there are no folders to be patients", where=str(listing.root), mend="check --layout")
    parts = parts_of_one(folders)
    above = [(place.split, place.site) for place in tree.images]
    patients, anew = told_apart(above, [parts.get(name, name) for name in folders])
    cells: dict[str, Sequence[str]] = {"patient_id": patients}
    rule = f"the folders, of which a patient has several ({some(sorted(parts), at_most=2)})" if parts else "the folders"
    rules = {"patient_id": f"{rule}{anew}", "label": "the folders are no classes"}
    if all(below) and is_list(below) == "class":
        cells["label"], rules["label"] = below, "the folders below the patients"
    notes = [*_tree_notes(tree), *_deeper_notes(tree.images, cells.get("label", []), above=1, known=True)]
    return _manifest(listing, tree, "patient-folders", cells, rules, notes)


def read_mask_folders(listing: Listing) -> Manifest:
    """Images and masks in folders of their own; no image has a label, further folders that count are patients.

    Raises ``UserError`` where no file among the masks lies and is named like an image.
    """
    check_not_empty(listing)
    tree = read_places(listing)
    if not tree.side:
        raise unpaired(listing)
    apart = [place.path for place in tree.images if place.kind != "image"]
    if len(apart) < len(tree.images):
        tree = replace(tree, images=tuple(place for place in tree.images if place.kind == "image"))
    else:
        apart = []
    below = [place.rest for place in tree.images]
    patients, rule = _patients_below(tree, [""] * len(below), below)
    notes = [*_tree_notes(tree), *_deeper_notes(tree.images, patients, above=0)]
    notes += left_out(len(apart), "picture", f"among neither images nor masks: {some(sorted(apart))}")
    return _manifest(
        listing, tree, "mask-folders", {"patient_id": patients}, {"patient_id": rule} if rule else {}, notes
    )


def read_unlabelled(listing: Listing) -> Manifest:
    """Every image of the folder, without a label: for pre-training and for ``check``. Masks are still no images."""
    check_not_empty(listing)
    tree = without_stray_masks(read_places(listing))
    notes = [f"{count(len(tree.images), 'image')} without labels, for pre-training only", *_fold_notes(tree)]
    return _manifest(listing, tree, "unlabelled", {}, {}, notes)


def read_without_classes(listing: Listing) -> Manifest:
    """The images of a folder whose labels are elsewhere: with masks, splits, and patients by folders that count.

    Raises ``UserError`` for no images, and for masks of which none belongs to an image.
    """
    check_not_empty(listing)
    if masks_unpaired(listing):
        raise unpaired(listing)
    tree = without_stray_masks(read_places(listing))
    below = [place.rest for place in tree.images]
    patients, rule = _patients_below(tree, [""] * len(below), below)
    rules = {"patient_id": rule} if rule else {}
    levels = [set(names) - {""} for names in zip_longest(*below, fillvalue="")]
    lots = [name for names in levels if len(names) > 1 and are_lots(names) for name in sorted(names)]
    aside = left_out(len(lots), "folder", f"as parts of the set, and no patients, their images kept: {some(lots)}")
    return _manifest(listing, tree, "unlabelled", {"patient_id": patients}, rules, [*_tree_notes(tree), *aside])


READERS = {
    "folder": read_class_folders,
    "patient-folders": read_patient_folders,
    "mask-folders": read_mask_folders,
    "unlabelled": read_unlabelled,
}


def recognise_folders(listing: Listing) -> tuple[str, str]:
    """How a folder is to be read, one of ``READERS``, and why.

    Raises ``UserError``, with both readings and their options, where two are alike.
    """
    reason = reason_for_no_labels(listing)
    if reason and reason != LOOSE:
        return "unlabelled", reason
    if not listing.images:
        return "folder", "there is no image"
    if masks_unpaired(listing):
        raise unpaired(listing)
    tree = read_places(listing)
    tops = Counter(place.rest[0] for place in tree.images if place.rest)
    loose = [place.path for place in tree.images if not place.rest]
    if not tops:
        check_letters(tree.images, where=str(listing.root))
        check_drawn(tree.images, root=listing.root)
        return ("mask-folders", f"{tree.side} side by side") if tree.side else ("unlabelled", reason or LOOSE)
    if tree.side and loose and not set(tops) & set(UNLABELLED):
        elsewhere = [place.path for place in tree.images if place.rest]
        raise UserError(
            f"{tree.side} side by side, and {count(len(elsewhere), 'picture')} elsewhere "
            f"({some(elsewhere, at_most=3)})",
            where=str(listing.root),
            mend="move these away; or say --layout mask-folders: no classes, or --layout folder: the folders are the "
            "classes",
        )
    return _classes_or_patients(listing, tree, tops)


def _classes_or_patients(listing: Listing, tree: Tree, tops: Counter[str]) -> tuple[str, str]:
    kind = is_list(tops)
    each = sum(tops.values()) / len(tops)
    if kind == "?" and len(tops) <= 6 and each >= SURE:
        kind = "class"
    if kind == "patient" and len(tops) <= FEW and all(name.isdigit() for name in tops):
        kind = "?"  # 100, 200, 300: a handful of plain numbers may be anything
    if not kind and len(tops) >= MANY and each <= FEW:
        kind = "?"
    names = some(sorted(tops), at_most=3)
    check_drawn(tree.images, root=listing.root)
    check_doubts(tree.images, names, where=str(listing.root))
    if kind == "patient":
        return "patient-folders", f"the folders count patients ({names})"
    if kind != "patient":
        check_visits(tree.images, names, where=str(listing.root))
    if kind == "?":
        raise two_readings(
            Reading("folder", f"each of the {len(tops)} folders is a class ({names})"),
            Reading("patient-folders", f"each is a patient, with {count(round(each), 'image')}"),
            where=str(listing.root),
        )
    where = " under split folders" if any(place.split for place in tree.images) else ""
    return "folder", f"the folders{where} are the classes"


def two_readings(first: Reading, second: Reading, *, where: str) -> UserError:
    """The error that leaves the choice to the person who knows."""
    return UserError(
        f"this folder can be read in two ways: {first.says}; or {second.says}",
        where=where,
        mend=f"say which: --layout {first.layout} for the first, --layout {second.layout} for the second; or --layout "
        "unlabelled for neither",
    )


def unpaired(listing: Listing) -> UserError:
    """The error for folders named like masks, of whose files none belongs to an image."""
    folders = set(masks_unpaired(listing))
    strays = [path for path in listing.images if folders & set(path.split("/")[:-1])]
    return UserError(
        "no file among the masks lies and is named like an image "
        f"({some(strays, at_most=3) or 'there is no folder of masks'})",
        where=str(listing.root),
        mend="name a mask like its image (a.png or a_mask.png for a.png), say in a CSV which belongs to which, leave "
        "them out with --mask-column none, or say --layout folder: the folders are classes",
    )


def check_not_empty(listing: Listing) -> None:
    """Raise ``UserError`` where there is no image at all."""
    if not listing.images:
        raise UserError("there is no image in this folder", where=str(listing.root), mend="check the path")


def check_labelled(classes: Sequence[str], *, where: str) -> None:
    """Raise ``UserError`` where no image has a label. One class is enough to test on; training asks for two."""
    if not classes:
        mend = "label the images; without labels: --label-column '' for a table, --layout unlabelled for a folder"
        raise UserError("no image has a label", where=where, mend=mend)


LOOSE = "they lie in no class folder"


def reason_for_no_labels(listing: Listing) -> str:
    """Why the folders of this listing are no classes, in a few words; ``""`` where they may be."""
    folders = [tuple(path.split("/")[:-1]) for path in listing.images]
    if not any(folders):
        return LOOSE if listing.images else ""
    if not all(is_dicom(path) for path in listing.images):
        return ""
    if len(set(folders)) == 1:
        return "a DICOM series"
    tree = read_places(listing)
    one_of_each = {tuple(place.path.split("/")[:-1]): place for place in tree.images}
    places = list(one_of_each.values())
    patients = read_headers([listing.root / place.path for place in places])["patient_id"]
    of_top: dict[tuple[str, ...], set[str]] = {}
    for place, patient in zip(places, patients, strict=True):
        of_top.setdefault(place.rest[:1], set()).add(patient)
    nested = any(len(place.rest) > 1 for place in places)
    one_each = all(len(names) == 1 and "" not in names for names in of_top.values())
    people, tops = {name for names in of_top.values() for name in names}, [top[0] for top in of_top if top]
    several = 1 < len(people) < len(of_top) <= 2 * len(people) and not is_list(tops)  # studies, called after patients
    return "a DICOM folder for each patient" if nested and one_each and (len(people) == len(of_top) or several) else ""


def split_off_masks(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images, and for each its masks joined by ``;``: ``a_mask.png``, ``a_seg_1.png`` are masks of ``a.png``."""
    masks = beside_masks(paths)
    taken = {mask for of_image in masks.values() for mask in of_image}
    images = [path for path in paths if path not in taken]
    return images, [SEPARATOR.join(masks.get(path, [])) for path in images]


def _manifest(
    listing: Listing,
    tree: Tree,
    layout: str,
    columns: dict[str, Sequence[str]],
    rules: dict[str, str],
    notes: Sequence[str],
) -> Manifest:
    masks = [tree.masks[place.path] for place in tree.images]
    splits, bare = _without_bare_tests(tree, columns.get("label", masks))
    folds = [place.fold for place in tree.images]
    cells: dict[str, Sequence[str]] = {
        "image_path": [place.path for place in tree.images],
        **columns,
        "split": splits,
        "mask_path": masks,
    }
    if any(folds):
        cells["fold"] = folds
    sites = [place.site for place in tree.images]
    if any(sites):
        cells["site"] = sites
        rules = rules | {"site": "the folders"}
    rules = rules | {"split": f"the folders{bare}"} if any(splits) else rules
    rules = rules | {"mask_path": tree.side or "names beside the images"} if any(masks) else rules
    notes = [*notes, *_mask_notes(tree, masks), *listing.notes()]
    what = f"neither images nor the masks that are meant: {some(list(tree.aside), at_most=3)}"
    notes += left_out(len(tree.aside), "picture", what)
    table = pd.DataFrame(cells, dtype=object)
    return Manifest.from_table(table, root=listing.root, layout=layout, notes=notes, rules=rules)


def _without_bare_tests(tree: Tree, labels: Sequence[str]) -> tuple[list[str], str]:
    """Splits, but for a whole one without label and mask, and images of ``imagesTs`` without a mask: those are for a
    challenge's own test. And what to say of that."""
    told = [place.split for place, label in zip(tree.images, labels, strict=True) if label or tree.masks[place.path]]
    bare = {place.split for place in tree.images} - {*told, ""} if told else set()
    own = {place.path for place in tree.images if place.inner == "imagesTs" and not tree.masks[place.path]}
    splits = ["" if place.split in bare or place.path in own else place.split for place in tree.images]
    return splits, f" ({' and '.join(sorted(bare))} without a label, for pre-training)" if bare else ""


def _check_empty_folders(listing: Listing) -> None:
    if listing.empty:
        raise UserError(
            f"{count(len(listing.empty), 'folder')} without an image: {some(listing.empty, at_most=20)}",
            where=str(listing.root),
            mend="put the images in, or remove the folder",
        )


def _class_name(folder: str, *, where: str) -> str:
    if SEPARATOR in folder:
        raise UserError(f"the folder '{folder}' has a '{SEPARATOR}' in its name", where=where, mend="rename it")
    return "" if folder.lower() in UNLABELLED else printable(folder).strip()


def _lots(deeper: Sequence[tuple[str, ...]], labels: Sequence[str], depth: int) -> bool:
    """Whether folders at a depth are parts of the set; years that each have one of several classes may be people."""
    pairs = {(folders[depth], label) for folders, label in zip(deeper, labels, strict=True) if len(folders) > depth}
    names, several = {name for name, _ in pairs}, len(set(labels) - {""}) > 1
    return are_lots(names) and not (several and len(pairs) == len(names) and all(map(YEAR.fullmatch, names)))


def _patients_below(tree: Tree, labels: Sequence[str], deeper: Sequence[tuple[str, ...]]) -> tuple[list[str], str]:
    """Patients by a folder below the class, and the rule."""
    none = [""] * len(tree.images)
    for depth in range(max(map(len, deeper))):
        names = {folders[depth] for folders in deeper if len(folders) > depth}
        below = {folders[depth + 1] for folders in deeper if len(folders) > depth + 1}
        counted = is_list(names) in ("patient", "?") or len(names) >= FEW or (len(below) > 1 and are_visits(below))
        if len(names) > 1 and counted and not (are_visits(names) or _lots(deeper, labels, depth)):
            parts = parts_of_one(names)
            at = [folders[depth] if len(folders) > depth else "" for folders in deeper]
            above = [
                (place.split, place.site, label, *(folders + ("",) * depth)[:depth])
                for place, label, folders in zip(tree.images, labels, deeper, strict=True)
            ]
            told, anew = told_apart(above, [parts.get(name, name) for name in at])
            return told, f"the folder below the {'class' if any(labels) else 'images'}{anew}"
    return none, ""


def _tree_notes(tree: Tree) -> list[str]:
    wrapped = [f"the data set lies in {'/'.join(tree.wrapping)}"] if tree.wrapping else []
    return [*wrapped, *_fold_notes(tree)]


def _fold_notes(tree: Tree) -> list[str]:
    folds = sorted({place.fold for place in tree.images} - {""})
    return [f"{count(len(folds), 'fold')} in the column fold, kept whole where no patient is known"] if folds else []


def _deeper_notes(images: Sequence[Place], patients: Sequence[str], *, above: int, known: bool = False) -> list[str]:
    """What became of the folders below the first ``above``; the patients are ``known`` by others."""
    deeper = [place.rest[above:] for place in images]
    inside = sum(map(bool, deeper))
    if not inside or any(patients):
        return []
    names = sorted({name for folders in deeper for name in folders})
    why = f"taken for no class and no patient, their images kept: {some(names)}"
    tops: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for place in images:
        if len(place.rest) > above:
            tops.setdefault(("/".join((place.split, *place.rest[:above])), place.stem), set()).add(place.rest)
    of = {(names[-1], place.rest[0]) for place, names in zip(images, deeper, strict=True) if names and above}
    if not known and len(of) == len(names) > 1 and max(map(len, deeper)) == 1:
        why += "; each has one class: if each is a patient, --patients folder"
    elif not known and 2 * sum(len(folders) > 1 for folders in tops.values()) > len(tops):
        why += "; files of one name lie in several, of one patient, maybe: --patients '([^/]+)\\.[^/.]+$'"
    return [*left_out(len(names), "folder", why)]


def _mask_notes(tree: Tree, masks: Sequence[str]) -> list[str]:
    given = [mask.split(SEPARATOR) for mask in masks if mask]
    notes = [f"{count(len(given), 'image')} with masks ({given[0][0]})"] if given else []
    if given and len(given) < len(masks):
        notes.append(f"{count(len(masks) - len(given), 'image')} without a mask")
    notes += left_out(len(tree.strays), "mask", f"named like no image: {some(list(tree.strays))}")
    alike = [place.path for place in tree.images if MASK_ENDING.search(place.stem)] if given else []
    if alike:
        notes.append(f"{count(len(alike), 'image')} named like a mask, but of no image's name: {some(alike)}")
    mixed = [names for names in given if len({_kind(name) for name in names}) > 1 and "=" not in names[0]]
    if mixed:
        notes.append(f"masks with several endings are joined, as if of one class ({' and '.join(mixed[0])})")
    return notes


def _kind(mask: str) -> str:
    """What the ending of a mask's name calls it, without a number: ``_seg``."""
    ending = MASK_ENDING.search(without_suffix(mask))
    return "" if ending is None else re.sub(r"[_\-]?\d+$", "", ending[0]).lower()
