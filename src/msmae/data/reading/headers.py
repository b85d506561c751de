"""What DICOM headers say of patients and studies, read without their pixels."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msmae.data.reading.dicom import MODALITIES
from msmae.data.reading.door import door
from msmae.data.spellings import in_one_spelling, spelled
from msmae.data.tables.labels import ANONYMISED
from msmae.data.tables.listing import DICOM_SUFFIXES, count, has_suffix, some
from msmae.errors import UserError

DICOM_FIELDS = {
    "patient_id": "PatientID",
    "study_id": "StudyInstanceUID",
    "age": "PatientAge",
    "sex": "PatientSex",
    "modality": "Modality",
}
FORMS = {
    "patient_id": re.compile(".*", re.DOTALL),  # kept as a pseudonym only
    "study_id": re.compile(r"[0-9.]{1,64}"),
    "age": re.compile(r"\d{3}[DWMY]"),
    "sex": re.compile("[MFO]"),
    "modality": re.compile("|".join(("CT", *MODALITIES))),
}
"""What each field looks like: a damaged header may hold anything there, a name too."""


def is_dicom(path: str) -> bool:
    """Whether an image of a listing is DICOM: by its suffix, or because no other image goes without one."""
    if ".npz#" in path.lower():
        return False  # a row of an archive
    return path.lower().endswith(DICOM_SUFFIXES) or not has_suffix(path)


def read_headers(paths: Sequence[Path]) -> dict[str, list[str]]:
    """``DICOM_FIELDS`` of DICOM files, without their pixels; ``""`` where a file cannot be read, does not say, or says
    what the field cannot be.

    The patient's ID becomes a pseudonym (12 hex digits of its SHA-256), so that the manifest carries no name; one of
    several spellings has one, of what they have in common; that of each spelling is in a further field, ``spelling``.
    """
    from pydicom import dcmread

    fields: dict[str, list[str]] = {column: [] for column in DICOM_FIELDS}
    for path in paths:
        said = dict.fromkeys(DICOM_FIELDS, "")
        with suppress(UserError), door(path, what="DICOM header"):  # the audit reports it as unreadable
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(DICOM_FIELDS.values()))
            said |= {name: str(header.get(keyword) or "").strip() for name, keyword in DICOM_FIELDS.items()}
        for column, text in said.items():
            fields[column].append(text if FORMS[column].fullmatch(text) else "")
    written = without_anonymous(fields["patient_id"], fields["study_id"])
    people = in_one_spelling(written)[0]
    several = {one for one, name in zip(people, written, strict=True) if one != name}
    common = [same if one in several else one for one, same in zip(people, spelled(people), strict=True)]
    for column, names in (("patient_id", common), ("spelling", written)):
        fields[column] = [name and pseudonym(name) for name in names]
    return fields


def pseudonym(name: str) -> str:
    """What stands for a patient's name or ID: 12 hex digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


STUDIES = 4
"""One ID over this many studies, and over most of them, is nobody's."""


def without_anonymous(patients: Sequence[str], studies: Sequence[str]) -> list[str]:
    """PatientIDs that name somebody; one that names nobody becomes its study's, or ``""`` where no study is known."""
    of: dict[str, set[str]] = {}
    for patient, study in zip(patients, studies, strict=True):
        if patient and study:
            of.setdefault(patient, set()).add(study)
    everything = {study for inside in of.values() for study in inside}
    shared = {
        patient
        for patient, inside in of.items()
        if len(inside) >= STUDIES and 2 * len(inside) > len(everything) and len(patients) > 1
    }
    return [
        (f"study {study}" if study else "") if patient in shared or ANONYMISED.fullmatch(patient) else patient
        for patient, study in zip(patients, studies, strict=True)
    ]


def reconciled(before: Sequence[str], named: Sequence[str], studies: Sequence[str]) -> tuple[list[str], bool]:
    """The patient of every image, and whether headers contradict what folders or names say.

    Args:
        before: patients by folders or names [n], ``""`` for unknown.
        named: those of :func:`read_headers` [n], ``""`` for an image that is no DICOM, too.
        studies: the StudyInstanceUID [n].

    Headers contradict where a person is in several of ``before``, or several persons in one; or a study without a
    person in several. Then they decide, and ``before`` counts for images of which they say nothing. Headers that name
    one person in all tell nobody apart, nor do those that name another in every file, or in one study and folder.
    """
    persons, nameless = list(named), [""] * len(named)
    for row, (name, study) in enumerate(zip(named, studies, strict=True)):
        if name and name == pseudonym(f"study {study}"):
            persons[row], nameless[row] = "", name
    folders_of, among = _seen(persons, before), _seen(studies, persons)
    once = max(Counter(filter(None, persons)).values(), default=0) == 1
    for row, (old, person, study) in enumerate(zip(before, persons, studies, strict=True)):
        if old and person and (once or (len(among.get(study, ())) > 1 and len(folders_of[person]) == 1)):
            persons[row] = ""
    folders_of, persons_in, spans = _seen(persons, before), _seen(before, persons), _seen(nameless, before)
    most = len(set(before) - {""}) / 2
    spans = {
        s: inside for s, inside in spans.items() if len(inside) > 1 and (len(inside) < STUDIES or len(inside) <= most)
    }
    several = any(len(inside) > 1 for inside in (*folders_of.values(), *persons_in.values()))
    if not (spans or (several and len(folders_of) > 1)):
        return [old or name for old, name in zip(before, named, strict=True)], False
    alone = {old: next(iter(inside)) for old, inside in persons_in.items() if len(inside) == 1}
    rows = zip(before, persons, nameless, strict=True)
    return [
        person or (study if study in spans or not old else alone.get(old, old)) for old, person, study in rows
    ], True


def _seen(names: Sequence[str], others: Sequence[str]) -> dict[str, set[str]]:
    """Name -> what stands beside it; where either is ``""``, nothing does."""
    found: dict[str, set[str]] = {}
    for name, other in zip(names, others, strict=True):
        if name and other:
            found.setdefault(name, set()).add(other)
    return found


def header_doubts(fields: Mapping[str, Sequence[str]], *, paths: Sequence[str]) -> list[str]:
    """What of DICOM headers does not go together: several modalities, or a study with several patients."""
    kinds = Counter(filter(None, fields["modality"]))
    doubts = []
    if len(kinds) > 1:
        shown = some([f"{kind} ({number:,})" for kind, number in kinds.most_common()])
        doubts.append(f"the images are of several modalities, which a model can tell apart: {shown}")
    of: dict[str, dict[str, str]] = {}
    for study, patient, path in zip(fields["study_id"], fields["patient_id"], paths, strict=True):
        if study and patient:
            of.setdefault(study, {}).setdefault(patient, path)
    if mixed := [files for files in of.values() if len(files) > 1]:
        first = some(list(mixed[0].values()), at_most=2)
        doubts.append(f"{count(len(mixed), 'study')} with images of more than one patient ({first}): check the export")
    return doubts
