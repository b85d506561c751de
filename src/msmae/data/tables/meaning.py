"""What the columns of a stranger's table mean, by names and cells: the label, the patient, the site."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from msmae.data.tables.findings import finding_columns
from msmae.data.tables.labels import ANONYMISED, UNKNOWN
from msmae.data.tables.roles import letters, words

LABEL = {
    *("label", "labels", "class", "classes", "diagnosis", "diagnostic", "diagnoses", "dx", "target", "targets"),
    *("grade", "grades", "category", "pathology", "severity", "disease", "finding", "findings", "benign", "malignant"),
    *("diagnose", "diagnosen", "diagnosi", "diagnostico", "diagnóstico", "diagnostik", "befund", "klasse", "clase"),
    *("classe", "etiqueta", "etichetta", "étiquette", "hallazgo", "reperto", "诊断", "类别", "标签", "分类"),
    *("risk", "stage", "outcome", "birads", "density", "acr", "tumor", "tumour", "kl", "level"),
}
"""Words in the name of a column that may hold the label."""
NUMBERED_CLASS = re.compile(r"(?:class|label|category|target|diagnosis)(?:id|no|nr|num|number|idx|index|code)")
"""The name of a column that numbers the classes: ``class_id``."""
NOT_LABEL = {
    *("type", "confirm", "confirmed", "source", "method", "id", "ids", "number", "no", "count", "date", "name", "url"),
    *("bbox", "box", "age", "sex", "gender", "view", "side", "laterality", "year", "width", "height", "size", "score"),
    *(
        "encoded",
        "pixels",
        "rle",
        "mask",
        "prediction",
        "string",
        "path",
        "file",
        "time",
        "fold",
        "split",
        "test",
        "train",
        "val",
    ),
}
"""Words beside these that say it is something about the label."""
PATIENT = (
    *("patientid", "patient", "subjectid", "subject", "participantid", "personid", "patientno", "caseid", "pid"),
    *("patientname", "patientnumber", "patientnr", "patientkey", "patid", "patno", "patnr", "mrn", "subjid", "subid"),
    *("patientenid", "patientennr", "patientennummer", "probandid", "proband", "idpatient", "paciente", "idpaciente"),
    *("pacienteid", "paziente", "idpaziente", "患者", "患者id", "病人", "病人id", "病历号"),
)
LESION = ("lesionid", "lesion")
NUMBER = {"id", "ids", "no", "nr", "number", "name", "code", "key", "case", "fall", "akte", "accession", "hn", "mrn"}
"""Words in the name of a column that numbers something, a patient maybe."""
NO_PERSON = {
    *("image", "img", "slice", "frame", "tile", "patch", "instance", "sop", "series", "row", "col", "x", "y", "index"),
    *("device", "scanner", "reader", "rater", "axis", "window", "as", "given", "written", "alter", "fold", "cluster"),
    *("weight", "height", "bmi", "history", "position", "orientation", "birth", "comment", "comments", "status"),
}
"""Words in the name of a column that is of none."""
SITE = (
    *("site", "center", "centre", "hospital", "institution", "clinic", "klinik", "krankenhaus", "standort", "zentrum"),
    *("centro", "hopital", "hôpital", "ospedale", "医院"),
)
CLASSES = 100


def label_columns(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns that may hold the label; one that is called so goes before all others."""
    columns = [name for name in columns if _few(table[name])]
    exact = [name for name in columns if letters(name) == "label"]
    if exact:
        return exact[:1]
    said = {name: {*words(name), letters(name)} for name in columns}
    found = [name for name in columns if said[name] & LABEL and not said[name] & NOT_LABEL]
    return found or [name for name in columns if NUMBERED_CLASS.fullmatch(letters(name))]


def anything_but_label(name: str) -> bool:
    """Whether a column's name says that it is no label: an age, a view, a size."""
    return bool({*words(name), letters(name)} & NOT_LABEL)


def says_person(name: str) -> bool:
    """Whether a column may name the patients, as it is called."""
    return letters(name) in (*PATIENT, *LESION) or bool(re.search("patient|subject|person", name.lower()))


def says_no_person(name: str) -> bool:
    """Whether a column's name says that it is of something else than a person or a study: an age, a slice, a device."""
    return bool({*words(name), letters(name)} & ((NOT_LABEL | NO_PERSON) - NUMBER))


def says_number(name: str) -> bool:
    """Whether a column's name says that it numbers something."""
    return bool({*words(name)} & NUMBER) or letters(name).endswith(("nummer", "number", "nr"))


def label_findings(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Columns a finding that can be nothing else: one 1 in every row, or cells that are -1 or empty."""
    found = [name for name in finding_columns(table) if name in columns]
    if not found:
        return []
    cells = table[found]
    yes = cells.isin(["1", "1.0"])
    unsure = cells.isin(["-1", "-1.0", ""])
    return found if bool((yes.sum(axis=1) == 1).all()) or bool(unsure.to_numpy().any()) else []


def patient_column(table: pd.DataFrame, image: str) -> str:
    """The column of the patients, or of the lesions where there is none; it may also name the images. ``""``: none."""
    for known in (PATIENT, LESION):
        for name in sorted((str(name) for name in table if letters(str(name)) in known), key=lambda n: n == image):
            if len(set(known_patients(table[name])) - {""}) > 1 or len(table) == 1:
                return name
    return ""


def known_patients(cells: Iterable[str]) -> list[str]:
    """A patient's cells as they are, without those that name nobody; ``0`` is somebody where others are numbers."""
    said = [cell.strip() for cell in cells]
    numbered = any(cell.isdecimal() and cell.strip("0") for cell in said)
    return ["" if ANONYMISED.fullmatch(cell) and not (numbered and cell.isdecimal()) else cell for cell in said]


def site_column(table: pd.DataFrame, columns: Iterable[str]) -> str:
    """The column of the sites."""
    return next((name for name in columns if letters(name) in SITE and len(set(table[name]) - UNKNOWN) > 1), "")


def _few(cells: pd.Series) -> bool:
    """Whether a column holds a few different values, each in several rows."""
    given = [cell for cell in cells if cell.strip().lower() not in UNKNOWN]
    return 2 <= len(set(given)) <= max(2, min(CLASSES, len(given) // 2))
