"""What the name of a folder says: a split, a fold, images, masks, a patient; or nothing, and then it may be a class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from msmae.data.tables.tables import SPLIT_NAMES


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


IMAGES = _set("images image imgs img scans scan originals original input inputs pictures photos jpegimages cxr frames")
MASKS = _set(
    "masks mask segmentations segmentation seg segs annotations annotation labels label groundtruth "
    "groundtruths gt gts manual contours"
)
NEUTRAL = _set(
    "set sets data dataset split part stage task png jpg jpeg tif tiff dcm dicom bmp nii x y all new full of "
    "the and isic wsi"
)
"""Words beside a split's or a kind's in a folder's name that change nothing: ``ISIC2018_Task3_Training_Input``."""

PATIENT = _set("patient patients pat subject subjects subj sub person p case cases id uid lidc idri tcga")
CLASS = _set(
    "class classes cls grade stage type level group birads rads kl category cat score degree phase bin cluster"
)
"""Words before a number that make it a grade of something, not a person."""

_FUSED = {"groundtruth": ("ground", "truth"), "groundtruths": ("ground", "truths")}


def words(name: str) -> list[str]:
    """``Training_GroundTruth`` -> training, groundtruth; numbers, signs and the list marks ``1.`` and ``a.`` go."""
    name = re.sub(r"^(?:\d+|[a-zA-Z])\.\s+", "", name)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    found = re.findall(r"[^\W\d_]+", spaced.lower())
    for fused, parts in _FUSED.items():
        for at in range(len(found) - 1):
            if tuple(found[at : at + 2]) == parts:
                found[at : at + 2] = [fused]
                break
    return found


def split_of(name: str) -> str:
    """The split that a folder is named after, if need be beside words that mean nothing; else ``""``."""
    if name.lower() in SPLIT_NAMES:
        return SPLIT_NAMES[name.lower()]
    said = words(name)
    # imagesTr, labelsTs, imagesVal: nnU-Net's and the decathlon's
    ending = re.fullmatch(r"(?:images|labels)(Tr|Ts|Va|Val)", name)
    if ending:
        return {"Tr": "", "Ts": "test", "Va": "val", "Val": "val"}[ending[1]]
    splits = [SPLIT_NAMES[word] for word in said if word in SPLIT_NAMES]
    rest = [word for word in said if word not in SPLIT_NAMES]
    return splits[0] if len(splits) == 1 and all(_says_nothing(word) for word in rest) else ""


def fold_of(name: str) -> str:
    """The number of a fold, ``fold_0`` or ``Fold 3``; else ``""``."""
    match = re.fullmatch(r"(?:cv[-_ ]?)?folds?[-_ ]?(\d{1,2})", name, re.IGNORECASE)
    return match[1] if match else ""


def kind_of(name: str) -> str:
    """``image`` or ``mask`` where a folder is named so; else ``""``. The last word that says it counts."""
    if name.lower() in IMAGES:
        return "image"
    if name.lower() in MASKS:
        return "mask"
    if re.fullmatch(r"(?:scan|image|img|input|mask|label|frame)s?[-_ ]?\d+", name, re.IGNORECASE) and not re.match(
        r"(?:image|img)s", name, re.IGNORECASE
    ):
        return ""  # scan_07: one of many, and what is in it is not said
    ending = re.fullmatch(r"(images|labels)(?:Tr|Ts|Va|Val)", name)
    if ending:
        return "image" if ending[1] == "images" else "mask"
    said = words(name)
    kinds = ["image" if word in IMAGES else "mask" if word in MASKS else "" for word in said]
    if not any(kinds):
        return ""
    if kinds[-1] == "mask":
        return "mask"  # leftMask, lung_masks, Training_GroundTruth: of what is said before
    rest = [word for word, kind in zip(said, kinds, strict=True) if not kind and word not in SPLIT_NAMES]
    if not all(map(_says_nothing, rest)):
        return ""
    return "mask" if "mask" in kinds else "image"


def is_list(names: Iterable[str]) -> str:
    """Whether names count something, each with a number in one pattern: ``patient``, ``class``, ``?``; ``""`` for no.

    ``P1``, ``P2``: patients. ``grade1``, ``grade2`` and a short row of plain numbers: classes. ``BRATS_001``, ...,
    ``TCGA_CS_4941_19960909``: dates, long and padded numbers are patients'; otherwise it cannot be known.
    """
    names = sorted(set(names))
    patterns = Counter(re.sub(r"\d+", "#", name) for name in names)
    pattern, number = patterns.most_common(1)[0]
    if "#" not in pattern or number < max(2, 0.8 * len(names)):
        return ""
    said = words(pattern)
    if all(re.match(r"\d{1,2}\s*[-_.)]?\s+[^\W\d]", name) for name in names):
        return "class"  # 1 - mild, 2 - severe
    if set(said) & CLASS:
        return "class"
    if said and (said[0] in PATIENT or set(said) & (PATIENT - {"p", "id", "case", "cases"})):
        return "patient"
    digits = [max(map(len, re.findall(r"\d+", name)), default=0) for name in names]
    if not said:
        numbers = sorted(int(name) for name in names if name.isdigit())
        short = len(numbers) == len(names) <= 20 and numbers[-1] <= 20 and max(digits) <= 2
        return "class" if short else "patient" if min(digits) >= 3 else "?"
    padded = all(re.search(r"(?<!\d)0\d\d", name) for name in names)
    if min(digits) >= 4 or padded:
        return "patient"
    return "?" if len(names) >= 3 else ""


def _says_nothing(word: str) -> bool:
    return word in NEUTRAL or word in IMAGES or word in MASKS or len(word) == 1
