"""Bootstrap draws of patients, and the confidence intervals made of them; exact ones where no resample can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import beta, norm
from scipy.stats import t as student

from msmae.statistics.metrics import Metrics, Values

LEVEL = 0.95
WORKING_SET = 2**22  # weights held at a time; a chunk's temporaries are a small multiple of 32 MB
JACKKNIFE_GROUPS = 200
DEFINED = 0.9  # of the resamples; with fewer the interval would describe another population


@dataclass(frozen=True)
class Interval:
    """A confidence interval, or the reason why there is none (then ``low`` and ``high`` are None)."""

    low: float | None
    high: float | None
    method: str | None = None
    reason: str | None = None


def no_interval(reason: str) -> Interval:
    return Interval(low=None, high=None, reason=reason)


def entry(value: float, interval: Interval) -> dict[str, Any]:
    """A defined number as it stands in ``metrics.json``. What is not finite is no number, and no end of an interval."""
    if not np.isfinite(value):
        return undefined("the figure is not finite")
    if not np.isfinite([end for end in (interval.low, interval.high) if end is not None]).all():
        interval = no_interval("the interval is not finite")
    why = {"method": interval.method} if interval.reason is None else {"reason": interval.reason}
    return {"value": float(value), "low": interval.low, "high": interval.high} | why


def undefined(reason: str) -> dict[str, Any]:
    """A number that does not exist, as it stands in ``metrics.json``."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def percentile(draws: np.ndarray, *, units: int, level: float = LEVEL) -> Interval:
    """The middle ``level`` of the bootstrap draws [R]; undefined draws are left out, at most a tenth of them."""
    usable = _usable(draws)
    if isinstance(usable, Interval):
        return usable
    low, high = np.quantile(usable, norm.cdf(_widened(units, level)))
    return Interval(low=float(low), high=float(high), method="percentile")


def bca(value: float, draws: np.ndarray, jackknife: np.ndarray, *, units: int, level: float = LEVEL) -> Interval:
    """The bias-corrected and accelerated interval (Efron 1987) from bootstrap draws [R] and leave-one-out values [G].

    Where that would not hold the value, the percentile interval; where this does not either, none: the draws are then
    more biased than they are uncertain.
    """
    usable = _usable(draws)
    if isinstance(usable, Interval):
        return usable
    below = _share_below(usable, value)
    if below in (0.0, 1.0):
        return _holding(value, percentile(draws, units=units, level=level))
    bias = norm.ppf(below)
    tail = _widened(units, level) + bias
    room = 1 - _acceleration(jackknife) * tail
    stretched = np.divide(tail, room, out=np.copysign(np.inf, tail), where=room > 0)  # no room: the outermost draw
    places = norm.cdf(bias + stretched)
    low, high = np.quantile(usable, places)
    found = _holding(value, Interval(low=float(low), high=float(high), method="bca"))
    return _holding(value, percentile(draws, units=units, level=level)) if found.low is None else found


def bca_p_value(draws: np.ndarray, jackknife: np.ndarray, value: float, *, units: int) -> float | None:
    """Two-sided p-value of the hypothesis that the true value is 0: one minus the level at which `bca` just touches
    0.

    Not below 1 / R. None where `bca` gives no interval.
    """
    usable = _usable(draws)
    if isinstance(usable, Interval):
        return None
    below = _share_below(usable, value)
    bias = 0.0 if below in (0.0, 1.0) else norm.ppf(below)
    skew = 0.0 if below in (0.0, 1.0) else _acceleration(jackknife)
    least = 0.5 / len(usable)
    shifted = norm.ppf(np.clip(_share_below(usable, 0.0), least, 1 - least)) - bias
    room = 1 + skew * shifted
    reach = shifted / room - bias if room > 0 else np.inf
    return max(float(2 * student.sf(abs(reach) / np.sqrt(units / (units - 1)), units - 1)), 1 / len(usable))


def wilson(successes: float, trials: float, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a proportion of independent trials."""
    if trials <= 0:
        return no_interval("no trial")
    z = norm.ppf((1 + level) / 2)
    share, shrink = successes / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else float(middle - half)
    high = 1.0 if successes == trials else float(middle + half)
    return Interval(low=low, high=high, method="wilson")


def clopper_pearson(successes: float, trials: float, *, level: float = LEVEL) -> Interval:
    """The exact (conservative) interval for a proportion of independent trials."""
    if trials <= 0:
        return no_interval("no trial")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.isf(tail, successes + 1, trials - successes))
    return Interval(low=low, high=high, method="clopper-pearson")


def perfect_ranking(value: float, pairs: int, *, level: float = LEVEL) -> Interval:
    """For an AUROC of exactly 1 or 0, which no resample can leave: ``pairs`` disjoint patient pairs, all ranked the
    same way.

    Each pair is one trial whose chance of success is the AUROC, so the exact interval for ``pairs`` successes holds
    (it is wide).
    """
    return clopper_pearson(value * pairs, pairs, level=level)


def bootstrap(metrics: Metrics, *, resamples: int, seed: int, areas: bool = True) -> Values:
    """Metrics of ``resamples`` draws of all patients with replacement; the same seed gives the same draws, to the
    bit.
    """
    draws = draw_patients(metrics.patients, width=metrics.width, resamples=resamples, seed=seed)
    return join([metrics(weights, areas=areas) for weights in draws])


def jackknife(metrics: Metrics, *, seed: int, areas: bool = True) -> Values:
    """Metrics with groups of patients left out: see `leave_out`."""
    groups = leave_out(metrics.patients, width=metrics.width, seed=seed)
    return join([metrics(weights, areas=areas) for weights in groups])


def draw_patients(patients: int, *, width: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each patient was drawn, float64 [r, P], in chunks that add up to ``resamples`` rows of sum P.

    ``width`` is how many numbers one row touches at a time (images x classes); it only bounds the memory.
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, WORKING_SET // max(patients, width)))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = generator.integers(patients, size=(rows, patients)) + np.arange(rows)[:, None] * patients
        yield np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients).astype(np.float64)


def leave_out(patients: int, *, width: int, seed: int) -> Iterator[np.ndarray]:
    """Weights 0 for a patient left out and 1 for the others, [g, P]: each patient in turn, or each of 200 random
    groups.

    Used for the acceleration of the BCa interval only, which estimates the same number from groups as from single
    patients.
    """
    groups = min(patients, JACKKNIFE_GROUPS)
    group = np.random.default_rng(seed).permutation(np.arange(patients) % groups)
    chunk = max(1, WORKING_SET // max(patients, width))
    for start in range(0, groups, chunk):
        left_out = np.arange(start, min(start + chunk, groups))
        yield (group[None, :] != left_out[:, None]).astype(np.float64)


def join(parts: Sequence[Values]) -> Values:
    """Chunks of weightings, one after the other."""
    return Values(
        overall={name: np.concatenate([part.overall[name] for part in parts]) for name in parts[0].overall},
        per_class={name: np.concatenate([part.per_class[name] for part in parts]) for name in parts[0].per_class},
    )


def _usable(draws: np.ndarray) -> np.ndarray | Interval:
    """The defined draws, or why they give no interval."""
    usable: np.ndarray = draws[~np.isnan(draws)]
    if len(usable) < DEFINED * len(draws):
        share = 100 * len(usable) / len(draws)
        return no_interval(
            f"too few patients of some class: the metric is defined in only {share:.0f} % of the resamples"
        )
    if alike(usable):
        return no_interval("every resample gives the same value")
    return usable


def _widened(units: int, level: float) -> np.ndarray:
    """Both tails as normal deviates, widened for a bootstrap of few units (Hesterberg 2015): t instead of z, n - 1
    instead of n.
    """
    reach = np.sqrt(units / (units - 1)) * student.ppf((1 + level) / 2, units - 1)
    return np.array([-reach, reach])


def _share_below(draws: np.ndarray, value: float) -> float:
    """Share of the draws below a value; ties count half, and what differs by rounding alone is a tie.

    Sums are rounded otherwise by every processor and number of threads, and an interval must not turn on that.
    """
    rounding = _rounding(value)
    return float((np.mean(draws < value - rounding) + np.mean(draws <= value + rounding)) / 2)


def _holding(value: float, interval: Interval) -> Interval:
    """The interval, if the value lies in it (on its end but for rounding: then to the value); else none."""
    if interval.low is None or interval.high is None:
        return interval
    if interval.low > value + _rounding(value) or interval.high < value - _rounding(value):
        return no_interval("the resamples lie beside the value: the bootstrap is biased here")
    return replace(interval, low=min(interval.low, value), high=max(interval.high, value))


def alike(draws: np.ndarray) -> bool:
    """Whether draws differ by rounding alone."""
    return bool(np.ptp(draws) <= _rounding(draws[0]))


def _rounding(value: float) -> float:
    return 1e-12 * max(1.0, abs(value))


def _acceleration(jackknife: np.ndarray) -> float:
    """Skewness of the influence of the left-out groups / 6; 0 when some group cannot be left out."""
    if np.isnan(jackknife).any():
        return 0.0
    influence = jackknife.mean() - jackknife
    spread = np.sum(influence**2)
    return float(np.sum(influence**3) / (6 * spread**1.5)) if spread > 0 else 0.0
