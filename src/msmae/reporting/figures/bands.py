"""ROC and precision-recall curves of one class against the rest, with 95 % bands over patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msmae.statistics.intervals import DEFINED, draw_patients, wilson
from msmae.statistics.predictions import Predictions, class_index

GRID = np.linspace(0, 1, 101)
WORK = 2**28  # image-resample pairs; larger test sets get fewer resamples, at least 200


@dataclass(frozen=True)
class Curve:
    """A curve through the unit square, and a pointwise band around it."""

    x: np.ndarray
    y: np.ndarray
    grid: np.ndarray
    """float64 [101]: where the band is known."""
    low: np.ndarray
    high: np.ndarray
    """float64 [101]: nan throughout where there is no band (one patient; too few resamples with both outcomes)."""
    resamples: int


@dataclass(frozen=True)
class Question:
    """Class or not, for each image: sorted by falling score."""

    truth: np.ndarray
    """bool [n]"""
    patients: np.ndarray
    """int64 [n]: 0..P-1"""
    last_of_tie: np.ndarray
    """int64 [k]: the last place of each distinct score, where a threshold may lie."""
    patient_count: int

    def having(self) -> tuple[int, int]:
        """Images and patients with the class."""
        return int(self.truth.sum()), len(np.unique(self.patients[self.truth]))


Points = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
OnGrid = Callable[[np.ndarray, np.ndarray], np.ndarray]
Judged = Callable[[np.ndarray, int], np.ndarray]


def roc(predictions: Predictions, *, of: str, resamples: int = 1000, seed: int = 0) -> Curve | None:
    """Sensitivity against 1 - specificity as the threshold falls; None unless both outcomes occur.

    The band holds the sensitivity at each false alarm rate (vertical averaging, Fawcett 2006).
    """
    question = _ask(predictions, of)
    if question is None:
        return None
    return _curve(question, _roc_points, roc_on_grid, _of_the_class, resamples=resamples, seed=seed)


def precision_recall(predictions: Predictions, *, of: str, resamples: int = 1000, seed: int = 0) -> Curve | None:
    """Precision (PPV) against recall (sensitivity) as the threshold falls; None unless both outcomes occur.

    The band holds, at each recall, the precision at the highest threshold that reaches it.
    """
    question = _ask(predictions, of)
    if question is None:
        return None
    return _curve(question, _pr_points, _pr_on_grid, _called, resamples=resamples, seed=seed)


def _ask(predictions: Predictions, of: str) -> Question | None:
    c = class_index(predictions.classes, of)
    predictions = predictions.about(c)
    scores, truth = predictions.probabilities[:, c], predictions.truth[:, c]
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    return Question(
        truth=truth[order],
        patients=predictions.patients[order],
        last_of_tie=np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)),
        patient_count=predictions.patient_count,
    )


def _curve(question: Question, points: Points, on_grid: OnGrid, judged: Judged, *, resamples: int, seed: int) -> Curve:
    found = np.cumsum(question.truth)[question.last_of_tie]
    alarms = np.cumsum(~question.truth)[question.last_of_tie]
    x, y = points(found, alarms)
    resamples = int(np.clip(WORK // len(question.truth), 200, resamples)) if question.patient_count > 1 else 0
    drawn = _draws(question, on_grid, resamples=resamples, seed=seed)
    if len(drawn) < max(2, DEFINED * resamples):
        low = high = np.full(len(GRID), np.nan)
    else:
        share = on_grid(found, alarms)
        images, patients = question.having()
        low, high = _band(share, drawn.var(axis=0), judged(share, images), judged(share, patients))
    return Curve(x=x, y=y, grid=GRID, low=low, high=high, resamples=resamples)


def _draws(question: Question, on_grid: OnGrid, *, resamples: int, seed: int) -> np.ndarray:
    """The curve on the grid in each resample of patients that has both outcomes, [<= resamples, 101]."""
    rows = []
    for weights in draw_patients(question.patient_count, width=len(question.truth), resamples=resamples, seed=seed):
        each = np.take(weights, question.patients, axis=1)  # [r, n]
        found = np.cumsum(each * question.truth, axis=1)[:, question.last_of_tie]  # [r, k]
        alarms = np.cumsum(each * ~question.truth, axis=1)[:, question.last_of_tie]
        both = (found[:, -1] > 0) & (alarms[:, -1] > 0)
        rows += [on_grid(f, a) for f, a in zip(found[both], alarms[both], strict=True)]
    return np.array(rows).reshape(-1, len(GRID))


def _band(
    share: np.ndarray, variance: np.ndarray, images: np.ndarray, patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of shares [101] with these bootstrap variances: Wilson, for as many independent images as would
    be equally uncertain.

    Percentiles would not do: where all draws give 1 they say that nothing is uncertain. ``images`` and ``patients``
    [101] are those in the denominator of the share: the effective number is at most the images, and where the
    variance is 0 it is the patients.
    """
    effective = patients.astype(np.float64)
    np.divide(share * (1 - share), variance, out=effective, where=(variance > 0) & (share > 0) & (share < 1))
    effective = effective.clip(1, images.clip(min=1))
    bands = [wilson(p * n, n) for p, n in zip(share.tolist(), effective.tolist(), strict=True)]
    return np.array([band.low for band in bands]), np.array([band.high for band in bands])


def _of_the_class(share: np.ndarray, having: int) -> np.ndarray:
    """Sensitivity is a share of those with the class."""
    return np.full(len(share), having)


def _called(share: np.ndarray, having: int) -> np.ndarray:
    """Precision is a share of those called: at recall r, r x those with the class are found."""
    return np.asarray(np.ceil(GRID * having / share.clip(min=1e-9)))


def _roc_points(found: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.append(0, alarms) / alarms[-1], np.append(0, found) / found[-1]


def roc_on_grid(found: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    x, y = _roc_points(found, alarms)
    last = np.append(np.diff(x) > 0, True)  # the top of every vertical rise
    return np.asarray(np.interp(GRID, x[last], y[last]))


def _pr_points(found: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    some = found + alarms > 0
    recall, precision = found[some] / found[-1], found[some] / (found + alarms)[some]
    end = int(np.argmax(recall == 1)) + 1  # lower thresholds only lose precision
    recall, precision = recall[:end], precision[:end]
    return np.append(0, recall), np.append(precision[0], precision)


def _pr_on_grid(found: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    recall, precision = _pr_points(found, alarms)
    return np.asarray(precision[np.searchsorted(recall, GRID, side="left")])
