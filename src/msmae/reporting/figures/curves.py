"""Numbers drawn as curves: ROC, precision and recall, decision, reliability, token shares, maps over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from msmae.reporting.figures.bands import Curve
from msmae.reporting.figures.canvas import DASHES, FAINT, INK, SERIES, panel, to_svg, unit_square

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


def budget_figure(rows: Sequence[Mapping[str, Any]], choice: Mapping[str, Any]) -> str:
    """SVG: balanced accuracy on validation over how many times as fast as the first row; the choice is ringed.

    ``rows`` and ``choice`` as in budget.json.
    """
    whole, *others = rows
    base = "all" if whole["selector"] == "all" else "as fine-tuned"
    names = list(dict.fromkeys(row["selector"] for row in others))
    with panel(5.6, 3.9) as axes:
        axes.axhline(100 * whole["balanced_accuracy"], color=FAINT, linewidth=0.8, linestyle=":")
        for place, name in enumerate(names):
            line = sorted((row for row in others if row["selector"] == name), key=lambda row: row["keep"])
            axes.plot(
                [row["speedup"] for row in line],
                [100 * row["balanced_accuracy"] for row in line],
                color=SERIES[place % len(SERIES)],
                linestyle=DASHES[place % len(DASHES)],
                marker="o",
                markersize=3.5,
                label=name,
            )
        axes.plot(whole["speedup"], 100 * whole["balanced_accuracy"], marker="s", color=INK, linestyle="", label=base)
        axes.plot(
            choice["speedup"], 100 * choice["balanced_accuracy"], marker="o", markersize=11, markerfacecolor="none",
            color=INK, linestyle="",
        )  # fmt: skip
        axes.set(
            xlabel="times as fast as all patches" if base == "all" else "times as fast as fine-tuned",
            ylabel="balanced accuracy, validation (%)",
        )
        axes.legend(loc="best")
        return to_svg(axes, alt="Balanced accuracy over speed for every token share and selector")


def decision_figure(curve: pd.DataFrame, *, of: str) -> str:
    """SVG of the table that `statistics.thresholds.decision_curve` gives for the class ``of``."""
    best = max(curve["treat_all"].max(), curve["model"].max(), 0.02)
    with panel() as axes:
        at = curve["threshold"]
        if curve["low"].notna().all():
            axes.fill_between(at, curve["low"], curve["high"], color=SERIES[0], alpha=0.14, linewidth=0)
        axes.plot(at, curve["model"], color=SERIES[0], linestyle=DASHES[0], label="model")
        axes.plot(at, curve["treat_all"], color=SERIES[1], linestyle=DASHES[1], label="treat all")
        axes.plot(at, curve["treat_none"], color=FAINT, linestyle=DASHES[3], label="treat none")
        axes.set(xlim=(0, 1), ylim=(-0.25 * best, 1.1 * best))
        axes.set(xlabel=f"threshold probability of {short(of)}", ylabel="net benefit per image")
        axes.legend(loc="upper right")
        return to_svg(axes, alt=f"Decision curve of {of}")


def reliability_figure(bins: pd.DataFrame, *, of: str | None = None) -> str:
    """SVG of the rows of `statistics.reliability.reliability`: a dot a bin with its 95 % interval, area by images.

    ``of`` names the class whose probability it is; None: the probability of the model's first choice.
    """
    what = "of the largest class" if of is None else f"of {short(of)}"
    share = bins["images"] / bins["images"].sum()
    with panel() as axes:
        unit_square(axes, x=f"predicted probability {what}", y="observed share")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
        axes.vlines(bins["probability"], bins["low"], bins["high"], color=SERIES[0], linewidth=1.2)
        axes.scatter(
            bins["probability"], bins["observed"], s=12 + 160 * share, color=SERIES[0], linewidth=0, clip_on=False
        )
        axes.text(0.04, 0.93, "underconfident", color=FAINT, fontsize=8, va="top")
        axes.text(0.96, 0.06, "overconfident", color=FAINT, fontsize=8, ha="right")
        return to_svg(axes, alt=f"Reliability diagram: predicted probability {what} against the observed share")


def biggest_gap(bins: pd.DataFrame) -> tuple[float, float, int]:
    """Stated probability, observed share and images of the bin whose gap weighs most."""
    stated, seen, images = (bins[name].to_numpy() for name in ("probability", "observed", "images"))
    worst = int(np.argmax(np.abs(stated - seen) * images))
    return float(stated[worst]), float(seen[worst]), int(images[worst])
