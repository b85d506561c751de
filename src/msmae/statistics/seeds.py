"""An arm of a comparison is several runs that differ in their seed: two sources of luck, the seeds and the patients.

The interval is mean +- t sqrt(V), V = (variance over draws of patients of the mean over seeds) + (variance between
seeds) / seeds, and the degrees of freedom of t are Satterthwaite's, from patients - 1 and seeds - 1. Resampling
three seeds with replacement instead would underestimate their variance by a third, and take normal quantiles where
two degrees of freedom ask for more than twice as much. The seeds' part of V also holds the interaction of seeds and
patients, which the first part holds too: V errs on the large side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import t as student

from msmae.statistics.intervals import DEFINED, LEVEL, Interval, alike, bca, entry, no_interval, undefined
from msmae.statistics.paired import Resampled, difference, not_comparable

RANGES = {
    "mcc": (-1.0, 1.0),
    "kappa": (-1.0, 1.0),
    "kappa_quadratic": (-1.0, 1.0),
    "brier": (0.0, 2.0),
    "log_loss": (0.0, np.inf),
    "mean_absolute_error": (0.0, np.inf),
}
"""The values a metric can take, where not 0..1."""


def mean_over_seeds(runs: Sequence[Resampled], name: str) -> dict[str, Any]:
    """A metric of an arm, ``{"value", "low", "high", "method", "seed_sd", "by_seed"}``: runs of one
    `resample_together`, one a seed.

    ``seed_sd`` is the standard deviation between seeds; None for one seed, whose interval speaks of patients only.
    ``by_seed`` holds the seeds' own values, None where undefined.
    """
    values = np.array([run.value.overall[name][0] for run in runs])  # [S]
    if np.isnan(values).any():
        lacking = int(np.isnan(values).sum())
        return undefined(f"undefined for {lacking} of {len(runs)} seeds") | _between(values)
    draws = np.stack([run.draws.overall[name] for run in runs])  # [S, R]
    if len(runs) == 1:
        interval = bca(values[0], draws[0], runs[0].left_out.overall[name], units=runs[0].patients)
        return entry(values[0], interval) | _between(values)
    interval, _ = t_interval(values, draws, patients=runs[0].patients)
    return entry(values.mean(), _within(interval, *RANGES.get(name, (0.0, 1.0)))) | _between(values)


def difference_over_seeds(first: Sequence[Resampled], second: Sequence[Resampled], name: str) -> dict[str, Any]:
    """A metric of one arm minus that of another, as `mean_over_seeds`, with ``"p_value"``; runs at equal places are
    paired.
    """
    pairs = list(zip(first, second, strict=True))
    if len(pairs) == 1:
        found = difference(*pairs[0], name)
        return found | _between(np.array([np.nan if found["value"] is None else found["value"]]))
    values = np.array([a.value.overall[name][0] - b.value.overall[name][0] for a, b in pairs])  # [S]
    reason = next((why for why in (not_comparable(a, b, name) for a, b in pairs) if why), None)
    if reason:
        return undefined(reason) | {"seed_sd": None, "by_seed": [None] * len(pairs), "p_value": None}
    draws = np.stack([a.draws.overall[name] - b.draws.overall[name] for a, b in pairs])  # [S, R]
    interval, p_value = t_interval(values, draws, patients=first[0].patients)
    return entry(values.mean(), interval) | _between(values) | {"p_value": p_value}


def t_interval(values: np.ndarray, draws: np.ndarray, *, patients: int) -> tuple[Interval, float | None]:
    """Interval of the mean of values [S], one a seed, and p-value of a mean of 0, from common draws of patients [S,
    R].
    """
    means = draws.mean(axis=0)  # [R], undefined where any seed is
    means = means[~np.isnan(means)]
    if len(means) < DEFINED * draws.shape[1]:
        return no_interval("too few patients of some class: undefined in more than a tenth of the resamples"), None
    if alike(means) and alike(values):
        return no_interval("every seed and every resample gives the same number"), None
    variance, freedom = satterthwaite(variances(values, means, patients=patients))
    value, spread = float(values.mean()), variance**0.5
    reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * spread
    interval = Interval(low=value - reach, high=value + reach, method="t over seeds and patients")
    return interval, float(2 * student.sf(abs(value) / spread, freedom))


def variances(values: np.ndarray, means: np.ndarray, *, patients: int) -> tuple[tuple[float, float], ...]:
    """(variance, degrees of freedom) that patients, and seeds where there are several, give the mean of values [S];
    means [R] are that mean over draws of patients.
    """
    of_patients = (float(means.var(ddof=1)) * patients / (patients - 1), patients - 1.0)
    if len(values) == 1:
        return (of_patients,)
    return of_patients, (float(values.var(ddof=1)) / len(values), len(values) - 1.0)


def satterthwaite(luck: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The variance of a sum of independent parts (variance, degrees of freedom), and its degrees of freedom."""
    variance = sum(part for part, _ in luck)
    if variance == 0:
        return 0.0, np.inf
    return variance, variance**2 / sum(part**2 / degrees for part, degrees in luck)


def _between(values: np.ndarray) -> dict[str, Any]:
    """What the seeds [S] say by themselves."""
    defined = len(values) > 1 and not np.isnan(values).any()
    return {
        "seed_sd": float(values.std(ddof=1)) if defined else None,
        "by_seed": [None if np.isnan(value) else float(value) for value in values],
    }


def _within(interval: Interval, least: float, most: float) -> Interval:
    """Cut to the values the metric can take."""
    if interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(interval.low, least), high=min(interval.high, most))
