"""The interval of the expected calibration error, which needs care: in a finite sample the ECE is biased upwards,
and in a resample of it twice over, so percentiles of the draws can lie entirely above the true value.

The ECE is the L1 length of the vector of the bins' gaps. By the triangle inequality the true ECE is at least the
observed ECE minus the length of the sampling error of that vector, which the bootstrap does estimate without bias.
That gives the low end (0 when the model may be perfectly calibrated); the high end is the percentile of the draws.
Coverage is at least nominal.
"""

from __future__ import annotations

import numpy as np

from msmae.evidence.bootstrap import draw_patients
from msmae.evidence.intervals import LEVEL, Interval, no_interval


def ece_intervals(
    gaps: np.ndarray, images: np.ndarray, *, resamples: int, seed: int, level: float = LEVEL
) -> list[Interval]:
    """One interval for each of k calibration errors.

    ``gaps`` [P, k, bins]: probability minus outcome summed over each patient's images in each bin; ``images`` [P]
    counts them.
    """
    patients, k, bins = gaps.shape
    observed = gaps.sum(axis=0) / images.sum()  # [k, bins]
    lengths, errors = [], []
    for weights in draw_patients(patients, width=k * bins, resamples=resamples, seed=seed):
        drawn = (weights @ gaps.reshape(patients, -1)).reshape(len(weights), k, bins)
        drawn /= (weights @ images)[:, None, None]
        lengths.append(np.abs(drawn).sum(axis=2))  # [r, k]
        errors.append(np.abs(drawn - observed).sum(axis=2))
    length, error = np.concatenate(lengths), np.concatenate(errors)
    value = np.abs(observed).sum(axis=1)  # [k]
    low = np.maximum(0, value - np.quantile(error, (1 + level) / 2, axis=0))
    high = np.maximum(value, np.quantile(length, (1 + level) / 2, axis=0))
    return [
        Interval(low=float(low[i]), high=float(high[i]), method="triangle")
        if length[:, i].max() > length[:, i].min()
        else no_interval("every resample gives the same number: the bootstrap cannot tell how uncertain it is")
        for i in range(k)
    ]
