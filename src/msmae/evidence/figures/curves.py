"""ROC and precision-recall curves, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from msmae.evidence.figures.bands import Curve
from msmae.evidence.figures.canvas import DASHES, FAINT, SERIES, panel, to_svg, unit_square

BANDED = 4
"""More curves in one picture are drawn without their bands, which would hide each other."""


def roc_figure(curves: Mapping[str, Curve]) -> str:
    """SVG of the ROC curves of at most eight classes, name -> curve, with their bands."""
    return _square(
        curves,
        x="false alarm rate (1 − specificity)",
        y="sensitivity",
        corner="lower right",
        alt=f"ROC curves of {', '.join(curves)}",
        diagonal=True,
        bands_from=0.0,
    )


def precision_recall_figure(curves: Mapping[str, Curve]) -> str:
    """SVG of the precision-recall curves of at most eight classes, name -> curve, with their bands."""
    return _square(
        curves,
        x="sensitivity (recall)",
        y="positive predictive value (precision)",
        corner="best",
        alt=f"Precision-recall curves of {', '.join(curves)}",
        diagonal=False,
        bands_from=0.1,  # below, the precision rests on a few images and its band fills the picture
    )


def _square(
    curves: Mapping[str, Curve],
    *,
    x: str,
    y: str,
    corner: Literal["lower right", "best"],
    alt: str,
    diagonal: bool,
    bands_from: float,
) -> str:
    with panel() as axes:
        unit_square(axes, x=x, y=y)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
        for (name, curve), colour, dashes in zip(curves.items(), SERIES, DASHES, strict=False):
            if len(curves) <= BANDED and not np.isnan(curve.low).any():
                shown = curve.grid >= bands_from
                axes.fill_between(
                    curve.grid[shown], curve.low[shown], curve.high[shown], color=colour, alpha=0.14, linewidth=0
                )
            axes.plot(curve.x, curve.y, color=colour, linestyle=dashes, label=short(name), clip_on=False)
        if corner != "best" or len(curves) <= BANDED:  # many curves leave no place for a legend
            axes.legend(loc=corner)
        return to_svg(axes, alt=alt)


def short(name: str, length: int = 26) -> str:
    """A class name that fits into a legend, with its beginning and its end, whatever characters it has."""
    half = (length - 1) // 2
    name = name if len(name) <= length else f"{name[:half]}…{name[-half:]}"
    return f"\u2009{name}" if name.startswith("_") else name  # matplotlib hides a legend entry that starts with _
