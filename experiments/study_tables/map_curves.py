"""Do the answers hang on what a map marks? Areas under deletion and insertion curves (Petsiuk, arXiv 1806.07421).

A folder DATA+maps/ARM/SEED holds curves.csv: the mean probability of the class that the whole image was given, after a
share of the patches was blanked, or shown, in the order of a map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

CURVES = {"deletion": "blanked first: less is better", "insertion": "shown first: more is better"}


def table(results: Path, data: str) -> str:
    """A Markdown table of results/DATA+maps: the areas [0, 1] of every map, means over seeds with the least and the
    largest. "*Not run yet.*" where there is none.
    """
    files = sorted((results / f"{data}+maps").glob("*/*/curves.csv"))
    if not files:
        return "*Not run yet.*"
    areas = pd.concat([areas_of(pd.read_csv(file), arm=file.parts[-3]) for file in files])
    seeds = {arm: len(list((results / f"{data}+maps" / arm).glob("*/curves.csv"))) for arm in areas["arm"].unique()}
    lines = [f"| arm (seeds) | map | {' | '.join(CURVES.values())} |", "|---|---|---|---|"]
    for (arm, name), found in areas.groupby(["arm", "map"], sort=False):
        figures = [spread(found.loc[found["curve"] == curve, "area"]) for curve in CURVES]
        lines.append(f"| {arm} ({seeds[arm]}) | {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def areas_of(curves: pd.DataFrame, *, arm: str) -> pd.DataFrame:
    """Columns arm, map, curve and area: of each curve of one run, the mean height by the trapezoidal rule."""
    rows = [
        (arm, name, curve, float(np.trapezoid(points["probability"], points["share"])))
        for (name, curve), points in curves.groupby(["map", "curve"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["arm", "map", "curve", "area"])


def spread(values: pd.Series, *, percent: bool = False) -> str:
    """The mean, and what the seeds range over."""
    mean, low, high = (
        f"{100 * x:.0f} %" if percent else f"{x:.3f}" for x in (values.mean(), values.min(), values.max())
    )
    return f"{mean} ({low.removesuffix(' %')}–{high.removesuffix(' %')})" if len(values) > 1 else mean
