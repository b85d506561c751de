"""A comparison, drawn: every seed of every arm, the differences, and the ROC curves over each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from msmae.reporting.figures.canvas import DASHES, FAINT, SERIES, panel, to_svg, unit_square
from msmae.reporting.figures.curves import short
from msmae.statistics.predictions import Predictions
from msmae.statistics.thresholds import sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = np.linspace(0, 1, 401)


@dataclass(frozen=True)
class Line:
    """One row of a forest plot."""

    name: str
    mean: float | None
    low: float | None
    high: float | None
    dots: tuple[float, ...]
    """One a seed."""


def forest_figure(lines: Sequence[Line], *, label: str, alt: str, percent: bool, zero: bool = False) -> str:
    """SVG: a row a line, its seeds as dots, its mean as a tick, its 95 % interval as a bar.

    ``zero`` draws the line of no difference; ``percent`` shows shares as percentages.
    """
    scale = 100 if percent else 1
    with _rows([short(line.name, 34) for line in lines]) as axes:
        if zero:
            axes.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
        for row, line in enumerate(lines):
            if line.low is not None and line.high is not None:
                axes.hlines(row, scale * line.low, scale * line.high, color=SERIES[0], linewidth=7, alpha=0.22)
            if line.mean is not None:
                axes.vlines(scale * line.mean, row - 0.24, row + 0.24, color=SERIES[0], linewidth=2.2)
            if len(line.dots) > 1:
                places = [scale * dot for dot in line.dots]
                axes.scatter(places, [row] * len(places), s=16, color=SERIES[1], linewidth=0, zorder=3)
        axes.set(xlabel=label)
        return to_svg(axes, alt=alt)


def roc_overlay(curves: Mapping[str, np.ndarray], *, alt: str) -> str:
    """SVG of one curve an arm, sensitivity on `GRID`, name -> [401]."""
    with panel(5.2, 4.2) as axes:
        unit_square(axes, x="false alarm rate (1 − specificity)", y="sensitivity")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
        for place, (name, curve) in enumerate(curves.items()):
            colour = SERIES[place % len(SERIES)]
            dashes = DASHES[(place + place // len(SERIES)) % len(DASHES)]
            axes.plot([0, *GRID], [0, *curve], color=colour, linestyle=dashes, label=short(name))
        axes.legend(loc="lower right")
        return to_svg(axes, alt=alt)


def mean_roc(seeds: Sequence[Predictions]) -> np.ndarray | None:
    """The ROC curve of an arm, sensitivity [401] on `GRID`: mean over seeds of the mean over classes.

    Each class against the rest, averaged at equal false alarm rates (Fawcett 2006), so that the area under it is the
    macro AUROC; of two classes the second against the first. None unless some class has images with and without it.
    """
    curves = [_macro(seed) for seed in seeds]
    return None if any(curve is None for curve in curves) else np.mean([c for c in curves if c is not None], axis=0)


def _macro(predictions: Predictions) -> np.ndarray | None:
    binary = len(predictions.classes) == 2 and not predictions.multilabel
    curves = []
    for c in [1] if binary else range(len(predictions.classes)):
        asked = predictions.about(c)
        truth = asked.truth[:, c]
        if truth.any() and not truth.all():
            at = sweep(asked.probabilities[:, c], truth)
            x, y = np.append(0, 1 - at.specificity), np.append(0, at.sensitivity)
            last = np.append(np.diff(x) > 0, True)  # the top of every vertical rise
            curves.append(np.interp(GRID, x[last], y[last]))
    return np.mean(curves, axis=0) if curves else None


@contextmanager
def _rows(names: Sequence[str]) -> Iterator[Axes]:
    """A panel with a named row for each name, the first on top."""
    width, height, margin = 6.4, 0.75 + 0.3 * len(names), 0.35 + 0.068 * max(map(len, names))
    with panel(width, height) as axes:
        figure: Any = axes.figure
        figure.subplots_adjust(left=margin / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - 0.1 / height)
        axes.set(yticks=range(len(names)), yticklabels=list(names), ylim=(len(names) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        yield axes
