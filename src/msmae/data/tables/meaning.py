"""What the columns of a stranger's table mean, by names and cells: the label, the patient, the split, the site."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from msmae.data.tables.findings import finding_columns
from msmae.data.tables.labels import UNKNOWN
from msmae.data.tables.patients import ANONYMISED
from msmae.data.tables.roles import words
from msmae.data.tables.tables import SPLIT_NAMES

LABEL = {
    *("label", "labels", "class", "classes", "diagnosis", "diagnostic", "diagnoses", "dx", "target", "targets"),
    *("grade", "grades", "category", "pathology", "severity", "disease", "finding", "findings", "benign", "malignant"),
    *("risk", "stage", "outcome", "birads", "density", "acr", "tumor", "tumour", "kl", "level"),
}
"""Words in the name of a column that may hold the label."""
NOT_LABEL = {
    *("type", "confirm", "confirmed", "source", "method", "id", "ids", "number", "no", "count", "date", "name", "url"),
    *("bbox", "box"),
}
"""Words beside these that say it is something about the label."""
PATIENT = ("patientid", "patient", "subjectid", "subject", "participantid", "personid", "patientno", "caseid", "pid")
LESION = ("lesionid", "lesion")
SPLIT = ("split", "set", "subset", "partition", "datasplit")
SITE = ("site", "center", "centre", "hospital", "institution")
CLASSES = 100


def letters(name: str) -> str:
    """A name without capitals and signs."""
    return re.sub(r"[\W_]", "", name).lower()


def label_columns(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns that may hold the label; one that is called so goes before all others."""
    columns = [name for name in columns if _few(table[name])]
    exact = [name for name in columns if letters(name) == "label"]
    if exact:
        return exact[:1]
    said = {name: {*words(name), letters(name)} for name in columns}
    return [name for name in columns if said[name] & LABEL and not said[name] & NOT_LABEL]


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
            cells = {cell for cell in table[name] if not nobody(cell)}
            if len(cells) > 1 or len(table) == 1:
                return name
    return ""


def nobody(cell: str) -> bool:
    """Whether a patient's cell names nobody."""
    return not cell.strip() or ANONYMISED.fullmatch(cell.strip()) is not None


def split_column(table: pd.DataFrame, columns: Iterable[str]) -> str:
    """The column of the splits, if all of its cells are known words for them."""
    for name in columns:
        cells = {cell.strip().lower() for cell in table[name]} - UNKNOWN
        if letters(name) in SPLIT and cells and cells <= set(SPLIT_NAMES):
            return name
    return ""


def site_column(table: pd.DataFrame, columns: Iterable[str]) -> str:
    """The column of the sites."""
    return next((name for name in columns if letters(name) in SITE and len(set(table[name]) - UNKNOWN) > 1), "")


def _few(cells: pd.Series) -> bool:
    """Whether a column holds a few different values, each in several rows."""
    given = [cell for cell in cells if cell.strip().lower() not in UNKNOWN]
    return 2 <= len(set(given)) <= max(2, min(CLASSES, len(given) // 2))
