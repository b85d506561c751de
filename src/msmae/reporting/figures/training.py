"""Training curves from the logs of a stage."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from msmae.reporting.figures.canvas import DASHES, SERIES, panel, to_svg

NOT_CURVES = ("epoch", "step", "images_per_s")
SHARES = ("balanced_accuracy", "map_overlap")
"""Quantities that are 1 at most."""
NAMES = {
    "loss": "loss",
    "reconstruction": "reconstruction error of the masked patches",
    "label": "cross-entropy of the class head",
    "map_entropy": "entropy of the attention maps",
    "map_overlap": "overlap of a map with the one before",
    "map_diversity": "difference between the maps of two images",
    "balanced_accuracy": "balanced accuracy",
}


def by_panel(log: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """What is drawn together: quantity -> {"training" or "validation": values by epoch}.

    ``log`` has the columns ``epoch`` and one a logged number (``val_...`` measured on validation), with gaps where
    a row logs something else. Values of one epoch are averaged.
    """
    panels: dict[str, dict[str, pd.Series]] = {}
    for column in log.columns:
        if column in NOT_CURVES or not log[column].notna().any():
            continue
        quantity = column.removeprefix("val_")
        split = "validation" if column != quantity else "training"
        panels.setdefault(quantity, {})[split] = log.groupby("epoch")[column].mean().dropna()
    return panels


def training_figure(quantity: str, series: Mapping[str, pd.Series], *, stage: str) -> str:
    """SVG of one logged quantity over the epochs of a stage."""
    name = NAMES.get(quantity, quantity.replace("_", " "))
    colours = {"training": (SERIES[0], DASHES[0]), "validation": (SERIES[1], DASHES[1])}
    alone = "" if len(series) > 1 or "training" in series else " on validation"
    with panel(4.3, 2.6) as axes:
        for split, values in series.items():
            colour, dashes = colours[split]
            mark = "o" if len(values) == 1 else None
            axes.plot(values.index + 1, values.to_numpy(), color=colour, linestyle=dashes, label=split, marker=mark)
        axes.set(xlabel="epoch", title=f"{name}{alone}")
        left, right = axes.get_xlim()
        if right - left < 2:  # one epoch
            axes.set_xlim(round(left), round(left) + 2)
        axes.locator_params(axis="x", integer=True)
        if quantity in SHARES and axes.get_ylim()[1] > 1:
            axes.set_ylim(top=1)
        if len(series) > 1:
            axes.legend(loc="best")
        return to_svg(axes, alt=f"{stage}: {name}{alone} by epoch")
