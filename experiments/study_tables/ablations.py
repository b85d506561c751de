"""What one setting that differs does to an arm: the variants DATA+NAME of a data set, each against the arm as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from msmae.config import GROUPS, as_of_today
from msmae.reporting.run_files import different_software
from msmae.statistics.comparison import holm
from study_tables.markdown import p_value
from study_tables.pooled_difference import Draws, Gain, common_seeds, gain, points, runs_of

STAGES = ("model", "pretrain", "finetune")
AT_THE_END = {"auroc": "AUROC of map against lesion", "pointing": "peak on the lesion, %"}


@dataclass(frozen=True)
class Ablation:
    """One variant, or another arm to see it beside."""

    what: str
    """What differs: ``pretrain.mask_ratio 0.3, pretrain.throw_ratio 0.45``; the name of another arm."""
    variant: bool
    """Whether it is a variant, and not the arm itself or another one."""
    seeds: int
    gain: Gain | None
    """Over the arm as it is; None of the arm itself."""
    maps: dict[str, float]
    """Figures of the last maps that were looked at, means over the seeds."""
    gmacs: float
    """Of an image in pre-training, its map left out."""
    environments: tuple[dict[str, Any], ...] = ()
    """What the runs recorded of their software and machine; runs that recorded nothing are left out."""


def ablations(results: Path, data: str, arm: str, others: Mapping[str, str | None], draws: Draws) -> list[Ablation]:
    """The arm as it is, then what each of ``others`` gains over it, in their order; those that share no seed with it
    are left out. Empty where none is left.

    Args:
        results: holds DATA/ARM/SEED and DATA+VARIANT/ARM/SEED.
        data: the data set of the arm as it is.
        others: ``ARM+VARIANT``, or an arm of the same comparison, and in words what differs; None: its settings say.
        draws: of other differences in the same results.
    """
    folder = results / data
    found = []
    for other, words in others.items():
        seeds = common_seeds(folder, other, arm)
        if seeds:
            runs = [runs_of(folder, other) / seed for seed in seeds]
            differs = words or what_differs(runs_of(folder, arm) / seeds[0], runs[0])
            difference = gain(folder, other, arm, seeds, draws)
            found.append(
                Ablation(differs, "+" in other, len(seeds), difference, last_maps(runs), gmacs(runs), recorded(runs))
            )
    if not found:
        return []
    own = sorted(path.parent for path in (folder / arm).glob("*/predictions.csv"))
    return [Ablation(f"{arm} as it is", False, len(own), None, last_maps(own), gmacs(own), recorded(own)), *found]


def what_differs(usual: Path, run: Path) -> str:
    """The settings of the model and of training in which two runs differ, and what they are in the second. One that is
    younger than a run had its default there.
    """
    before, after = (settings_of(path) for path in (usual, run))
    named = [f"{name} {plain(value)}" for name, value in after.items() if value != before.get(name)]
    return ", ".join(named) or "nothing"


def settings_of(run: Path) -> dict[str, Any]:
    """``stage.setting`` -> its value in a run, ranges as lists."""
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["settings"]
    values = {f"{stage}.{name}": value for stage in STAGES for name, value in asdict(GROUPS[stage]()).items()}
    known = as_of_today(saved)
    values |= {f"{stage}.{name}": value for stage in STAGES for name, value in known[stage].items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def plain(value: Any) -> str:
    """A setting's value in words: a range is ``0.2 to 1``."""
    return " to ".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value).lower()


def last_maps(runs: Sequence[Path]) -> dict[str, float]:
    """What the maps of the last epoch that was watched were worth, means over the runs; nan where none was watched."""
    watched = [pd.read_csv(run / "map_quality.csv").iloc[-1] for run in runs if (run / "map_quality.csv").is_file()]
    return {name: float(np.mean([last[name] for last in watched])) if watched else np.nan for name in AT_THE_END}


def gmacs(runs: Sequence[Path]) -> float:
    """Billions of multiply-accumulates of an image in pre-training, its map left out, as the first run counts them."""
    return float(json.loads((runs[0] / "metrics.json").read_text(encoding="utf-8"))["cost"]["gmacs_pretrain"])


def recorded(runs: Sequence[Path]) -> tuple[dict[str, Any], ...]:
    """The environment.json of each run that has one."""
    files = [run / "environment.json" for run in runs]
    return tuple(json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file())


def table(rows: Sequence[Ablation], arm: str, asked: int) -> str:
    """A Markdown table, a row each; "*Not run yet.*" where there is none.

    p is of no difference, corrected (Holm) for all variants that were ``asked``, so that it does not turn on how many
    have run; of one seed there is none, for it says nothing of another training run, nor of another arm, which is
    tested with its own comparison.
    """
    if not rows:
        return "*Not run yet.*"
    found = [row.gain.p_value() if row.gain and row.seeds > 1 and row.variant else None for row in rows]
    tested = holm([*found, *[1.0] * (asked - sum(p is not None for p in found))])[: len(rows)]
    heads = ["what differs", "seeds", f"against {arm}, points of balanced accuracy (95 % CI)", "Holm p"]
    lines = [
        f"| {' | '.join([*heads, *AT_THE_END.values(), 'GMAC an image'])} |",
        "|---" * (len(heads) + len(AT_THE_END) + 1) + "|",
    ]
    for row, p in zip(rows, tested, strict=True):
        note = " (patients only)" if row.seeds == 1 else ""
        difference = f"{points(row.gain)}{note}" if row.gain else "—"
        maps = f"{row.maps['auroc']:.3f} | {100 * row.maps['pointing']:.0f}".replace("nan", "—")
        lines.append(f"| {row.what} | {row.seeds} | {difference} | {p_value(p)} | {maps} | {row.gmacs:.4f} |")
    if other := different_software(record for row in rows for record in row.environments):
        lines += ["", f"**Mind:** these runs were not all made with the same software ({', '.join(other)} differ)."]
    return "\n".join(lines)
