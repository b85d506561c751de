"""ROC and precision-recall curves of one class against the rest, with 95 % bands over patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msmae.evidence.bootstrap import draw_patients
from msmae.evidence.intervals import DEFINED, LEVEL
from msmae.evidence.predictions import Predictions, class_index

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


def roc(predictions: Predictions, *, of: str, resamples: int = 1000, seed: int = 0) -> Curve | None:
    """Sensitivity against 1 - specificity as the threshold falls; None unless both outcomes occur.

    The band holds sensitivity at each false alarm rate (vertical averaging, Fawcett 2006): 95 % of the resamples of
    patients lie in it, point by point.
    """
    return _curve(predictions, of, _roc_points, _roc_on_grid, resamples=resamples, seed=seed)


def precision_recall(predictions: Predictions, *, of: str, resamples: int = 1000, seed: int = 0) -> Curve | None:
    """Precision (PPV) against recall (sensitivity) as the threshold falls; None unless both outcomes occur.

    The band holds, at each recall, the precision at the highest threshold that reaches it.
    """
    return _curve(predictions, of, _pr_points, _pr_on_grid, resamples=resamples, seed=seed)


Points = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
OnGrid = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _curve(
    predictions: Predictions, of: str, points: Points, on_grid: OnGrid, *, resamples: int, seed: int
) -> Curve | None:
    c = class_index(predictions.classes, of)
    scores, truth, patients = predictions.probabilities[:, c], predictions.truth[:, c], predictions.patients
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    truth, patients = truth[order], patients[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found, alarms = np.cumsum(truth)[last_of_tie], np.cumsum(~truth)[last_of_tie]
    x, y = points(found, alarms)
    resamples = int(np.clip(WORK // len(truth), 200, resamples)) if predictions.patient_count > 1 else 0
    drawn = []
    for weights in draw_patients(predictions.patient_count, width=len(truth), resamples=resamples, seed=seed):
        each = np.take(weights, patients, axis=1)  # [r, n]
        found = np.cumsum(each * truth, axis=1)[:, last_of_tie]  # [r, k]
        alarms = np.cumsum(each * ~truth, axis=1)[:, last_of_tie]
        both = (found[:, -1] > 0) & (alarms[:, -1] > 0)
        drawn += [on_grid(f, a) for f, a in zip(found[both], alarms[both], strict=True)]
    if len(drawn) < max(2, DEFINED * resamples):
        low = high = np.full(len(GRID), np.nan)
    else:
        low, high = np.quantile(np.stack(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Curve(x=x, y=y, grid=GRID, low=low, high=high, resamples=resamples)


def _roc_points(found: np.ndarray, alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.append(0, alarms) / alarms[-1], np.append(0, found) / found[-1]


def _roc_on_grid(found: np.ndarray, alarms: np.ndarray) -> np.ndarray:
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
