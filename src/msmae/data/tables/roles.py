"""What the name of a folder says: a split, a fold, images, masks, a patient; or nothing, and then it may be a class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

from msmae.data.spellings import spelled
from msmae.data.tables.listing import some

SPLIT_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
    **dict.fromkeys(
        ("trainingsdaten", "entrainement", "entraînement", "entrenamiento", "treino", "训练", "训练集"), "train"
    ),
    **dict.fromkeys(("validierung", "validacion", "validación", "validação", "验证", "验证集"), "val"),
    **dict.fromkeys(("testdaten", "prueba", "teste", "测试", "测试集"), "test"),
}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


IMAGES = _set(
    "images image imgs img scans scan originals original input inputs pictures photos jpegimages cxr frames "
    "labeled labelled bilder bild aufnahmen imagenes immagini"
)
MASKS = _set(
    "masks mask segmentations segmentation seg segs annotations annotation labels label groundtruth "
    "groundtruths gt gts manual contours masken maske annotationen segmentierungen masques mascaras maschere"
)
SHAPES = _set("mask masks segmentation segmentations annotation annotations")
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

OF_IMAGES = _set(
    "image images img file files filename filenames path picture photo scan slice frame bild bilder bildnummer "
    "bilddatei datei dateiname fichier imagen archivo immagine nomefile foto"
)
OF_ROWS = _set("no nr s index idx row number num unnamed lfd zeile 0 id record n")
"""Words in the name of a column that names images; of one that may count the rows, if it has no others."""

EXCLUDED = _set(
    "exclude excluded exclusion exclusions exclu discard discarded remove removed reject rejected blacklist ignore "
    "ignored corrupt corrupted unusable ungradable ungradeable unreadable ausschluss ausschlussgrund ausgeschlossen "
    "excluir excluidos exclus exclues esclusi"
)
"""Words in the name of a list, a column or a folder of images that are not to be used."""
USE = _set("include included use used usable keep gradable gradeable readable acceptable eingeschlossen")
QUALITY = _set("qc quality qualitaet status consent")
OF_USE = _set("image img scan eye for in is to be study analysis control check")
"""Words of a column that says yes or no to an image's use, or of its quality; and what else its name may hold."""
YES_OR_NO = [{"0", "1"}, {"0.0", "1.0"}, {"no", "yes"}, {"n", "y"}, {"false", "true"}, {"nein", "ja"}]
REFUSED = _set(
    "fail failed reject rejected unusable ungradable ungradeable insufficient inadequate excluded discarded withdrawn"
)
"""What such a column says of an image that is not to be used."""
_THROWN = _set("trash junk garbage papierkorb ausschuss unbrauchbar corbeille papelera cestino bad defective")
_NOT_USED = re.compile(
    r"(?:^|[\W_])(?:do[\W_]*not|don.?t|not|nicht|no|ne[\W_]*pas|non)[\W_]*(?:to[\W_]be[\W_])?"
    r"(?:use[ds]?|usable|(?:zu[\W_])?(?:ver|be)?(?:wend|nutz)\w*|usar|utili[sz]\w+|usare)(?:$|[\W_])|"
    r"(?:poor|bad|low|insufficient|schlechte|mala|baja|mauvaise)[\W_]*(?:qualit\w+|calidad)",
    re.IGNORECASE,
)
_PENDING = re.compile(
    r"un(?:classified|annotated|diagnosed|graded|sorted|reviewed|sortiert|klassifiziert|befundet|known|sure|klar)|"
    r"to[\W_]*(?:do|label|check|sort|review)|pending|not[\W_]*(?:yet[\W_]*)?(?:labell?ed|graded|annotated|read)|"
    r"(?:nicht|noch[\W_]*nicht)[\W_]*befundet|noch[\W_]*offen|s(?:in|em)[\W_]*(?:etiqueta\w*|clasifica\w*|classifica\w*)|"
    r"(?:non|pas)[\W_]*class[eé]e?s?|desconocid[oa]s?|inconnue?s?|unbekannt",
    re.IGNORECASE,
)
"""Folders of images whose labels are not known yet, maybe."""
_RESULTS = _set("output outputs prediction predictions preds result results logs checkpoint checkpoints")
"""Folders that an experiment left behind."""
_QUALITY = _set(
    "good ok okay usable accept accepted acceptable adequate keep kept pass passed gut high included include"
)
"""Words in the names of folders beside which those of what is thrown away are a class: the images' quality."""

_FUSED = {"groundtruth": ("ground", "truth"), "groundtruths": ("ground", "truths")}


def letters(name: str) -> str:
    """A name without capitals and signs: ``Patient-ID`` is ``patientid``."""
    return re.sub(r"[\W_]", "", name).lower()


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


def split_of(name: str, shared: Collection[str] = ()) -> str:
    """The split that a folder is named after, if need be beside words that mean nothing, or that it shares with all
    the folders beside it; else ``""``."""
    if name.lower() in SPLIT_NAMES:
        return SPLIT_NAMES[name.lower()]
    said = words(name)
    # imagesTr, labelsTs, imagesVal: nnU-Net's and the decathlon's
    ending = re.fullmatch(r"(?:images|labels)(Tr|Ts|Va|Val)", name)
    if ending:
        return {"Tr": "", "Ts": "test", "Va": "val", "Val": "val"}[ending[1]]
    splits = [SPLIT_NAMES[word] for word in said if word in SPLIT_NAMES]
    rest = [word for word in said if word not in SPLIT_NAMES]
    return splits[0] if len(splits) == 1 and all(_says_nothing(word) or word in shared for word in rest) else ""


def put_aside(name: str, beside: Collection[str] = ()) -> str:
    """What a folder's name, ``beside`` others, says against its use: not to be used (``exclude``; not where the others
    say that the classes are grades of quality), or of no known label; ``""`` for nothing."""
    if _PENDING.fullmatch(name.strip(" _-.")):
        return "their labels are not known"
    said = set(words(name))
    graded = any(set(words(other)) & _QUALITY for other in beside if other != name and not _NOT_USED.search(other))
    against = (said & (EXCLUDED | _THROWN) or _NOT_USED.search(name)) and not graded
    if said and said <= _RESULTS and not all(set(words(other)) <= _RESULTS for other in beside):
        return "they are what an experiment wrote"
    return "they are not to be used" if against else ""


DAY = r"(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d"
"""A day, as the names of files and folders have it: ``20210303``, ``2021-03-03``."""


def are_days(names: Iterable[str]) -> bool:
    """Whether names are days, ``20210303`` or ``2021-03-03``: when something was taken, not of whom."""
    names = list(names)
    return bool(names) and all(re.fullmatch(DAY, name) for name in names)


def fold_of(name: str) -> str:
    """The number of a fold, ``fold_0`` or ``Fold 3``; else ``""``."""
    match = re.fullmatch(r"(?:cv[-_ ]?)?folds?[-_ ]?(\d{1,2})", name, re.IGNORECASE)
    return match[1] if match else ""


def kind_of(name: str, shared: Collection[str] = ()) -> str:
    """``image`` or ``mask`` where a folder is named so; else ``""``. The last word that says it counts; ``shared``
    words, of all the folders beside it, mean nothing."""
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
    if any(word in SHAPES and kind == "image" for word, kind in zip(said, kinds[1:], strict=False)):
        return "mask"  # ROI mask images
    rest = [word for word, kind in zip(said, kinds, strict=True) if not kind and word not in SPLIT_NAMES]
    if not all(_says_nothing(word) or word in shared for word in rest):
        return ""
    return "mask" if "mask" in kinds else "image"


def shared_words(names: Collection[str]) -> frozenset[str]:
    """The words that all of several folders beside one another have in their names, where the others of each say a
    split or a kind: ``X_Part1_Training_Data``, ``X_Part1_Test_GroundTruth``."""
    if len({frozenset(words(name)) for name in names}) < 2:
        return frozenset()  # they differ in their numbers
    shared = frozenset.intersection(*(frozenset(words(name)) for name in names))
    return shared if all(split_of(name, shared) or kind_of(name, shared) for name in names) else frozenset()


def parts_of_one(names: Iterable[str]) -> dict[str, str]:
    """Folder -> the patient of whom it is a part, where several are: ``patient_004_node_4``, ``P_00001_LEFT_CC``;
    empty where none are."""
    found: dict[str, str] = {}
    for name in set(names):
        match = _WHO.match(name) or _NUMBERED.match(name)
        rest = name[match.end() :] if match else ""
        if match and (not rest or (set(words(rest)) - {""} <= PARTS and words(rest))):
            found[name] = match[0]
    several = len(set(found.values())) < len(found)
    return found if several and len(found) == len(set(names)) else {}


PARTS = _set(
    "left right l r cc mlo ml lm od os node visit session ses study scan series exam mr ct pet us baseline followup "
    "pre post day month year t v lesion nodule tumor slice view eye breast lung knee run before after vorher nachher "
    "flair dwi adc w c ce gd native contrast axial sagittal coronal ap pa lateral oct fundus x"
)
"""Words behind a patient's number, or of folders, that name a part of what there is of the patient."""
VISIT = re.compile(
    rf"{DAY}(?:\D.*)?|[0-3]?\d\.[01]?\d\.(?:19|20)\d\d|"
    r"(?:visit[ea]?|besuch|termin|session|ses|baseline|follow-?up|time-?point|v)[-_ ]?\d{0,4}",
    re.IGNORECASE,
)
"""Folders of the days, or visits, on which somebody was seen."""
LOT = re.compile(
    r"(?:part|teil|batch|chunk|shard|disk|zip|archive|cohort|kohorte|jahrgang|year|jahr|wave|release|site|cent(?:er|re))"
    r"[_\- ]?\d+",
    re.IGNORECASE,
)
"""Folders that a set was cut into, or came in, where all beside one another are called so."""
YEAR, MOST_YEARS = re.compile(r"(?:19|20)\d\d"), 12
_WHO = re.compile(r".*?(?<![a-z])(?:person|patient|pat|subject|subj|sub|case)[-_ ]?\d+(?![a-z])", re.IGNORECASE)
_NUMBERED = re.compile(r"[^\d]*?(?:\d{1,2}[_-])?[^\d]*?\d{3,}")


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
    if are_days(names):
        return "?"  # on which somebody was seen
    digits = [max(map(len, re.findall(r"\d+", name)), default=0) for name in names]
    if not said:
        numbers = sorted(int(name) for name in names if name.isdigit())
        short = len(numbers) == len(names) <= 20 and numbers[-1] <= 20 and max(digits) <= 2
        return "class" if short else "patient" if min(digits) >= 3 else "?"
    padded = all(re.search(r"(?<!\d)0\d\d", name) for name in names)
    if min(digits) >= 4 or padded:
        return "patient"
    return "?" if len(names) >= 3 else ""


def are_visits(names: Collection[str]) -> bool:
    """Whether all of these folders are called as the visits of a patient are: by a day, or a word and a number."""
    return all(VISIT.fullmatch(name) for name in names)


def are_lots(names: Collection[str]) -> bool:
    """Whether all of these folders are called as parts of a set are, its cohorts, batches or years."""
    few = len(names) <= MOST_YEARS
    return all(LOT.fullmatch(name) or (few and YEAR.fullmatch(name)) for name in names)


SAID = 3
"""What is known of an image before its folders: the split, the site, the class."""


def told_apart(above: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[list[str], str]:
    """Patients' names, told apart where their numbers begin anew in each split, site or class; and that in a few words.

    ``000`` to ``023`` without a gap in each of two classes are 48 people; ``10253`` in two is one. Where the numbers
    begin anew in several ways, the finest counts. Other folders tell nobody apart, since they may be views of the same
    people, and nobody may be torn; where numbers begin anew in them, the words say so.

    Args:
        above: the split, the site, the class and the folders above each name, as many of each, ``""`` for none.
        names: ``""`` for nobody.
    """
    levels: dict[tuple[int, ...], tuple[bool, Sequence[str]]] = {}  # what divides the images alike is one level
    for column, cells in enumerate(zip(*above, strict=True)):
        places = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
        parts = all(words(cell) and {*words(cell)} <= PARTS for cell in places if cell)
        if len(places) > 1 and not (parts or are_visits({*places} - {""})):
            levels.setdefault(tuple(places[cell] for cell in cells), (column < SAID, cells))
    alike = spelled(names)
    told = [cells for said, cells in levels.values() if said]
    for size in range(len(told), 0, -1):
        for those in combinations(told, size):
            rows = list(zip(*those, strict=True))
            if where := _anew(rows, alike):
                apart = [
                    "/".join(filter(None, (*row, name))) if name else "" for row, name in zip(rows, names, strict=True)
                ]
                return apart, f", numbered anew in each of {where}"
    for free in (cells for said, cells in levels.values() if not said):
        if where := _anew([(cell,) for cell in free], alike):
            return list(
                names
            ), f", taken for the same people in each of {where} (if not: --patients with an expression)"
    return list(names), ""


def _anew(rows: Sequence[tuple[str, ...]], names: Sequence[str]) -> str:
    """Some of the places, where numbers begin anew in each and some stand in several; else ``""``."""
    inside: dict[tuple[str, ...], set[str]] = {}
    for row, name in {(row, name) for row, name in zip(rows, names, strict=True) if name}:
        inside.setdefault(row, set()).add(name)
    everyone = set().union(*inside.values()) if inside else set()
    numbers = {name: int(said[-1]) for name in everyone if (said := re.findall(r"\d{1,9}", name))}
    if len(numbers) < len(everyone) or sum(map(len, inside.values())) == len(everyone):
        return ""
    if any(max(map(numbers.__getitem__, people)) > len(people) + 1 for people in inside.values()):
        return ""
    return some(sorted({"/".join(filter(None, place)) for place in inside} - {""}), at_most=3)


def _says_nothing(word: str) -> bool:
    return word in NEUTRAL or word in IMAGES or word in MASKS or len(word) == 1
