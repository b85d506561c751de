"""`predictions.csv`: one row an evaluated image, checked before a single number is made of it.

Columns: ``image_path, patient_id, split, label, predicted, prob_<class>...``. Several labels of one image are
joined by ``;``; one of which it is not known whether the image has it begins with ``?`` (``a;?a``: it has it). Beside
them ``answers``, the rule of ``predicted``; ``predicted_plain`` (``msmae.statistics.answers``); ``cluster``
(near-identical images).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.errors import UserError, count
from msmae.files import fill_csv, own_cell
from msmae.records import check_recorded, recorded

REQUIRED = ("image_path", "patient_id", "split", "label", "predicted")
PREFIX = "prob_"
CLUSTER = "near-"
"""How the names of clusters of near-identical images begin (``msmae.data.audit.duplicates.NEAR``)."""
UNSURE = "?"
"""How a piece of a label begins that is not known (``msmae.data.manifest.UNSURE``)."""
SUM_TOLERANCE = 1e-3  # softmax in half precision is this far from one, a wrong column is much further


@dataclass(frozen=True)
class Predictions:
    """The rows of one split as arrays: n images of P patients, C classes."""

    classes: tuple[str, ...]
    truth: np.ndarray
    """bool [n, C]: the image has the class."""
    predicted: np.ndarray
    """bool [n, C]: the model says the image has the class."""
    probabilities: np.ndarray
    """float64 [n, C] in [0, 1]; rows sum to one unless ``multilabel``."""
    patients: np.ndarray
    """int64 [n]: the patient of each image, 0..P-1. An image of an unknown patient counts as a patient of its own, or
    with the others of its cluster."""
    patient_names: np.ndarray
    """str [P], sorted; for an unknown patient the image's cluster or path."""
    multilabel: bool
    known: np.ndarray | None = None
    """bool [n, C]: it is known whether the image has the class; None where all of it is."""

    @property
    def judged(self) -> np.ndarray:
        """``known``, bool [n, C], also where all of it is."""
        return np.ones(self.truth.shape, dtype=bool) if self.known is None else self.known

    def about(self, c: int) -> Predictions:
        """The images of which it is known whether they have the class ``c``; their patients are numbered anew."""
        if self.known is None or self.known[:, c].all():
            return self
        rows = self.known[:, c]
        there, patients = np.unique(self.patients[rows], return_inverse=True)
        return Predictions(
            classes=self.classes,
            truth=self.truth[rows],
            predicted=self.predicted[rows],
            probabilities=self.probabilities[rows],
            patients=patients.astype(np.int64),
            patient_names=self.patient_names[there],
            multilabel=self.multilabel,
            known=self.known[rows],
        )

    @property
    def images(self) -> int:
        return len(self.truth)

    @property
    def patient_count(self) -> int:
        return len(self.patient_names)

    @property
    def clustered(self) -> bool:
        """Whether some patient has more than one image."""
        return self.patient_count < self.images


def class_index(classes: Sequence[str], of: str) -> int:
    """The place of the class ``of``; raises UserError when there is none of that name."""
    if of not in classes:
        raise UserError(f"there is no class {of!r}", mend=f"choose one of {', '.join(classes)}")
    return list(classes).index(of)


def read_predictions(path: str | Path) -> pd.DataFrame:
    """The frame that `write_predictions` wrote: text stays text (a patient "007", a class "NA", a file name that is not
    UTF-8), floats come back bit for bit.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            "there is no such predictions file", where=str(path), mend="finish or repeat the run that writes it"
        )
    check_recorded(path)
    try:
        table = read_text_table(path)
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as problem:
        raise UserError(
            "this is not a predictions file", where=str(path), mend=f"write it again ({problem})"
        ) from problem
    for name in set(table) - set(probability_columns(table)):
        table[name] = [own_cell(cell) for cell in table[name]]
    for name in probability_columns(table):
        text = table[name].to_numpy(dtype=object)
        try:
            table[name] = np.where(text == "", "nan", text).astype(np.float64)  # a gap is found by `to_arrays`
        except ValueError as problem:
            mend = f"write it again with numbers only ({problem})"
            raise UserError(f"the column {name} cannot be read", where=str(path), mend=mend) from problem
    return table


def write_predictions(frame: pd.DataFrame, path: str | Path) -> None:
    """Write the frame, whole or not at all; probabilities as the shortest text that reads back as the same float64."""
    path = Path(path)
    numbers = {name: frame[name].to_numpy(dtype=np.float64) for name in probability_columns(frame)}
    with recorded(path) as unfinished:
        fill_csv(unfinished, frame.assign(**numbers))


def read_text_table(path: Path) -> pd.DataFrame:
    """A CSV as text, dtype object: bytes of a file name that are not UTF-8 come back as the same lone surrogates that
    Python's ``os`` gives for them.
    """
    return pd.read_csv(
        path, dtype=object, keep_default_na=False, encoding="utf-8", encoding_errors="surrogateescape", engine="c"
    )


def probability_columns(frame: pd.DataFrame) -> list[str]:
    """The ``prob_<class>`` columns in the frame's order."""
    return [name for name in frame.columns if str(name).startswith(PREFIX)]


def classes_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """The classes a frame has probabilities for, in the frame's order."""
    return tuple(name[len(PREFIX) :] for name in probability_columns(frame))


def identity_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that together name an image."""
    return ["image_path", *(name for name in ("axis", "index", "frame") if name in frame.columns)]


def image_names(frame: pd.DataFrame) -> pd.Series:
    """What a person calls each image: its path, and of a volume or a film the plane: ``v.nii (axis 2, index 9)``."""
    planes = identity_columns(frame)[1:]
    if not planes:
        return frame["image_path"]
    cells = frame[["image_path", *planes]].to_numpy(dtype=object)
    told = [", ".join(f"{name} {cell}" for name, cell in zip(planes, row[1:], strict=True) if cell) for row in cells]
    named = [f"{row[0]} ({plane})" if plane else row[0] for row, plane in zip(cells, told, strict=True)]
    return pd.Series(named, index=frame.index, dtype=object)


def names_patient(rows: pd.DataFrame) -> pd.Series:
    """Whether each row names a patient: a cluster of near-identical images in its place is none."""
    return (rows["patient_id"] != "") & ~rows["patient_id"].str.startswith(CLUSTER)


def cluster_count(rows: pd.DataFrame) -> int:
    """How many clusters of near-identical images are among the rows that name no patient."""
    others = rows[~names_patient(rows)]
    named = [others[name] for name in ("patient_id", "cluster") if name in others]
    return len({name for column in named for name in column if name.startswith(CLUSTER)})


def is_multilabel(frame: pd.DataFrame) -> bool:
    """Whether any image has, or is given, more than one label."""
    return bool(frame["label"].str.contains(";").any() or frame["predicted"].str.contains(";").any())


def mistakes(label: str, predicted: str, *, multilabel: bool) -> tuple[frozenset[str], frozenset[str]]:
    """Classes that the answer misses, and those that it adds; both empty: it is right, as far as the label is known."""
    if not multilabel:
        return (frozenset(), frozenset()) if label == predicted else (frozenset([label]), frozenset([predicted]))
    pieces, said = (frozenset(one.strip() for one in text.split(";") if one.strip()) for text in (label, predicted))
    true = frozenset(piece for piece in pieces if not piece.startswith(UNSURE))
    return true - said, frozenset(name for name in said - true if UNSURE + name not in pieces)


def check_columns(frame: pd.DataFrame, classes: Sequence[str]) -> None:
    """Refuse a frame that lacks a column or a value, or names one image twice in a split.

    Slices and frames of a volume may share ``image_path`` when the columns ``axis``, ``index`` or ``frame`` tell
    them apart.
    """
    needed = [*REQUIRED, *(PREFIX + name for name in classes)]
    absent = [name for name in needed if name not in frame.columns]
    if absent:
        raise UserError(
            f"the predictions lack the column{'s' * (len(absent) > 1)} {', '.join(absent)}",
            where=f"columns: {', '.join(map(str, frame.columns))}",
            mend="predict again with this model, or give the classes the predictions were made for",
        )
    for name in REQUIRED:
        if frame[name].isna().any() or pd.api.types.infer_dtype(frame[name]) not in ("string", "empty"):
            raise UserError(
                f"the column {name} holds something other than text",
                where=f"the kind of column is {frame[name].dtype}",
                mend='read the file with read_predictions; an unknown patient or label is ""',
            )
    rows = frame[[*identity_columns(frame), "split"]].itertuples(index=False, name=None)
    twice = pd.Series(list(rows), index=frame.index, dtype=object).duplicated()  # a file name need not be UTF-8
    if twice.any():
        raise UserError(
            f"{count(int(twice.sum()), 'row')} for an image that the predictions have already",
            where=str(frame.loc[twice, "image_path"].iloc[0]),
            mend="keep one row per image: a repeated image counts twice in every number",
        )


def to_arrays(frame: pd.DataFrame, *, classes: Sequence[str], multilabel: bool | None = None) -> Predictions:
    """Check the rows of one split and turn them into arrays.

    Raises UserError for a probability that is missing, not finite, outside [0, 1] or (single-label) in a row that
    does not sum to one within 1e-3, and for a label or a prediction that is not among ``classes``.
    """
    multilabel = is_multilabel(frame) if multilabel is None else multilabel
    probabilities = frame[[PREFIX + name for name in classes]].to_numpy(dtype=np.float64)  # [n, C]
    _check_probabilities(probabilities, frame, multilabel=multilabel)
    patients, patient_names = _number_patients(frame)
    truth = _indicators(frame, "label", classes, multilabel=multilabel)
    return Predictions(
        classes=tuple(classes),
        truth=truth,
        predicted=_indicators(frame, "predicted", classes, multilabel=multilabel),
        probabilities=probabilities,
        patients=patients,
        patient_names=patient_names,
        multilabel=multilabel,
        known=_known(frame, classes, truth) if multilabel else None,
    )


def _known(frame: pd.DataFrame, classes: Sequence[str], truth: np.ndarray) -> np.ndarray | None:
    """bool [n, C]: False for the pieces of a label that begin with ``?``, unless the image has the class too
    (``truth`` [n, C]); None where there are none."""
    unsure = np.zeros((len(frame), len(classes)), dtype=bool)
    place = {UNSURE + name: number for number, name in enumerate(classes)}
    for row, text in enumerate(frame["label"].to_numpy(dtype=object)):
        for piece in text.split(";") if UNSURE in text else ():
            if piece.strip() in place:
                unsure[row, place[piece.strip()]] = True
    unsure &= ~truth
    return ~unsure if unsure.any() else None


def _check_probabilities(probabilities: np.ndarray, frame: pd.DataFrame, *, multilabel: bool) -> None:
    def refuse(bad: Any, what: str, mend: str) -> None:
        if bad.any():
            where = f"{frame['image_path'].iloc[int(np.argmax(bad))]}, and {int(bad.sum()) - 1} more rows"
            raise UserError(what, where=where, mend=mend)

    refuse(
        ~np.isfinite(probabilities).all(axis=1),
        "a predicted probability is not a finite number",
        "the model diverged or the file was damaged: predict again from a checkpoint from before the loss became nan",
    )
    refuse(
        ((probabilities < 0) | (probabilities > 1)).any(axis=1),
        "a predicted probability is outside 0..1",
        "write probabilities, not logits",
    )
    if not multilabel:
        refuse(
            np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE,
            "the probabilities of an image do not sum to one",
            "apply softmax over all classes, or say that the labels are multi-label",
        )


def _indicators(frame: pd.DataFrame, column: str, classes: Sequence[str], *, multilabel: bool) -> np.ndarray:
    """bool [n, C] of a column of class names."""
    place = {name: number for number, name in enumerate(classes)}
    flags = np.zeros((len(frame), len(classes)), dtype=bool)
    for row, text in enumerate(frame[column].to_numpy(dtype=object)):
        names = [piece.strip() for piece in text.split(";") if piece.strip()] if multilabel else [text]
        for name in names:
            if multilabel and column == "label" and name not in place and name.startswith(UNSURE):
                continue  # not known: no label
            if name not in place:
                raise UserError(
                    f"the {column} {name!r} is not a class of this model",
                    where=str(frame["image_path"].iloc[row]),
                    mend=f"map it to one of {', '.join(classes)}",
                )
            flags[row, place[name]] = True
    return flags


def _number_patients(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The number of each image's patient, int64 [n], and the patients' names [P], in an order that the rows' order
    does not change. Where a patient is not known, images of one ``cluster`` (near-identical ones) stay together.
    """
    images = ["#".join(map(str, row)) for row in frame[identity_columns(frame)].itertuples(index=False)]
    clusters = frame["cluster"] if "cluster" in frame else [""] * len(frame)
    known = zip(frame["patient_id"], clusters, images, strict=True)
    names = [patient or cluster or image for patient, cluster, image in known]
    numbers, unique = pd.factorize(np.array(names, dtype=object), sort=True)
    return numbers.astype(np.int64), np.asarray(unique, dtype=object)
