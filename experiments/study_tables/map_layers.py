"""Which layer's and which head's attention finds the lesion?

A folder DATA+layers/ARM/SEED holds layers.csv (experiments/layers.py): for each map, its layer and head where it has
them, the AUROC against the lesion patches of validation images and the share of images whose peak is on the lesion.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from study_tables.map_curves import spread

TOGETHER = "all"
"""The name of all heads of a layer together."""


def table(results: Path, data: str) -> str:
    """A Markdown table of results/DATA+layers, means over seeds with the least and the largest; of single heads each
    seed's worst and best, means over seeds (heads have no names that would be the same in two seeds). "*Not run yet.*"
    where there is none.
    """
    files = sorted((results / f"{data}+layers").glob("*/*/layers.csv"))
    if not files:
        return "*Not run yet.*"
    read = [pd.read_csv(file, dtype={"layer": str, "head": str}, keep_default_na=False) for file in files]
    found = pd.concat(
        [frame.assign(arm=file.parts[-3], seed=file.parts[-2]) for frame, file in zip(read, files, strict=True)]
    )
    seeds = {arm: len(list((results / f"{data}+layers" / arm).glob("*/layers.csv"))) for arm in found["arm"].unique()}
    lines = [
        "| arm (seeds) | map | AUROC | points at the lesion | its worst and best head, AUROC |",
        "|---|---|---|---|---|",
    ]
    whole = found[found["head"].isin(["", TOGETHER])]
    for (arm, name, layer), rows in whole.groupby(["arm", "map", "layer"], sort=False):
        heads = found[(found["arm"] == arm) & (found["layer"] == layer) & ~found["head"].isin(["", TOGETHER])]
        where = f"{name}, block {layer}" if layer else name
        shares = spread(rows["pointing"], percent=True)
        lines.append(f"| {arm} ({seeds[arm]}) | {where} | {spread(rows['auroc'])} | {shares} | {extremes(heads)} |")
    return "\n".join(lines)


def extremes(heads: pd.DataFrame) -> str:
    """The worst and the best head of a seed, means over the seeds."""
    if heads.empty:
        return "—"
    by_seed = heads.groupby("seed")["auroc"]
    return f"{by_seed.min().mean():.3f} and {by_seed.max().mean():.3f}"
