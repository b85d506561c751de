"""Whether the maps of a comparison's arms find the lesion, over pre-training: from the map_quality.csv of its runs.

Runs of version 0.1 wrote that file; none of the studies in results/ need be run again for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msmae.reporting.comparison.files import ComparisonFiles
from msmae.reporting.figures.canvas import DASHES, FAINT, SERIES, panel, to_svg
from msmae.reporting.figures.curves import short
from msmae.reporting.run_files import RunFiles
from msmae.reporting.wording import number

FILE = "map_quality.csv"
FIGURES = {
    "auroc": ("AUROC of map against lesion", False),
    "pointing": ("most attended patch on the lesion", True),
    "masked": ("lesion patches that a draw from it masks", True),
    "kept": ("that it keeps", True),
}
"""Column -> what it is called, and whether it is a share. An arm whose draws are even makes none from its map."""


@dataclass(frozen=True)
class History:
    """The maps of an arm over pre-training: a row an epoch that all its runs were looked at in."""

    epochs: tuple[int, ...]
    values: dict[str, np.ndarray]
    """Figure -> [runs, epochs]."""


def histories(files: ComparisonFiles) -> dict[str, History]:
    """Arm -> its history, for the arms all of whose runs were watched."""
    found = {}
    for arm, seeds in files.runs.items():
        tables = [read(run) for folds in seeds for run in folds]
        watched = [table for table in tables if table is not None]
        if watched and len(watched) == len(tables):
            epochs = sorted(set.intersection(*(set(table.index) for table in watched)))
            values = {name: np.array([table.loc[epochs, name] for table in watched]) for name in FIGURES}
            found[arm] = History(tuple(int(epoch) for epoch in epochs), values)
    return found


def read(run: RunFiles) -> pd.DataFrame | None:
    """The figures of a run by epoch; None where its maps were not watched."""
    path = run.folder / FILE
    return pd.read_csv(path).groupby("epoch").last() if path.is_file() else None


def maps(files: ComparisonFiles) -> dict[str, Any] | None:
    """A picture and a table; None where no arm was watched."""
    known = histories(files)
    if not known:
        return None
    rows = [
        {"name": arm, "cells": [then_and_now(history.values[name], share) for name, (_, share) in FIGURES.items()]}
        for arm, history in known.items()
    ]
    curves = {arm: (history.epochs, history.values["auroc"]) for arm, history in known.items()}
    return {
        "heads": [head for head, _ in FIGURES.values()],
        "rows": rows,
        "picture": history_figure(curves, label=FIGURES["auroc"][0], alt="How well each arm's maps find the lesion"),
    }


def then_and_now(values: np.ndarray, share: bool) -> str:
    """Mean over the runs halfway and at the end, and the runs' least and largest there: ``0.61 → 0.70 (0.68–0.71)``."""
    halfway, end = values[:, values.shape[1] // 2], values[:, -1]
    first, last, low, high = (
        number(float(v), percent=share) for v in (halfway.mean(), end.mean(), end.min(), end.max())
    )
    spread = f" ({low}–{high})" if len(end) > 1 else ""
    return f"{first} → {last}{spread}"


def history_figure(curves: Mapping[str, tuple[Sequence[int], np.ndarray]], *, label: str, alt: str) -> str:
    """SVG of a line an arm over epochs: the mean of its runs [runs, epochs], and a band from their least to largest.

    The dotted line is a map that knows nothing (0.5).
    """
    with panel(5.6, 3.6) as axes:
        axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
        for place, (name, (epochs, values)) in enumerate(curves.items()):
            colour, dashes = SERIES[place % len(SERIES)], DASHES[(place + place // len(SERIES)) % len(DASHES)]
            axes.plot(epochs, values.mean(axis=0), color=colour, linestyle=dashes, label=short(name))
            if len(values) > 1:
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        axes.set(xlabel="epochs of pre-training", ylabel=label)
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="best")
        return to_svg(axes, alt=alt)
