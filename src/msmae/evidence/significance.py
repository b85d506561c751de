"""Two tests that need no resampling: McNemar's for two runs' errors, and Holm's correction of a family of p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm


@dataclass(frozen=True)
class McNemar:
    """Images that only one of two runs got right."""

    only_first: int
    only_second: int
    p_value: float | None
    """Two-sided, of equal error rates; None when the runs are right on the same images."""
    method: str
    """"exact", or "clustered"."""


def mcnemar(first_right: np.ndarray, second_right: np.ndarray, patients: np.ndarray | None = None) -> McNemar:
    """Compare two runs on the same images: bool [n] each.

    Exact (binomial) when every patient has one image. With clusters (``patients`` int [n]) the images are not
    independent: then the surplus of each patient is one observation, z = sum(surplus) / sqrt(sum(surplus^2)), which
    for single images is McNemar's own z.
    """
    surplus = first_right.astype(int) - second_right.astype(int)
    only_first, only_second = int((surplus > 0).sum()), int((surplus < 0).sum())
    names, numbers = np.unique(np.arange(len(surplus)) if patients is None else patients, return_inverse=True)
    clustered = len(names) < len(surplus)
    method = "clustered" if clustered else "exact"
    p_value: float | None = None
    if clustered:
        of_patient = np.bincount(numbers, weights=surplus)
        if of_patient.any():
            p_value = float(2 * norm.sf(abs(of_patient.sum()) / np.sqrt(np.sum(of_patient**2))))
    elif only_first + only_second:
        p_value = float(binomtest(only_first, only_first + only_second).pvalue)
    return McNemar(only_first=only_first, only_second=only_second, p_value=p_value, method=method)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down correction: each p-value as if it were the only one asked. None (no test) stays None,
    uncounted.
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for done, (p, place) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, p * (len(known) - done)))
        corrected[place] = largest
    return corrected
