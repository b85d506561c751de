"""How every arm did on every data set, one figure each, from the tables of their comparisons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

METRIC = "balanced_accuracy"


def table(results: Path, order: Sequence[str] = ()) -> str:
    """A Markdown table of the arms' balanced accuracy on test in results/DATA/table.csv, in percent with 95 %
    intervals; "*Not run yet.*" where there is none. Variants (DATA+NAME) are left out.

    Args:
        order: arms in the order of their rows; others follow.
    """
    columns: dict[str, dict[str, str]] = {}
    for file in sorted(results.glob("*/table.csv")):
        plan = json.loads((file.parent / "comparison.json").read_text(encoding="utf-8"))
        if "+" not in file.parent.name and plan.get("task") != "segmentation":
            column = cells(pd.read_csv(file))
            seeds = seeds_of(file.parent, list(column), plan["seeds"])
            columns[f"{file.parent.name}, {counted(seeds)}"] = column
    if not columns:
        return "*Not run yet.*"
    found = list(dict.fromkeys(arm for column in columns.values() for arm in column))
    arms = [arm for arm in order if arm in found] + [arm for arm in found if arm not in order]
    rows = [f"| {arm} | " + " | ".join(column.get(arm, "—") for column in columns.values()) + " |" for arm in arms]
    return "\n".join([f"| arm | {' | '.join(columns)} |", "|---|" + "---|" * len(columns), *rows])


def seeds_of(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> int:
    """How many of the seeds all arms that are shown have finished: those that are compared."""
    runs = ([folder / arm / str(seed) / "predictions.csv" for arm in arms] for seed in seeds)
    return sum(all(file.is_file() for file in of_seed) for of_seed in runs)


def counted(seeds: int) -> str:
    """``3 seeds``; of one seed the interval is of patients only, and that is said."""
    return f"{seeds} seeds" if seeds != 1 else "1 seed (patients only)"


def cells(figures: pd.DataFrame) -> dict[str, str]:
    """By arm, its mean over the seeds and the interval."""
    means = figures[(figures["kind"] == "mean") & (figures["metric"] == METRIC)]
    return {
        str(arm): f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})" if pd.notna(low) else f"{100 * value:.1f}"
        for arm, value, low, high in zip(means["first"], means["value"], means["low"], means["high"], strict=True)
    }
