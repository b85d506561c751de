"""Which layer's and which head's attention finds the lesion?

A folder DATA+layers/ARM/SEED holds layers.csv (experiments/layers.py): for each map, its layer and head where it has
them, the AUROC against the lesion patches of validation images and the share of images whose peak is on the lesion.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from msmae.evidence.map_curves import spread

TOGETHER = "all"
"""The name of all heads of a layer together."""


def table(results: Path, data: str) -> str:
    """A Markdown table of results/DATA+layers, means over seeds with the least and the largest; of single heads those
    of the least and of the largest mean. "*Not run yet.*" where there is none.
    """
    files = sorted((results / f"{data}+layers").glob("*/*/layers.csv"))
    if not files:
        return "*Not run yet.*"
    read = [pd.read_csv(file, dtype={"layer": str, "head": str}, keep_default_na=False) for file in files]
    found = pd.concat([frame.assign(arm=file.parts[-3]) for frame, file in zip(read, files, strict=True)])
    seeds = {arm: len(list((results / f"{data}+layers" / arm).glob("*/layers.csv"))) for arm in found["arm"].unique()}
    lines = ["| arm (seeds) | map | AUROC | points at the lesion | its heads, AUROC |", "|---|---|---|---|---|"]
    whole = found[found["head"].isin(["", TOGETHER])]
    for (arm, name, layer), rows in whole.groupby(["arm", "map", "layer"], sort=False):
        heads = found[(found["arm"] == arm) & (found["layer"] == layer) & ~found["head"].isin(["", TOGETHER])]
        where = f"{name}, block {layer}" if layer else name
        shares = spread(rows["pointing"], percent=True)
        lines.append(f"| {arm} ({seeds[arm]}) | {where} | {spread(rows['auroc'])} | {shares} | {extremes(heads)} |")
    return "\n".join(lines)


def extremes(heads: pd.DataFrame) -> str:
    """The least and the largest mean over seeds of any head."""
    if heads.empty:
        return "—"
    means = heads.groupby("head")["auroc"].mean()
    return f"{means.min():.3f} to {means.max():.3f}"
