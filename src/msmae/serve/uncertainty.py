"""What a run's validation images say about a new answer: the conformal set, and a threshold for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmae.errors import UserError
from msmae.statistics.conformal import conformal_level, conformal_sets
from msmae.statistics.predictions import read_predictions, to_arrays
from msmae.statistics.thresholds import sweep, youden

COVERAGE = 0.9


@dataclass(frozen=True)
class Uncertainty:
    """Fitted on the calibrated validation probabilities of a run; None: there was nothing to fit it on."""

    image_level: float | None = None
    """Least probability with which a class belongs to an image's set."""
    patient_level: float | None = None
    """The same of mean probabilities over a patient's images."""
    thresholds: tuple[float, ...] | None = None
    """Least probability with which each class is called present (Youden's point)."""
    images: int = 0
    patients: int = 0

    def doubts(self, probabilities: np.ndarray) -> bool:
        """Whether no class of an image's answer [C] reaches the level of the sets."""
        return self.image_level is not None and bool(probabilities.max() < self.image_level)

    def set_of(self, probabilities: np.ndarray, classes: list[str], *, patient: bool = False) -> list[str] | None:
        """The classes of the conformal set of one answer [C]; None where there is none."""
        level = self.patient_level if patient else self.image_level
        if level is None:
            return None
        inside = conformal_sets(probabilities[None], level)[0]
        return [name for name, within in zip(classes, inside, strict=True) if within]


def read_uncertainty(run: Path, classes: list[str], *, multilabel: bool) -> Uncertainty:
    """From RUN/predictions.csv; empty where the run has none, or no labelled validation images.

    Raises:
        UserError: the file cannot be read, or is of other classes.
    """
    path = run / "predictions.csv"
    if not path.is_file():
        return Uncertainty()
    frame = read_predictions(path)
    rows = frame[(frame["split"] == "val") & (frame["label"] != "")]
    if rows.empty:
        return Uncertainty()
    found = to_arrays(rows, classes=classes, multilabel=multilabel)
    truth = np.asarray(found.truth, dtype=bool)  # [n, C]
    try:
        asked = [(found.about(c), c) for c in range(len(classes))]
        thresholds = tuple(youden(sweep(one.probabilities[:, c], one.truth[:, c])) for one, c in asked)
    except UserError:  # a class that no validation image has, or all of them
        thresholds = None
    patients = rows["patient_id"].to_numpy()
    named = np.unique(patients[patients != ""])
    if multilabel:
        return Uncertainty(None, None, thresholds, len(rows), len(named))
    labels = truth.argmax(axis=1)
    patient_level = None
    groups = [patients == name for name in named]
    if groups and all(len(np.unique(labels[group])) == 1 for group in groups):
        means = np.stack([found.probabilities[group].mean(axis=0) for group in groups])
        patient_level = conformal_level(means, np.array([labels[group][0] for group in groups]), coverage=COVERAGE)
    image_level = conformal_level(found.probabilities, labels, coverage=COVERAGE)
    return Uncertainty(image_level, patient_level, thresholds, len(rows), len(named))
