"""What one arm gains over another, pooled over data sets, from the predictions of their comparisons.

A data set weighs as much as any other. Its variance has the two parts that `msmae.statistics.seeds` gives it, patients
and seeds; the pooled mean's is their sum over the square of the number of data sets, with Satterthwaite's degrees of
freedom. Data sets that show the same patients count as one. Where a data set has one seed, the seeds' part is unknown:
it is shown, and not pooled.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from msmae.statistics.intervals import LEVEL
from msmae.statistics.paired import Resampled, matched, resample_together
from msmae.statistics.predictions import classes_of, read_predictions
from msmae.statistics.seeds import satterthwaite, variances

METRIC = "balanced_accuracy"


@dataclass(frozen=True)
class Gain:
    """A mean difference, and the variances of it with their degrees of freedom."""

    value: float
    variances: tuple[tuple[float, float], ...]
    """(variance, degrees of freedom) of each independent source of luck."""

    def interval(self) -> tuple[float, float]:
        """The 95 % CI by Student's t."""
        variance, freedom = satterthwaite(self.variances)
        reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
        return self.value - reach, self.value + reach

    def p_value(self) -> float | None:
        """Two-sided, of no difference, by the same t; None where no seed and no resample gives another number."""
        variance, freedom = satterthwaite(self.variances)
        return float(2 * student.sf(abs(self.value) / variance**0.5, freedom)) if variance > 0 else None


@dataclass(frozen=True)
class Row:
    """What one arm gains over another on one data set."""

    data: str
    seeds: int
    gain: Gain
    patients: frozenset[str] = frozenset()
    """Of the test split; empty: not shared with any other data set."""

    @property
    def note(self) -> str:
        """What to know of a single seed."""
        return " (patients only; not pooled)" if self.seeds == 1 else ""


class Draws:
    """The runs that were resampled so far: many tables ask for one run, whose draws are the same in all of them."""

    def __init__(self) -> None:
        self.known: dict[tuple[Path, int], Resampled] = {}

    def of(self, files: Sequence[Path], *, seed: int) -> list[Resampled]:
        """The test predictions in these files, resampled alike. Raises UserError unless their images are the same."""
        frames = [read_predictions(file) for file in files]
        runs = matched(frames, classes=classes_of(frames[0]), split="test", names=[str(file) for file in files])
        for file, run in zip(files, runs, strict=True):
            if (file, seed) not in self.known:
                self.known[file, seed] = resample_together([run], seed=seed, areas=False)[0]
        return [self.known[file, seed] for file in files]


def differences(results: Path, first: str, second: str, draws: Draws) -> list[Row]:
    """The balanced accuracy that ``first`` gains over ``second`` on each data set, by name.

    Args:
        results: holds DATA/ARM/SEED/predictions.csv. Seeds that only one of the two arms has are left out.
        first, second: an arm, or ``ARM+VARIANT``: its runs in DATA+VARIANT.
        draws: of other differences in the same results; files must not change between the two.
    """
    rows = []
    for folder in sorted(path.parent for path in results.glob("*/comparison.json")):
        if "+" in folder.name:  # a variant shares its patients with the data set it varies
            continue
        seeds = common_seeds(folder, first, second)
        if seeds:
            found = gain(folder, first, second, seeds, draws)
            rows.append(Row(folder.name, len(seeds), found, patients_of(runs_of(folder, first) / seeds[0])))
    return rows


def patients_of(run: Path) -> frozenset[str]:
    """The names of a run's test patients."""
    table = read_predictions(run / "predictions.csv")
    return frozenset(table.loc[table["split"] == "test", "patient_id"])


def pooled(rows: Sequence[Row]) -> Gain | None:
    """All data sets that have several seeds together; None where there are not two of them."""
    several = independent([row for row in rows if row.seeds > 1])
    return together([of_same_patients([row.gain for row in group]) for group in several]) if len(several) > 1 else None


def independent(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups of those that have the same test patients."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.patients or row.data, []).append(row)
    return list(groups.values())


def table(rows: Sequence[Row], first: str, second: str) -> str:
    """A Markdown table of the rows and of all together; where there is none it says which is not run yet."""
    if not rows:
        return f"*{first} − {second}: not run yet.*"
    lines = [f"| {row.data} | {row.seeds} | {points(row.gain)}{row.note} |" for row in rows]
    everything = pooled(rows)
    if everything:
        groups = independent([row for row in rows if row.seeds > 1])
        shared = [" and ".join(row.data for row in group) for group in groups if len(group) > 1]
        note = "".join(f"; {names}, of the same patients, count as one" for names in shared)
        lines.append(f"| **{len(groups)} data sets, equal weights{note}** | | **{points(everything)}** |")
    head = f"| data | seeds | {first} − {second}, points of balanced accuracy (95 % CI) |"
    return "\n".join([head, "|---|---|---|", *lines])


def own_seed(folder: Path) -> int:
    """What a data set's resamples are drawn from: its name, so that another data set beside it changes nothing."""
    return zlib.crc32(folder.name.encode())


def common_seeds(folder: Path, first: str, second: str) -> list[str]:
    """The seeds for which both arms have predictions."""
    of_each = [{path.parent.name for path in runs_of(folder, arm).glob("*/predictions.csv")} for arm in (first, second)]
    return sorted(of_each[0] & of_each[1])


def runs_of(folder: Path, arm: str) -> Path:
    """Where an arm's runs are: those of ``msmae+half`` are the runs of ``msmae`` in DATA+half."""
    name, plus, variant = arm.partition("+")
    return folder.with_name(f"{folder.name}{plus}{variant}") / name


def gain(folder: Path, first: str, second: str, seeds: Sequence[str], draws: Draws) -> Gain:
    """One data set's mean difference over its seeds, on the test split."""
    files = [runs_of(folder, arm) / name / "predictions.csv" for name in seeds for arm in (first, second)]
    return mean_gain(draws.of(files, seed=own_seed(folder)), METRIC)


def gains(pairs: Sequence[Sequence[pd.DataFrame]], metrics: Sequence[str], *, seed: int) -> dict[str, Gain]:
    """By metric, what the first of each pair of predictions has over the second, a mean over the pairs: one a seed, all
    of the same test patients, who are drawn alike for all.
    """
    frames = [frame for pair in pairs for frame in pair]
    sampled = resample_together(matched(frames, classes=classes_of(frames[0]), split="test"), seed=seed)
    return {name: mean_gain(sampled, name) for name in metrics}


def mean_gain(sampled: Sequence[Resampled], metric: str) -> Gain:
    """What the first of each two has over the second, a mean over the pairs."""
    pairs = list(zip(sampled[::2], sampled[1::2], strict=True))
    values = np.array([a.value.overall[metric][0] - b.value.overall[metric][0] for a, b in pairs])  # [S]
    means = np.mean([a.draws.overall[metric] - b.draws.overall[metric] for a, b in pairs], axis=0)  # [R]
    return Gain(float(values.mean()), variances(values, means[~np.isnan(means)], patients=sampled[0].patients))


def together(gains: Sequence[Gain]) -> Gain:
    """The mean over data sets, whose patients and seeds are others."""
    share = 1 / len(gains) ** 2
    variances = tuple((part * share, degrees) for one in gains for part, degrees in one.variances)
    return Gain(float(np.mean([one.value for one in gains])), variances)


def of_same_patients(gains: Sequence[Gain]) -> Gain:
    """The mean over data sets that show the same patients: none of their luck is taken to cancel out."""
    if len(gains) == 1:
        return gains[0]
    parts = [
        (float(np.mean([variance**0.5 for variance, _ in of_one])) ** 2, min(degrees for _, degrees in of_one))
        for of_one in zip(*(one.variances for one in gains), strict=True)
    ]
    return Gain(float(np.mean([one.value for one in gains])), tuple(parts))


def points(found: Gain) -> str:
    """Points of a percent with their interval."""
    low, high = found.interval()
    return f"{100 * found.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")
