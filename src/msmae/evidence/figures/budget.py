"""Accuracy against speed, a line for each way of looking at less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msmae.evidence.figures.canvas import DASHES, FAINT, INK, SERIES, panel, to_svg


def budget_figure(rows: Sequence[Mapping[str, Any]], choice: Mapping[str, Any]) -> str:
    """SVG: balanced accuracy on validation over how many times as fast as all patches; the choice is ringed.

    ``rows`` and ``choice`` as in budget.json.
    """
    whole = next(row for row in rows if row["selector"] == "all")
    names = list(dict.fromkeys(row["selector"] for row in rows if row["selector"] != "all"))
    with panel(5.6, 3.9) as axes:
        axes.axhline(100 * whole["balanced_accuracy"], color=FAINT, linewidth=0.8, linestyle=":")
        for place, name in enumerate(names):
            line = sorted((row for row in rows if row["selector"] == name), key=lambda row: row["keep"])
            axes.plot(
                [row["speedup"] for row in line],
                [100 * row["balanced_accuracy"] for row in line],
                color=SERIES[place % len(SERIES)],
                linestyle=DASHES[place % len(DASHES)],
                marker="o",
                markersize=3.5,
                label=name,
            )
        axes.plot(whole["speedup"], 100 * whole["balanced_accuracy"], marker="s", color=INK, linestyle="", label="all")
        axes.plot(
            choice["speedup"], 100 * choice["balanced_accuracy"], marker="o", markersize=11, markerfacecolor="none",
            color=INK, linestyle="",
        )  # fmt: skip
        axes.set(xlabel="times as fast as all patches", ylabel="balanced accuracy, validation (%)")
        axes.legend(loc="best")
        return to_svg(axes, alt="Balanced accuracy over speed for every way of looking at less")
