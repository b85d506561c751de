"""What one setting that differs does to an arm: the variants DATA+NAME of a data set, against the arm as it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from msmae.evidence.pooled_difference import Gain, common_seeds, gain, own_seed, points
from msmae.evidence.significance import holm

STAGES = ("model", "pretrain", "finetune")
AT_THE_END = {"auroc": "AUROC of map against lesion", "masked": "lesion patches masked, %"}


@dataclass(frozen=True)
class Ablation:
    """One variant."""

    setting: str
    """What differs: ``mask_ratio 0.3, throw_ratio 0.45``."""
    seeds: int
    gain: Gain
    """Of the variant over the arm as it is."""
    maps: dict[str, float]
    """Figures of the last maps that were looked at, means over the seeds."""
    gmacs: float
    """Of an image in pre-training."""


def ablations(results: Path, data: str, arm: str) -> list[Ablation]:
    """The variants of a data set in which the arm has run, by name."""
    found = []
    for folder in sorted(results.glob(f"{data}+*")):
        variant = f"{arm}+{folder.name.partition('+')[2]}"
        seeds = common_seeds(results / data, variant, arm)
        if not seeds:
            continue
        runs = [folder / arm / seed for seed in seeds]
        found.append(
            Ablation(
                setting=what_differs(results / data / arm / seeds[0], runs[0]),
                seeds=len(seeds),
                gain=gain(results / data, variant, arm, seeds, seed=own_seed(results / data)),
                maps=last_maps(runs),
                gmacs=gmacs(runs),
            )
        )
    return found


def what_differs(usual: Path, run: Path) -> str:
    """The settings of training in which two runs differ, and what they are in the second; the number of epochs follows
    from others, and is not named.
    """
    before, after = (yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")) for path in (usual, run))
    named = [
        f"{setting} {plain(value)}"
        for stage in STAGES
        for setting, value in after["settings"][stage].items()
        if setting != "epochs" and value != before["settings"][stage].get(setting)
    ]
    return ", ".join(named) or "nothing"


def plain(value: Any) -> str:
    """A setting's value in words: a range is ``0.2 to 1``."""
    return " to ".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value).lower()


def last_maps(runs: list[Path]) -> dict[str, float]:
    """What the maps of the last epoch that was watched were worth, means over the runs; nan where none was watched."""
    watched = [pd.read_csv(run / "map_quality.csv").iloc[-1] for run in runs if (run / "map_quality.csv").is_file()]
    return {name: float(np.mean([last[name] for last in watched])) if watched else np.nan for name in AT_THE_END}


def gmacs(runs: list[Path]) -> float:
    """Billions of multiply-accumulates of an image in pre-training, its map left out, as the first run counts them."""
    return float(json.loads((runs[0] / "metrics.json").read_text(encoding="utf-8"))["cost"]["gmacs_pretrain"])


def table(rows: list[Ablation], arm: str) -> str:
    """A Markdown table, a variant a row; "*Not run yet.*" where there is none.

    p is of no difference, corrected (Holm) for the number of variants; of one seed there is none, for it says nothing
    of another training run.
    """
    if not rows:
        return "*Not run yet.*"
    tested = holm([row.gain.p_value() if row.seeds > 1 else None for row in rows])
    heads = ["what differs", "seeds", f"against {arm}, points of balanced accuracy (95 % interval)", "Holm p"]
    lines = [f"| {' | '.join([*heads, *AT_THE_END.values(), 'GMAC an image'])} |", "|---" * 7 + "|"]
    for row, p in zip(rows, tested, strict=True):
        note = " (patients only)" if row.seeds == 1 else ""
        figures = f"{row.maps['auroc']:.3f} | {100 * row.maps['masked']:.1f} | {row.gmacs:.4f}".replace("nan", "—")
        lines.append(f"| {row.setting} | {row.seeds} | {points(row.gain)}{note} | {chance(p)} | {figures} |")
    return "\n".join(lines)


def chance(p: float | None) -> str:
    """A p-value as the other tables write it."""
    return "—" if p is None else "&lt;0.001" if p < 0.001 else f"{p:.3f}"
