"""Segmentations compared: what each beginning of the encoder is worth, over seeds, on the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.errors import UserError
from msmae.statistics.comparison import as_family
from msmae.statistics.intervals import draw_patients, entry, undefined
from msmae.statistics.seeds import t_interval
from msmae.statistics.segmentation import mean_entry, read_segmentation, same_images, under_weights
from study_tables.markdown import estimate, p_value, table

SHOWN = {"dice": "Dice", "iou": "IoU", "hd95": "HD95, pixels", "nsd": "NSD"}
PLAN = "comparison.json"
DIGITS = "%.10g"
"""How numbers are written to table.csv: the last digits of a sum depend on the number of threads."""


def compare_segmentations(
    arms: Mapping[str, Sequence[pd.DataFrame]],
    *,
    pairs: Sequence[tuple[str, str]],
    figures: Sequence[str] = tuple(SHOWN),
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


def read(folder: Path) -> dict[str, Any]:
    """`compare_segmentations` of every ARM/SEED/segmentation.csv that FOLDER/comparison.json names, for the seeds that
    all arms have. Arms without a finished seed are left out. Raises UserError where nothing is left.
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
    return compare_segmentations(arms, pairs=[(a, b) for a, b in plan["pairs"] if a in arms and b in arms])


def numbers(folder: Path) -> str:
    """The CSV of the folder's segmentations."""
    return as_table(read(folder)).to_csv(index=False, lineterminator="\n", float_format=DIGITS)


def text(folder: Path, found: pd.DataFrame) -> str:
    """The part of a page; ``found`` is the CSV of the folder."""
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    arms = [arm for arm in plan["arms"] if arm in set(found["arm"])]
    runs = {arm: sorted((folder / arm).glob("*/segmentation.csv")) for arm in arms}
    seeds = [
        seed for seed in plan["seeds"] if all(folder / a / str(seed) / "segmentation.csv" in runs[a] for a in arms)
    ]
    images = pd.read_csv(runs[arms[0]][0], dtype=str, keep_default_na=False).drop_duplicates("image_path")
    entries = {(one["arm"], one["minus"], one["metric"]): one for one in found.fillna({"minus": ""}).to_dict("records")}
    rows = [[arm, *(cell(entries[arm, "", name]) for name in SHOWN)] for arm in arms]
    pairs = [
        [f"{a} − {b}", cell(one, sign=True), p_value(one["p_value"]), p_value(one["p_holm"])]
        for (a, b, name), one in entries.items()
        if b and name == "dice"
    ]
    return "\n\n".join(
        [
            f"{plan['budget']} Seeds {', '.join(map(str, seeds))}; {len(images):,} test images of "
            f"{images['patient_id'].nunique():,} {plan['unit']}. Differences are taken image by image.",
            f"### Means over seeds (95 % CI)\n\n{table(['encoder', *SHOWN.values()], rows)}",
            "### Paired differences of Dice\n\n"
            + table(["first − second", "difference (95 % CI)", "p", "Holm p"], pairs),
        ]
    )


def cell(one: Mapping[str, Any], *, sign: bool = False) -> str:
    """A value with its interval."""
    return estimate(one["value"], one["low"], one["high"], str(one["metric"]), sign=sign)


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
