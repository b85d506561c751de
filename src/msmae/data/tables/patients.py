"""Whose image it is, and of which split, where no table and no folder says so: from the file's name, or from the DICOM
header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from msmae.data.manifest import COLUMNS, Manifest, plain
from msmae.data.reading.headers import DICOM_FIELDS, header_doubts, is_dicom, read_headers, reconciled
from msmae.data.spellings import spelling_rule
from msmae.data.tables.labels import label_notes
from msmae.data.tables.listing import count, some, without_suffix
from msmae.data.tables.meaning import says_no_person, says_number, says_person
from msmae.data.tables.roles import DAY, SPLIT_NAMES, are_days, split_of, told_apart, words
from msmae.errors import UserError

PATIENT_IN_NAME = re.compile(r"(?<![a-z])(?:person|patient|pat|subject|subj|sub)[-_ ]?\d+", re.IGNORECASE)
SIDES = re.compile(r"(?P<who>.*\d.*?)[-_ ]?(?P<side>OD|OS|left|right|(?<=[\d_-])[LR])$", re.IGNORECASE)
FIRST_WORD = re.compile(r"([^\W\d_]{2,}(?:[-_ ][^\W\d_]{2,})*)[-_ (]*\d")
"""The words that a file's name begins with, before its number: ``train`` of ``train_012``."""
SIDE_FOLDERS = {"left", "right", "l", "r", "od", "os", "left_eye", "right_eye"}
BEGINNING = re.compile(r"([^/]*?\d{3,})[_-][^/]*$")
"""The beginning of a file's name up to its first long number, where more follows: ``OAS1_0001`` of
``OAS1_0001_MR1_100``."""
UNIT = re.compile(
    r"(?:[a-z]+[-_ ])?(?:case|video|vid|seq(?:uence)?|clip|slide|wsi|scan|series|study|exam|vol(?:ume)?)"
    r"[-_ ]?\d+(?=[-_ ])",
    re.IGNORECASE,
)
"""What a file's name begins with where several images are of one video, case or slide: ``video3_frame0001``."""
TILE = re.compile(r".*?[a-z\d](?=[-_ ](?:x|r|row)[-_=]?\d+[-_ ](?:y|c|col)[-_=]?\d+)", re.IGNORECASE)
"""The name of a slide, before the place of a tile in it: ``S03_x0128_y0256``."""
NUMBERED = re.compile(r"([^/]*?[^\W\d_][^/]*?)[-_ ]+[A-Za-z]{0,8}\d+(?:[-.]\d+)*\.[^/.]+$")
"""The name before a last number, with or without a word: ``Huber`` of ``Huber_v2.png``."""
BEHIND_DAY = re.compile(rf"{DAY}[-_]([^/_-]+)[_-][^/]*$")
"""What stands behind a day in a file's name: ``418`` of ``20210302_418_1.png``."""
FOLDER = "the folder"
"""How the rule begins by which folders are patients."""
IDENTIFIER = re.compile(r"(?=.*\d)(?!\d{1,3}$|[+-]?\d*[.,]\d+$|\d{3}[DWMY]$)[\w.#-]{2,40}")
"""A cell that may identify somebody: no short number, measurement or age."""
DATE = re.compile(r"(?:19|20)\d\d(?:[01]\d[0-3]\d|-(?:0[1-9]|1[0-2]))|\d{1,4}([-./])\d{1,2}\1\d{1,4}")
MOST_IMAGES = 20  # of what a cell identifies
BEGINNINGS, FEWEST, SHARE = 10, 4, 0.2
"""Beginnings from which they are taken for patients, or offered, and the share of the images that one may have."""


def suggest_patients(manifest: Manifest, *, patients: str = "auto") -> Manifest:
    """Fill ``patient_id`` where the manifest has none at all, or as told, and say so in its notes.

    ``patients`` is ``auto`` (DICOM headers, then names such as ``person12_...`` or ``Patient007_L``), ``none``,
    ``folder`` (the folder that an image lies in), or a regular expression searched in the path of every image, whose
    first group (or whole match) is the patient. All but ``auto`` set aside what a layout or a table says. Patients by
    folders or file names give way to DICOM headers that contradict them.
    Raises ``UserError`` for an expression that cannot be read or matches nothing.
    """
    paths = manifest.table["image_path"].tolist()
    if patients != "auto":
        return _as_told(manifest, paths, patients)
    named = bool(manifest.table["patient_id"].any())
    if named and not manifest.rules.get("patient_id", "").startswith(FOLDER):
        return manifest
    dicom = [row for row, path in enumerate(paths) if is_dicom(path)]
    if not named and len(dicom) < len(paths):
        manifest = _by_names(manifest, paths)
    if dicom:
        manifest = _by_header(manifest, dicom)
    if len(dicom) == len(paths) and not manifest.table["patient_id"].any():
        manifest = _by_names(manifest, paths)
    return _with_hint(manifest, paths)


def _by_names(manifest: Manifest, paths: Sequence[str]) -> Manifest:
    """Patients by the names of files; the manifest as it is where these tell nobody apart."""
    found = [_matched(PATIENT_IN_NAME, path).lower() for path in paths]
    if len(set(found) - {""}) < 2:  # no patient, or the same word in every path, tells nobody apart
        by_name = _by_pairs(manifest, paths) or _by_side_folders(manifest, paths) or _by_units(manifest, paths)
        return by_name or _by_beginnings(manifest, paths) or manifest
    heads = [path[: match.start()] if (match := PATIENT_IN_NAME.search(path)) else "" for path in paths]
    found, anew = _anew(manifest, found, heads)
    note = (
        f"patients guessed from file names{anew}: {count(len(set(found) - {''}), 'patient')} in "
        f"{count(sum(map(bool, found)), 'image')}, such as '{next(filter(None, found))}'; "
        "if that is wrong, give a column patient_id, --patients none, or --patients with an expression"
    )
    rule = f"file names (person, patient, subject with a number){anew}"
    return manifest.with_columns({"patient_id": found}, notes=[note], rules={"patient_id": rule})


def labels_as_told(manifest: Manifest, labels: str) -> Manifest:
    """The labels by an expression searched in the path of every image: its first group, or the whole match.

    Raises ``UserError`` for an expression that cannot be read or matches nothing.
    """
    found = _searched(labels, manifest.table["image_path"].tolist(), option="--label-column path:")
    named = sum(map(bool, found))
    notes = [f"{count(named, 'image')} labelled by '{labels}'", *label_notes(found)]
    return manifest.with_columns({"label": found}, notes=notes, rules={"label": f"the expression {labels}"})


def _by_pairs(manifest: Manifest, paths: Sequence[str]) -> Manifest | None:
    """Both eyes, or sides, of a patient: ``10_left`` and ``10_right``, ``RET002OD`` and ``RET002OS``; None where
    hardly any file is named so, or no two belong together."""
    matches = [SIDES.match(without_suffix(path.rpartition("/")[2])) for path in paths]
    found = ["" if match is None else plain(match["who"]) for match in matches]
    sides = ["" if match is None else match["side"].lower() for match in matches]
    if sum(map(bool, found)) < 0.8 * len(found) or len(set(found) - {""}) < 2 or not _both(found, sides):
        return None
    apart, anew = _anew(manifest, found, paths, sides)
    number = len(set(apart) - {""})
    note = f"{count(number, 'patient')} by file names that end in a side{anew}: {_both(apart, sides):,} with both"
    rules = {"patient_id": f"names but for the side{anew}"}
    return manifest.with_columns({"patient_id": apart}, notes=[note], rules=rules)


def _by_side_folders(manifest: Manifest, paths: Sequence[str]) -> Manifest | None:
    """Both eyes, or sides, of a patient in folders of their own: ``left/003.png`` and ``right/003.png``; None where
    some image lies in no such folder, or no two are called alike."""
    places = [path.rpartition("/") for path in paths]
    folders = [(folder.rpartition("/")[2].lower(), folder.rpartition("/")[0]) for folder, _, _ in places]
    if not all(side in SIDE_FOLDERS for side, _ in folders):
        return None
    found = [plain(without_suffix(name)) for _, _, name in places]
    people = {(above, name) for (_, above), name in zip(folders, found, strict=True)}
    if len(people) < 2 or len(people) == len(paths):
        return None
    apart, anew = _anew(manifest, found, paths, [side for side, _ in folders])
    rule = f"files of one name in folders of sides{anew}"
    note = f"{count(len(people), 'patient')} by {rule}: {len(paths) - len(people):,} twice"
    return manifest.with_columns({"patient_id": apart}, notes=[note], rules={"patient_id": rule})


def _anew(
    manifest: Manifest, names: Sequence[str], heads: Sequence[str], sides: Sequence[str] = ()
) -> tuple[list[str], str]:
    """Patients' names of the files, told apart where numbers begin anew (:func:`told_apart`), and no two ``sides`` of a
    patient come apart; ``heads``: the paths up to the names."""
    folders = [tuple(map(plain, head.split("/")[:-1])) for head in heads]
    deep = max(map(len, folders))
    known = manifest.table[["split", "site", "label"]].itertuples(index=False, name=None)
    above = [(*cells, *inside, *[""] * (deep - len(inside))) for cells, inside in zip(known, folders, strict=True)]
    apart, anew = told_apart(above, names)
    return (list(names), "") if sides and _both(apart, sides) < _both(names, sides) else (apart, anew)


def _both(names: Sequence[str], sides: Sequence[str]) -> int:
    """How many are seen from a second side."""
    return len({(who, side) for who, side in zip(names, sides, strict=True) if who}) - len(set(names) - {""})


def with_words_of_names(manifest: Manifest, *, splits: bool = True) -> Manifest:
    """The split, where every file is named after one (``train_01.png``, ``test_02.png``) and nothing else says it,
    unless ``splits`` is false; and, of images without a label, a note where all names begin with one of a few words,
    which may be the classes."""
    stems = [without_suffix(path.rpartition("/")[2]) for path in manifest.table["image_path"]]
    begins = [match[1].strip("-_ ") if (match := FIRST_WORD.match(stem)) else "" for stem in stems]
    said = Counter(begins)
    if "" in said or not 2 <= len(said) <= 8 or min(said.values()) < 2:
        return manifest
    named = {word: split_of(word) for word in said}
    if {"train", "test"} <= set(named.values()) and all(named.values()):
        if manifest.table["split"].any():
            return manifest
        rule = f"the beginnings of the file names ({', '.join(sorted(said))})"
        if not splits:
            return manifest.with_columns({}, rules={"split": f"{rule}: left out, as told"})
        known = {word for word, label in zip(begins, manifest.table["label"], strict=True) if label}
        if known and known != set(said):
            bare = " and ".join(sorted(set(said) - known))
            return manifest.with_columns({}, rules={"split": f"{rule}; {bare} without a label, for pre-training"})
        told = {"split": [named[word] for word in begins]}
        return manifest.with_columns(told, notes=[f"splits by {rule}"], rules={"split": rule})
    if manifest.classes or manifest.table["mask_path"].any():
        return manifest
    either = "|".join(re.escape(word) for word in sorted(said))
    option = f"--label-column 'path:({either})[^/]*$'"
    hint = f"the file names begin with {some(sorted(said))}: if these are classes, say {option}"
    return manifest.with_columns({}, notes=[hint])


def _by_units(manifest: Manifest, paths: Sequence[str]) -> Manifest | None:
    """Several images of a video, a case, a slide each, by file names; None where they are not named so."""
    names = [path.rpartition("/")[2] for path in paths]
    tiles = [match[0].lower() if (match := TILE.match(name)) else "" for name in names]
    found = tiles if any(tiles) else [match[0].lower() if (match := UNIT.match(name)) else "" for name in names]
    units = set(found) - {""}
    if sum(map(bool, found)) < 0.8 * len(found) or len(units) < 2 or 2 * len(units) > len(found):
        return None
    apart, anew = (tiles, "") if any(tiles) else _anew(manifest, found, paths)  # a slide has tiles of several classes
    rule = f"file names that count videos, cases, slides ({next(filter(None, apart))}){anew}"
    note = f"{count(len(set(apart) - {''}), 'patient')} by {rule}"
    return manifest.with_columns({"patient_id": apart}, notes=[note], rules={"patient_id": rule})


def _by_beginnings(manifest: Manifest, paths: Sequence[str]) -> Manifest | None:
    """What files share the beginning of their names, up to a long number, where there are ``BEGINNINGS`` or more of
    them, each of one class alone; None where it may mean something else (a date, a site)."""
    begins = [match[1] if (match := BEGINNING.search(path)) else "" for path in paths]
    if sum(map(bool, begins)) < 0.8 * len(paths) or are_days({*begins} - {""}):
        return None
    begins, anew = _anew(manifest, begins, paths)
    people = Counter(filter(None, begins))
    if len(people) < BEGINNINGS or 2 * len(people) > len(paths):
        return None
    pairs = {(begin, label) for begin, label in zip(begins, manifest.table["label"], strict=True) if begin}
    if len(pairs) > len(people) or max(people.values()) > SHARE * len(paths):
        return None
    rule = f"names that begin alike, up to a long number, each of one class ({people.most_common(1)[0][0]}){anew}"
    note = f"{count(len(people), 'patient')} by {rule}"
    return manifest.with_columns({"patient_id": begins}, notes=[note], rules={"patient_id": rule})


def _with_hint(manifest: Manifest, paths: Sequence[str]) -> Manifest:
    """The manifest, with a note on columns that may name the patients; or where nobody is known, and the beginnings of
    the file names repeat as patients do."""
    known = bool(manifest.table["patient_id"].any())
    if columns := _offered(manifest, known=known):
        which = f"columns {', '.join(columns[:2])} may name the patients, and are" if columns[1:] else ""
        which = which or f"column {columns[0]} may name the patients, and is"
        note = f"the {which} not used: --patient-column '{columns[0]}'"
        return manifest.with_columns({}, notes=[note] if known else [], rules={} if known else {"patient_id": note})
    if known:
        return manifest
    for pattern in (BEGINNING, NUMBERED, BEHIND_DAY):
        begins = Counter(match[1] for path in paths if (match := pattern.search(path)))
        if are_days(begins):
            continue
        several = [one for one, images in begins.items() if images > 1 and not {*words(one)} & {*SPLIT_NAMES}]
        if not len(several) >= 2 or sum(begins.values()) < 0.8 * len(paths) or 2 * len(begins) > len(paths):
            continue
        if pattern is NUMBERED and (len(several) < FEWEST or max(begins.values()) > SHARE * len(paths)):
            continue
        note = (
            f"names share beginnings, as images of one patient do ('{several[0]}' in {begins[several[0]]} images), and "
            f"are not taken for patients: --patients '{pattern.pattern}'"
        )
        return manifest.with_columns({}, notes=[note], rules={"patient_id": note})
    return manifest


def _offered(manifest: Manifest, *, known: bool) -> list[str]:
    """The further columns that may name the patients: those that are called so; and where none are ``known``, those
    whose cells repeat as patients do, of fewest values first."""
    read = set(DICOM_FIELDS) if any(map(is_dicom, manifest.table["image_path"])) else set()
    free = [name for name in map(str, manifest.table) if name not in {*COLUMNS, "fold", "cluster", *read}]
    free = [name for name in free if not says_no_person(name)]
    called = [name for name in free if says_person(name) and manifest.table[name].nunique() > 1]
    if called or known:
        return called
    alike = [name for name in free if _repeats(manifest, name) or _identifies(manifest, name)]
    return sorted(alike, key=lambda name: manifest.table[name].nunique())


def _repeats(manifest: Manifest, column: str) -> bool:
    """Whether a column has few images a value, most values several, and each one label."""
    cells, labels = manifest.table[column], manifest.table["label"]
    pairs = [(cell, label) for cell, label in zip(cells, labels, strict=True) if cell and label]
    sizes = Counter(cell for cell, _ in pairs)
    several = [cell for cell, images in sizes.items() if images > 1]
    if len(pairs) < 0.8 * len(cells) or len(sizes) < FEWEST or max(sizes.values()) > SHARE * len(pairs):
        return False
    divided = Counter(cell for cell, _ in set(pairs))  # value -> its labels
    few = sum(n > 1 for n in divided.values()) <= 0.1 * len(sizes)
    return 2 * len(several) >= len(sizes) and few and len(manifest.classes) > 1


def _identifies(manifest: Manifest, column: str) -> bool:
    """Whether a column holds many identifiers (no short numbers, measurements or days), each of few images, some of
    several."""
    cells = manifest.table[column]
    sizes = Counter(filter(None, cells))
    if len(sizes) < BEGINNINGS or sum(sizes.values()) < 0.8 * len(cells) or max(sizes.values()) > MOST_IMAGES:
        return False
    written = all(IDENTIFIER.fullmatch(cell) or (says_number(column) and cell.isdecimal()) for cell in sizes)
    return (
        written
        and not all(map(DATE.fullmatch, sizes))
        and sum(images > 1 for images in sizes.values()) >= 0.1 * len(sizes)
    )


def _as_told(manifest: Manifest, paths: Sequence[str], patients: str) -> Manifest:
    """Patients as ``--patients`` says, and a note on those that are set aside."""
    before = len(set(manifest.table["patient_id"]) - {""})
    rule = manifest.rules.get("patient_id", "the data")
    aside = [f"{count(before, 'patient')} by {rule} set aside, as told"] if before else []
    if patients == "none":
        none = {"patient_id": [""] * len(manifest)}
        return manifest.with_columns(none, notes=aside, rules={"patient_id": "none, as told"})
    if patients == "folder":
        found = [plain(path.rpartition("/")[0]) for path in paths]
        if len(set(found)) < 2:
            raise UserError("all images lie in one folder", where=manifest.where, mend="say --patients auto")
        note = f"{count(len(set(found)), 'patient')} by their folder"
        return manifest.with_columns({"patient_id": found}, notes=[note, *aside], rules={"patient_id": "the folder"})
    return _by_expression(manifest, paths, patients, aside)


def _by_header(manifest: Manifest, dicom: Sequence[int]) -> Manifest:
    """Patients by the headers of the images that are DICOM, where these contradict what is known or nothing is."""
    if "study_id" in manifest.table:  # the headers were read already, and name no patient
        return manifest
    before, rule = manifest.table["patient_id"].tolist(), manifest.rules.get("patient_id", "")
    fields = {column: [""] * len(manifest) for column in DICOM_FIELDS}
    said = read_headers([manifest.path(row) for row in dicom])
    spellings = Counter(
        person for person, _ in {*zip(said["patient_id"], said.pop("spelling"), strict=True)} - {("", "")}
    )
    for column, values in said.items():
        for row, value in zip(dicom, values, strict=True):
            fields[column][row] = value
    known = {column: values for column, values in fields.items() if any(values) and column not in manifest.table}
    known["patient_id"], contradicted = reconciled(before, fields["patient_id"], fields["study_id"])
    doubts = header_doubts(fields, paths=manifest.table["image_path"].tolist())
    if known["patient_id"] == before:
        people = len(set(fields["patient_id"]) - {""})
        none = [] if people else ["the DICOM headers name no patient"]
        if people == len(dicom) > len(set(before)):
            none = [f"the DICOM headers name another patient in every file, and count for none beside {rule}"]
        return manifest.with_columns(known, notes=[*none, *doubts])
    number, groups = len(set(known["patient_id"]) - {""}), len(set(before) - {""})
    ours = "the PatientID of the DICOM headers, or the study where that names nobody (under a pseudonym)"
    if contradicted:
        lie = f"they lie in {count(groups, 'folder')}"
        ours += f"; {lie if rule.startswith(FOLDER) else f'there would be {groups} by {rule}'}"
    note = f"{count(number, 'patient')} by the PatientID of the DICOM headers, under a pseudonym"
    told = f"{note}; an ID that names nobody (ANONYMOUS, or one over most studies) counts as its study"
    rules = {"patient_id": f"{rule}; else by {ours}" if groups and not contradicted else ours}
    if several := sum(number > 1 for number in spellings.values()):
        rules |= spelling_rule(several, "in the DICOM headers")
    return manifest.with_columns(known, notes=[told, *doubts], rules=rules)


def _by_expression(manifest: Manifest, paths: Sequence[str], expression: str, aside: Sequence[str]) -> Manifest:
    found = _searched(expression, paths, option="--patients ")
    note = f"{count(len(set(found) - {''}), 'patient')} by '{expression}', in {count(sum(map(bool, found)), 'image')}"
    rules = {"patient_id": f"the expression {expression}"}
    return manifest.with_columns({"patient_id": found}, notes=[note, *aside], rules=rules)


def _searched(expression: str, paths: Sequence[str], *, option: str) -> list[str]:
    """What an expression finds in every path, ``""`` where nothing."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(f"{option}'{expression}' is no regular expression: {error}", mend="correct it") from error
    found = [_matched(pattern, path) for path in paths]
    if not any(found):
        raise UserError(f"{option}'{expression}' matches no image", where=paths[0], mend="correct the expression")
    return found


def _matched(pattern: re.Pattern[str], path: str) -> str:
    match = pattern.search(path)
    return "" if match is None else match[1 if pattern.groups else 0] or ""
