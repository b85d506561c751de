"""Segmentations compared: what each beginning of the encoder is worth, over seeds, on the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.errors import UserError
from msmae.files import write_whole
from msmae.reporting.render import render
from msmae.reporting.wording import describe, figure_interval, figure_value, number
from msmae.statistics.comparison import as_family
from msmae.statistics.intervals import draw_patients, entry, undefined
from msmae.statistics.seeds import t_interval
from msmae.statistics.segmentation import mean_entry, read_segmentation, same_images, under_weights

SHOWN = ("dice", "iou", "hd95", "nsd")
PLAN = "comparison.json"
DIGITS = "%.10g"
"""How numbers are written to table.csv: the last digits of a sum depend on the number of threads."""


def compare_segmentations(
    arms: Mapping[str, Sequence[pd.DataFrame]],
    *,
    pairs: Sequence[tuple[str, str]],
    figures: Sequence[str] = SHOWN,
    split: str = "test",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare arms, each a sequence of segmentation.csv tables, one a seed; tables at equal places share their seed.

    A run's figure is the mean over the images where it is defined, then over the classes; a paired difference is taken
    image by image first. Means over seeds have the interval of `msmae.statistics.seeds`: over seeds and patients.

    Returns ``{"n", "patients", "seeds", "arms": {arm: {figure: entry}}, "differences": [{"first", "second", "metrics":
    {figure: entry}}]}``; a difference has ``"p_value"`` and, corrected over all pairs, ``"p_holm"``. Raises UserError
    for arms of different numbers of seeds, or runs of different images, masks or patients.
    """
    counts = {arm: len(frames) for arm, frames in arms.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise UserError(f"the arms have different numbers of seeds: {counts}", mend="finish the missing runs")
    seeds = next(iter(counts.values()))
    runs = same_images([frame for frames in arms.values() for frame in frames], split=split)
    of_arm = {arm: runs[place * seeds : (place + 1) * seeds] for place, arm in enumerate(arms)}
    images = images_of(runs[0])
    differences = [
        {
            "first": a,
            "second": b,
            "metrics": {
                name: over_seeds(
                    [values(x, name) - values(y, name) for x, y in zip(of_arm[a], of_arm[b], strict=True)],
                    runs[0], resamples=resamples, seed=seed, tested=True,
                )
                for name in figures
            },
        }
        for a, b in pairs
    ]  # fmt: skip
    return {
        "n": len(images),
        "patients": int(images["patient_id"].replace("", np.nan).nunique()) or None,
        "seeds": seeds,
        "arms": {
            arm: {
                name: over_seeds([values(run, name) for run in frames], runs[0], resamples=resamples, seed=seed)
                for name in figures
            }
            for arm, frames in of_arm.items()
        },
        "differences": as_family(differences),
    }


def values(run: pd.DataFrame, name: str) -> np.ndarray:
    """A figure of each image and class, float64 [n, C], nan where undefined; rows as in `same_images`."""
    return run[name].to_numpy(float).reshape(-1, run["class"].nunique())


def images_of(run: pd.DataFrame) -> pd.DataFrame:
    """One row an image, of a table ordered by image, then class."""
    return run.iloc[:: run["class"].nunique()].reset_index(drop=True)


def over_seeds(
    runs: Sequence[np.ndarray], rows: pd.DataFrame, *, resamples: int, seed: int, tested: bool = False
) -> dict[str, Any]:
    """The mean over seeds of the mean over images of values [n, C] each: an entry with ``seed_sd`` and ``by_seed``."""
    images = images_of(rows)
    if len(runs) == 1:
        return mean_entry(runs[0], images, resamples, seed, tested=tested)
    parts = [under_weights(np.nan_to_num(run), (~np.isnan(run)).astype(float), images) for run in runs]
    patients = parts[0][1]
    by_seed = np.array([float(figure(np.ones((1, patients)))[0]) for figure, _ in parts])  # [S]
    between = {"by_seed": [None if np.isnan(one) else float(one) for one in by_seed]}
    if np.isnan(by_seed).any() or patients == 1:
        why = "one patient only" if patients == 1 else "undefined for some seed"
        return undefined(why) | {"seed_sd": None, **between} | ({"p_value": None} if tested else {})
    chunks = list(draw_patients(patients, width=len(images), resamples=resamples, seed=seed))
    draws = np.stack([np.concatenate([figure(weights) for weights in chunks]) for figure, _ in parts])  # [S, R]
    interval, p_value = t_interval(by_seed, draws, patients=patients)
    found = entry(by_seed.mean(), interval) | {"seed_sd": float(by_seed.std(ddof=1)), **between}
    return found | ({"p_value": p_value} if tested else {})


def write_segmentation_comparison(folder: Path) -> Path:
    """Write FOLDER/comparison_table.md and table.csv from FOLDER/comparison.json and every ARM/SEED/segmentation.csv.

    Arms without a finished seed are left out, and of the seeds those are compared that all other arms have.
    Returns the path of comparison_table.md. Raises UserError where that leaves nothing.
    """
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    paths = {
        arm: {seed: path for seed in plan["seeds"] if (path := folder / arm / str(seed) / "segmentation.csv").is_file()}
        for arm in plan["arms"]
    }
    paths = {arm: of_arm for arm, of_arm in paths.items() if of_arm}
    seeds = [seed for seed in plan["seeds"] if all(seed in of_arm for of_arm in paths.values())]
    if not paths or not seeds:
        raise UserError("no seed is finished for all arms", where=str(folder), mend="finish the missing runs")
    arms = {arm: [read_segmentation(of_arm[seed]) for seed in seeds] for arm, of_arm in paths.items()}
    found = compare_segmentations(arms, pairs=[(a, b) for a, b in plan["pairs"] if a in arms and b in arms])
    write_whole(folder / "table.csv", as_table(found).to_csv(index=False, lineterminator="\n", float_format=DIGITS))
    text = render("segmentation_table.md", plan=plan, seeds=seeds, **shown(found))
    return write_whole(folder / "comparison_table.md", text)


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the Markdown table says, in words."""

    def cell(name: str, one: Mapping[str, Any]) -> str:
        interval = figure_interval(name, dict(one))
        return figure_value(name, dict(one)) + (f" ({interval})" if interval else "")

    def p_value(one: float | None) -> str:
        return "—" if one is None else "<0.001" if one < 0.001 else number(one)

    return {
        "images": found["n"],
        "patients": found["patients"],
        "heads": [describe(name).name for name in SHOWN],
        "rows": [
            {
                "name": arm,
                "cells": [cell(name, figures[name]) for name in SHOWN],
                "by_seed": ", ".join(number(one) for one in figures["dice"].get("by_seed", [figures["dice"]["value"]])),
            }
            for arm, figures in found["arms"].items()
        ],
        "differences": [
            {
                "first": pair["first"],
                "second": pair["second"],
                "value": number(one["value"]),
                "interval": figure_interval("dice", one) or "—",
                "p_value": p_value(one["p_value"]),
                "p_holm": p_value(one["p_holm"]),
            }
            for pair in found["differences"]
            for one in [pair["metrics"]["dice"]]
        ],
    }


def as_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """One row a figure of an arm, or of a difference between two."""
    names = ("value", "low", "high", "seed_sd", "p_value", "p_holm")
    means = [(arm, "", name, one) for arm, figures in found["arms"].items() for name, one in figures.items()]
    pairs = [(d["first"], d["second"], name, one) for d in found["differences"] for name, one in d["metrics"].items()]
    return pd.DataFrame(
        [
            {"arm": arm, "minus": other, "metric": name} | {key: one.get(key) for key in names}
            for arm, other, name, one in [*means, *pairs]
        ]
    )
