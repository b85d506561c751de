"""AUROC and average precision under many weightings at once: sort the scores once, then only add up.

With weights w, AUROC = sum over positives i of w_i (negatives below i + half of those tied with i) / (all positives
x all negatives), and average precision = sum over positives i of w_i x precision at the score of i / all positives.
Both need only the running sums of the weights in the order of the scores, so a bootstrap of any size sorts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """One yes/no question, sorted by score: p positives, q negatives, each belonging to a unit (a patient)."""

    positive_units: np.ndarray
    """int64 [p]: the unit of each positive, in ascending order of score."""
    negative_units: np.ndarray
    """int64 [q]: the unit of each negative, in ascending order of score."""
    negatives_below: np.ndarray
    """int64 [p]: how many negatives score strictly less than each positive."""
    negatives_up_to: np.ndarray
    """int64 [p]: how many negatives score no more than each positive."""
    positives_below: np.ndarray
    """int64 [p]: how many positives score strictly less than each positive."""


def rank(scores: np.ndarray, truth: np.ndarray, units: np.ndarray) -> Ranking:
    """Sort one question: scores [m] (larger = more likely), truth bool [m], units int [m]."""
    up, down = scores[truth], scores[~truth]
    up_order, down_order = np.argsort(up, kind="stable"), np.argsort(down, kind="stable")
    up, down = up[up_order], down[down_order]
    return Ranking(
        positive_units=units[truth][up_order],
        negative_units=units[~truth][down_order],
        negatives_below=np.searchsorted(down, up, side="left"),
        negatives_up_to=np.searchsorted(down, up, side="right"),
        positives_below=np.searchsorted(up, up, side="left"),
    )


def auroc_and_auprc(ranking: Ranking, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision, [R] each, for unit weights [R, P] (non-negative).

    Ties count half in the AUROC and share one threshold in the average precision, as in scikit-learn. Both are nan
    where the positives or the negatives weigh nothing.
    """
    positive = np.take(weights, ranking.positive_units, axis=1)  # [R, p]
    negatives = _running_sum(np.take(weights, ranking.negative_units, axis=1))  # [R, q + 1]
    positives = _running_sum(positive)  # [R, p + 1]
    all_positive, all_negative = positives[:, -1:], negatives[:, -1:]  # [R, 1]

    below = np.take(negatives, ranking.negatives_below, axis=1)  # [R, p]
    wins = below + np.take(negatives, ranking.negatives_up_to, axis=1)  # twice, so that ties count half
    true_alarms = all_positive - np.take(positives, ranking.positives_below, axis=1)  # [R, p]
    alarms = true_alarms + (all_negative - below)  # [R, p]
    precision = np.divide(true_alarms, alarms, out=np.zeros_like(alarms), where=alarms > 0)

    pairs, defined = all_positive[:, 0] * all_negative[:, 0], (all_positive[:, 0] > 0) & (all_negative[:, 0] > 0)
    auroc, auprc = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    np.divide(np.einsum("rp,rp->r", positive, wins), 2 * pairs, out=auroc, where=defined)
    np.divide(np.einsum("rp,rp->r", positive, precision), all_positive[:, 0], out=auprc, where=defined)
    return auroc, auprc


def _running_sum(values: np.ndarray) -> np.ndarray:
    """[R, m] -> [R, m + 1]: the sum of the first 0, 1, ..., m."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
