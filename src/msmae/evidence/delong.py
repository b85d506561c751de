"""DeLong's comparison of AUROCs measured on the same images, and Obuchowski's form of it for several images of one
patient.

DeLong, DeLong and Clarke-Pearson 1988; ranks as in Sun and Xu 2014, so n log n; clusters after Obuchowski 1997.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from msmae.errors import UserError
from msmae.evidence.intervals import LEVEL, Interval, no_interval


@dataclass(frozen=True)
class AurocDifference:
    """AUROC of the first scores minus that of the second."""

    first: float
    second: float
    value: float
    interval: Interval
    p_value: float | None
    """Two-sided, of no difference; None where ``interval`` has a reason."""


def placements(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For k scorings [k, n] of the same images: the share of negatives below each positive [k, p], of positives
    above each
    negative [k, q]; ties count half. The mean of either is the AUROC."""
    up, down = scores[:, truth], scores[:, ~truth]
    p, q = up.shape[1], down.shape[1]
    together = rankdata(np.concatenate([up, down], axis=1), axis=1)  # [k, p + q]
    of_positives = (together[:, :p] - rankdata(up, axis=1)) / q
    of_negatives = 1 - (together[:, p:] - rankdata(down, axis=1)) / p
    return of_positives, of_negatives


def delong_covariance(
    scores: np.ndarray, truth: np.ndarray, patients: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs [k] and their covariance [k, k] for scores [k, n], truth bool [n].

    ``patients`` int [n]: the images of one patient may depend on each other; without it, or with one image each,
    this is DeLong's. Raises UserError unless two patients have positives and two have negatives.
    """
    patients = np.arange(len(truth)) if patients is None else np.unique(patients, return_inverse=True)[1]
    with_positives, with_negatives = np.unique(patients[truth]), np.unique(patients[~truth])
    if min(len(with_positives), len(with_negatives)) < 2:
        raise UserError(
            f"{len(with_positives)} patients with the class and {len(with_negatives)} without",
            mend="the variance of an AUROC needs at least two of each",
        )
    of_positives, of_negatives = placements(scores, truth)
    auroc = of_positives.mean(axis=1)
    count = int(patients.max()) + 1
    up = _sums(of_positives - auroc[:, None], patients[truth], count)  # [k, patients]
    down = _sums(of_negatives - auroc[:, None], patients[~truth], count)
    p, q = int(truth.sum()), int((~truth).sum())
    cross = up @ down.T * count / (count - 1) / (p * q)
    return auroc, (
        up @ up.T * len(with_positives) / (len(with_positives) - 1) / p**2
        + down @ down.T * len(with_negatives) / (len(with_negatives) - 1) / q**2
        + cross
        + cross.T
    )


def delong(
    first: np.ndarray, second: np.ndarray, truth: np.ndarray, patients: np.ndarray | None = None
) -> AurocDifference:
    """Compare two scorings [n] of the same images, truth bool [n]; 95 % interval and p-value of the normal
    approximation.
    """
    auroc, covariance = delong_covariance(np.stack([first, second]), truth, patients)
    value = float(auroc[0] - auroc[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance <= 1e-18:  # both rank all pairs alike
        interval, p_value = no_interval("the two rank the images alike: there is no difference to weigh"), None
    else:
        spread = float(np.sqrt(variance))
        reach = float(norm.ppf((1 + LEVEL) / 2)) * spread
        interval = Interval(low=value - reach, high=value + reach, method="delong")
        p_value = float(2 * norm.sf(abs(value) / spread))
    return AurocDifference(
        first=float(auroc[0]), second=float(auroc[1]), value=value, interval=interval, p_value=p_value
    )


def _sums(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """[k, m] -> [k, count]: summed over equal places."""
    return np.stack([np.bincount(places, weights=row, minlength=count) for row in values])
