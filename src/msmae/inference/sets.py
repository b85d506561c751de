"""The answers that a chosen coverage needs: conformal sets, their level from a run's validation images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmae.errors import UserError
from msmae.statistics.conformal import conformal_level, conformal_level_several, conformal_sets
from msmae.statistics.predictions import Predictions, read_predictions, to_arrays


@dataclass(frozen=True)
class Sets:
    """A level of calibrated probability; what it was fitted on; and how often the run's test images were covered."""

    coverage: float
    level: float
    images: int
    on_test: float | None
    """Share of the run's test images whose set held the true class (all of them, of several); None: there are none."""

    def of(self, probabilities: np.ndarray, classes: list[str], *, multilabel: bool) -> list[str]:
        """The classes of each answer [n, C] in the set, joined by ``;``, the likeliest first."""
        found = []
        for row, inside in zip(probabilities, members(probabilities, self.level, multilabel), strict=True):
            order = np.argsort(-row, kind="stable")
            found.append(";".join(classes[c] for c in order if inside[c]))
        return found


def members(probabilities: np.ndarray, level: float, multilabel: bool) -> np.ndarray:
    """bool [n, C]: which classes are in the set; of one label an image always the likeliest."""
    return probabilities >= level - 1e-12 if multilabel else conformal_sets(probabilities, level)


def sets_of_run(run: Path, classes: list[str], *, multilabel: bool, coverage: float) -> Sets:
    """Fitted on the validation rows of RUN/predictions.csv, counted on its test rows; of several labels per image, on
    the rows of which all labels are known: a class that an image may have is neither held by its set nor missed.

    Raises:
        UserError: no such coverage, or the run has no such validation images.
    """
    if not 0 < coverage < 1:
        raise UserError(f"a coverage of {coverage:g}", where="--coverage", mend="give a share between 0 and 1, as 0.9")
    path = run / "predictions.csv"
    frame = read_predictions(path) if path.is_file() else None
    rows = None if frame is None else frame[(frame["split"] == "val") & (frame["label"] != "")]
    if frame is None or rows is None or rows.empty:
        raise UserError(
            "the run has no predictions of labelled validation images, from which sets come",
            where=str(path),
            mend="`msmae evaluate RUN`, or leave --coverage out",
        )
    probabilities, truth = all_known(to_arrays(rows, classes=classes, multilabel=multilabel))
    if not len(truth):
        raise UserError(
            "of no validation image of the run all labels are known, and sets come from those",
            where=str(path),
            mend="leave --coverage out",
        )
    fit = conformal_level_several if multilabel else conformal_level
    level = fit(probabilities, truth if multilabel else truth.argmax(axis=1), coverage=coverage)
    images, on_test = len(truth), None
    tested = frame[frame["split"].isin(["test", "internal"]) & (frame["label"] != "")]
    if not tested.empty:
        probabilities, truth = all_known(to_arrays(tested, classes=classes, multilabel=multilabel))
        inside = members(probabilities, level, multilabel)
        on_test = float((inside | ~truth).all(axis=1).mean()) if len(truth) else None
    return Sets(coverage, level, images, on_test)


def all_known(found: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and truth, [m, C] each, of the images of which it is known of every class whether they have it."""
    rows = found.judged.all(axis=1)
    return found.probabilities[rows], found.truth[rows]
