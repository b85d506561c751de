"""Are the probabilities true? The data of a reliability diagram, and the slope and intercept of calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import t as student

from msmae.statistics.intervals import LEVEL, Interval, entry, no_interval, undefined, wilson
from msmae.statistics.metrics import ECE_BINS, TINY
from msmae.statistics.predictions import Predictions, class_index

SAME = 1e-5
"""Log odds that differ by no more are the same answer, rounded otherwise: a model's are of single precision."""


def reliability(predictions: Predictions, *, of: str | None = None, bins: int = ECE_BINS) -> pd.DataFrame:
    """One row a non-empty bin of probability, for drawing.

    ``of`` names a class: its probability against having it; None: the largest probability against being right. Bins
    are of equal width: those of the ECE. Columns: ``from``, ``to``, ``images``,
    ``patients``, ``probability`` (mean), ``observed`` (share), ``low``, ``high`` (95 %, clustered by patient; nan
    where one patient fills the bin).
    """
    predictions = predictions if of is None else predictions.about(class_index(predictions.classes, of))
    scores, truth = _question(predictions, of)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
    rows = []
    for b in np.unique(place):
        inside = place == b
        interval = clustered_share(truth[inside], predictions.patients[inside])
        rows.append(
            {
                "from": edges[b],
                "to": edges[b + 1],
                "images": int(inside.sum()),
                "patients": len(np.unique(predictions.patients[inside])),
                "probability": scores[inside].mean(),
                "observed": truth[inside].mean(),
                "low": np.nan if interval.low is None else interval.low,
                "high": np.nan if interval.high is None else interval.high,
            }
        )
    return pd.DataFrame(rows)


def clustered_share(truth: np.ndarray, patients: np.ndarray) -> Interval:
    """95 % interval of a share of images: Wilson for as many independent images as would be equally uncertain.

    truth bool [n], patients int [n]. The effective number comes from the variance between patients; at a share of 0
    or 1, where there is none, it is the number of patients. Never more than n.
    """
    _, numbers = np.unique(patients, return_inverse=True)
    count, share = int(numbers.max()) + 1, float(truth.mean())
    if count < 2:
        return no_interval("one patient only")
    if share in (0.0, 1.0):
        return wilson(share * count, count)
    surplus = np.bincount(numbers, weights=truth - share)  # [patients]
    variance = count / (count - 1) * np.sum(surplus**2) / len(truth) ** 2
    effective = min(len(truth), share * (1 - share) / variance) if variance > 0 else len(truth)
    return wilson(share * effective, effective)


def calibration_line(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> dict[str, dict[str, Any]]:
    """Calibration slope and intercept (Cox 1958; Van Calster et al. 2019) of a yes/no probability, with 95 %
    intervals.

    logit P(yes) = a + b logit(p). The slope b is 1 when calibrated, below 1 when the model is too sure. The
    intercept is a with b held at 1 (calibration in the large): 0 when calibrated, above 0 when the model says too
    little. Intervals are of Wald type with variances robust to clusters of images of one patient. Returns
    ``{"calibration_slope": entry, "calibration_intercept": entry}``.
    """
    x = logit(np.clip(scores, TINY, 1 - TINY))
    reason = None
    if truth.all() or not truth.any():
        reason = "all images are alike"
    elif len(np.unique(patients)) < 2:
        reason = "one patient only"
    if reason is not None:
        return {"calibration_slope": undefined(reason), "calibration_intercept": undefined(reason)}
    intercept = _logistic(np.ones((len(x), 1)), x, truth, patients)[0]
    yes, no = x[truth], x[~truth]
    if np.ptp(x) <= SAME:
        slope = undefined("all images are given the same probability")
    elif yes.min() >= no.max() or yes.max() <= no.min():
        slope = undefined("the probability separates the images completely")
    else:
        slope = _logistic(np.stack([x, np.ones(len(x))], axis=1), np.zeros(len(x)), truth, patients)[0]
    return {"calibration_slope": slope, "calibration_intercept": intercept}


def _question(predictions: Predictions, of: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n] and outcomes [n] of one class, or of the model's first choice."""
    if of is not None:
        c = class_index(predictions.classes, of)
        return predictions.probabilities[:, c], predictions.truth[:, c]
    first = predictions.probabilities.argmax(axis=1)[:, None]
    return (
        np.take_along_axis(predictions.probabilities, first, axis=1)[:, 0],
        np.take_along_axis(predictions.truth, first, axis=1)[:, 0],
    )


def _logistic(design: np.ndarray, offset: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> list[dict[str, Any]]:
    """Logistic regression with cluster-robust intervals: design [n, k], offset [n] -> one entry a coefficient."""
    beta = _fit_logistic(design, offset, truth)
    if beta is None:
        return [undefined("the logistic fit does not converge")] * design.shape[1]
    p = expit(design @ beta + offset)
    _, numbers = np.unique(patients, return_inverse=True)
    count = int(numbers.max()) + 1
    pull = np.zeros((count, len(beta)))
    np.add.at(pull, numbers, design * (truth - p)[:, None])
    bread = np.linalg.pinv(design.T @ (design * (p * (1 - p))[:, None]))
    variance = np.diag(bread @ (pull.T @ pull) @ bread) * count / (count - 1)
    reach = student.ppf((1 + LEVEL) / 2, count - 1) * np.sqrt(np.maximum(variance, 0))  # below 0 by rounding alone
    intervals = [
        Interval(low=float(b - r), high=float(b + r), method="cluster-robust") for b, r in zip(beta, reach, strict=True)
    ]
    return [entry(float(b), interval) for b, interval in zip(beta, intervals, strict=True)]


def _fit_logistic(design: np.ndarray, offset: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
    """Newton's method, halving a step that does not help; None when it does not arrive."""

    def loss(beta: np.ndarray) -> float:
        z = design @ beta + offset
        return float(np.sum(np.logaddexp(0, z) - truth * z))

    beta = np.zeros(design.shape[1])
    for _ in range(200):
        p = expit(design @ beta + offset)
        step = np.linalg.lstsq(design.T @ (design * (p * (1 - p))[:, None]), design.T @ (truth - p), rcond=None)[0]
        while np.abs(step).max() > 1e-13 and loss(beta + step) > loss(beta) * (1 + 1e-15):
            step /= 2
        beta = beta + step
        if np.abs(step).max() <= 1e-12 * (1 + np.abs(beta).max()):
            return np.asarray(beta)
    return None
