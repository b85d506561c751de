"""The answers that a chosen coverage needs: conformal sets, their level from a run's validation images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmae.errors import UserError
from msmae.statistics.conformal import conformal_level, conformal_level_several, conformal_sets
from msmae.statistics.predictions import read_predictions, to_arrays


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
    """Fitted on the validation rows of RUN/predictions.csv, counted on its test rows.

    Raises:
        UserError: no such coverage, or the run has no labelled validation images.
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
    val = to_arrays(rows, classes=classes, multilabel=multilabel)
    fit = conformal_level_several if multilabel else conformal_level
    level = fit(val.probabilities, val.truth if multilabel else val.truth.argmax(axis=1), coverage=coverage)
    tested = frame[frame["split"].isin(["test", "internal"]) & (frame["label"] != "")]
    on_test = None
    if not tested.empty:
        test = to_arrays(tested, classes=classes, multilabel=multilabel)
        inside = members(test.probabilities, level, multilabel)
        on_test = float((inside | ~test.truth).all(axis=1).mean())
    return Sets(coverage, level, len(rows), on_test)
