"""The metrics that need only counts. Every function takes weighted counts with resamples in front, and gives nan
where a denominator is zero: an undefined number is never 0 or 1.
"""

from __future__ import annotations

import numpy as np


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where whole is zero."""
    part, whole = np.broadcast_arrays(part, whole)
    quotient = np.full(part.shape, np.nan)
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient


def one_vs_rest(n: np.ndarray, truth: np.ndarray, predicted: np.ndarray, hits: np.ndarray) -> dict[str, np.ndarray]:
    """What the four cells of a yes/no question give, for each class: [R, C] each.

    ``n`` [R, 1] images, of which ``truth`` [R, C] have the class, ``predicted`` [R, C] are said to have it,
    ``hits`` [R, C] both. F1 is undefined for a class no image has: 2 TP / (2 TP + FP + FN) would be 0 by the
    model's false alarms alone.
    """
    misses, alarms = truth - hits, predicted - hits
    rejections = n - truth - alarms  # true negatives
    sensitivity, specificity = ratio(hits, truth), ratio(rejections, n - truth)
    right = hits + rejections
    chance = ratio(truth * predicted + (n - truth) * (n - predicted), n * n)
    return {
        "prevalence": ratio(truth, n),
        "accuracy": ratio(right, n),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(hits, predicted),
        "npv": ratio(rejections, n - predicted),
        "f1": np.where(truth > 0, ratio(2 * hits, truth + predicted), np.nan),
        "mcc": ratio(hits * rejections - alarms * misses, np.sqrt(truth * (n - truth) * predicted * (n - predicted))),
        "kappa": ratio(ratio(right, n) - chance, 1 - chance),
    }


def matthews(n: np.ndarray, truth: np.ndarray, predicted: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multi-class Matthews correlation (Gorodkin 2004), [R]: n [R], truth and predicted [R, C] counts, right [R]
    agreements.

    Undefined when all images have one class or all are given one class.
    """
    agreement = right * n - (truth * predicted).sum(axis=1)
    spread_truth = n * n - (truth * truth).sum(axis=1)
    spread_predicted = n * n - (predicted * predicted).sum(axis=1)
    return ratio(agreement, np.sqrt(spread_truth * spread_predicted))


def cohen_kappa(
    n: np.ndarray, truth: np.ndarray, predicted: np.ndarray, disagreement: np.ndarray, power: int
) -> np.ndarray:
    """Cohen's kappa, [R], = 1 - observed / chance disagreement: n [R], truth and predicted [R, C] counts.

    ``disagreement`` [R] is the sum over images of |true rank - predicted rank| ** power; power 0 counts every error
    as one (plain kappa), 2 gives the quadratic-weighted kappa for ordered classes.
    """
    rank = np.arange(truth.shape[1])
    apart = np.abs(rank[:, None] - rank[None, :])
    cost = (apart > 0).astype(float) if power == 0 else apart.astype(float) ** power  # [C, C]
    by_chance = ((truth @ cost) * predicted).sum(axis=1)
    return np.where(by_chance > 0, 1 - ratio(disagreement * n, by_chance), np.nan)
