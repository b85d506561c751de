"""Answers for what has several images (a patient, a lesion, a study): its images' answers pooled into one.

A unit has the label of its images. Single-label images of one unit that contradict each other say nothing of the unit:
it is left out, and counted. With several labels per image, the unit has the labels of all its images; one that some
image has is known of the unit, though it is not of others (``a`` and ``?a``: ``a``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from msmae.errors import UserError, count
from msmae.statistics.answers import name_classes
from msmae.statistics.predictions import PREFIX, UNSURE, identity_columns, names_patient

AUTO = "auto"
PATIENT = "patient_id"
Pooling = Literal["mean", "max", "attention"]
SAYS = {
    "mean": "the mean of the images' probabilities",
    "max": "the largest probability of each class over the images",
    "attention": "a learned weight for each image (gated attention over frozen features)",
}


@dataclass(frozen=True)
class Units:
    """The units of some rows of a predictions frame, in the order of split and name."""

    table: pd.DataFrame
    """One row a unit: ``unit``, ``patient_id``, ``split``, ``label``, ``images``."""
    rows: np.ndarray
    """int64 [n]: the rows of the frame that belong to a unit."""
    members: np.ndarray
    """int64 [n]: the number of each row's unit."""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.table)

    def flags(self, classes: Sequence[str]) -> np.ndarray:
        """float32 [U, C]: 1 where the unit has the class, else 0; nan where that is not known."""
        flags = np.zeros((len(self), len(classes)), dtype=np.float32)
        for unit, label in enumerate(self.table["label"]):
            pieces = set(str(label).split(";"))
            for number, name in enumerate(classes):
                if name in pieces:
                    flags[unit, number] = 1
                elif UNSURE + name in pieces - set(classes):
                    flags[unit, number] = np.nan
        return flags


def unit_column(frame: pd.DataFrame, asked: str) -> str | None:
    """The column that names the units: as asked, else the patients where some image names one; None: there are none.

    Raises:
        UserError: the column asked for is not there, or names nothing.
    """
    if asked == "none":
        return None
    if asked == AUTO:
        return PATIENT if PATIENT in frame and bool(names_patient(frame).any()) else None
    check_unit(asked, frame)
    return asked


def check_unit(asked: str, table: pd.DataFrame) -> None:
    """Raise ``UserError`` unless a table has the column asked for, with something in it."""
    if asked in (AUTO, "none"):
        return
    if asked not in table:
        mend = f"choose auto, none or one of {', '.join(map(str, table.columns))}"
        raise UserError(f"the manifest has no column '{asked}'", where="dataset.unit", mend=mend)
    if not (table[asked].astype(str) != "").any():
        raise UserError(f"the column '{asked}' is empty", where="dataset.unit", mend="choose another")


def gather(frame: pd.DataFrame, column: str, *, multilabel: bool) -> Units:
    """The units that a column names among the labelled rows of a predictions frame; each split has its own."""
    named = names_patient(frame) if column == PATIENT else frame[column].astype(str) != ""
    usable = (named & (frame["label"] != "")).to_numpy()
    groups = frame[usable].assign(_row=np.flatnonzero(usable)).groupby(["split", column], sort=True)
    lines, rows, members, mixed = [], [], [], 0
    for (split, name), images in groups:
        labels = list(dict.fromkeys(images["label"]))
        if multilabel:
            pieces = dict.fromkeys(piece for text in labels for piece in text.split(";") if piece)
            label = ";".join(one for one in pieces if not (one[:1] == UNSURE and one[1:] in pieces)) or ";"
        elif len(labels) > 1:
            mixed += 1
            continue
        else:
            label = labels[0]
        patients = list(dict.fromkeys(images["patient_id"]))
        lines.append((str(name), patients[0] if len(patients) == 1 else "", str(split), label, len(images)))
        rows += images["_row"].tolist()
        members += [len(lines) - 1] * len(images)
    notes = []
    if mixed:
        notes.append(f"{mixed} with images of different labels are left out: they have no one label")
    if nameless := int((~named).sum()):
        notes.append(f"left out, naming no {'patient' if column == PATIENT else column}: {count(nameless, 'image')}")
    table = pd.DataFrame(lines, columns=["unit", "patient_id", "split", "label", "images"])
    return Units(table, np.array(rows, dtype=np.int64), np.array(members, dtype=np.int64), notes)


def pool(probabilities: np.ndarray, members: np.ndarray, units: int, how: str, *, multilabel: bool) -> np.ndarray:
    """Probabilities [U, C] of units from those of their images [n, C]; ``members`` [n]: the unit of each image.

    ``max``, one label an image: the largest probability of each class, divided by their sum.
    """
    if how == "mean":
        total = np.zeros((units, probabilities.shape[1]))
        np.add.at(total, members, probabilities)
        pooled = total / np.bincount(members, minlength=units)[:, None]
    else:
        pooled = np.zeros((units, probabilities.shape[1]))
        np.maximum.at(pooled, members, probabilities)
    return pooled if multilabel else pooled / pooled.sum(axis=1, keepdims=True)


def decisive(weights: np.ndarray, members: np.ndarray, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each unit the image with the largest weight [n] (its place among the rows), and its share of the unit's
    weight: int64 [U], float [U]."""
    total = np.bincount(members, weights=weights, minlength=units)
    first = np.full(units, -1, dtype=np.int64)
    order = np.lexsort((-weights, members))
    found, places = np.unique(members[order], return_index=True)
    first[found] = order[places]
    return first, weights[first] / np.maximum(total, np.finfo(float).tiny)


def unit_predictions(
    units: Units,
    frame: pd.DataFrame,
    pooled: np.ndarray,
    classes: Sequence[str],
    *,
    multilabel: bool,
    weights: np.ndarray | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """The table of ``predictions_patients.csv``: one row per unit, its answer, and the image that decided it.

    ``thresholds``: those of the images' answers (``name_classes``), which hold for units too. What decides is the image
    with the largest weight [n] of attention; else the one with the largest probability of the answer.
    """
    predicted = name_classes(pooled, classes, multilabel=multilabel, thresholds=thresholds)
    if weights is None:
        first = [answer.split(";")[0] for answer in predicted]
        place = {name: number for number, name in enumerate(classes)}
        answered = np.array([place.get(name, -1) for name in first], dtype=np.int64)[units.members]
        own = frame[[PREFIX + name for name in classes]].to_numpy(dtype=np.float64)[units.rows]
        weights = np.where(answered >= 0, own[np.arange(len(own)), answered], own.max(axis=1))
    at, share = decisive(weights, units.members, len(units))
    cells = frame[identity_columns(frame)].astype(str).to_numpy()[units.rows[at]]  # [U, path, axis, index, frame]
    names = ["#".join(filter(None, row)) for row in cells.tolist()]
    table = units.table.assign(predicted=predicted, answers="plain", decided_by=names, decided_share=np.round(share, 4))
    for number, name in enumerate(classes):
        table[PREFIX + name] = pooled[:, number]
    return table


def as_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a frame that ``summarise`` reads: a unit stands where an image does."""
    return table.assign(image_path=table["unit"], patient_id=table["patient_id"].astype(str))
