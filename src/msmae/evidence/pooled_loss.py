"""What looking at a quarter costs, pooled over seeds and data sets, from predictions that were kept.

A folder DATA+keep/ARM/SEED holds the test predictions of one run from all patches and from the quarter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from msmae.evidence.intervals import bca
from msmae.evidence.paired import Resampled, matched, resample_together
from msmae.evidence.predictions import classes_of, read_predictions

MARGIN = 0.01
METRICS = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}


def table(results: Path) -> str:
    """A Markdown table of the folders results/DATA+keep: each data set (mean over its runs), and all, each weighing the
    same. Losses are paired, with 95 % intervals over patients; "*Not run yet.*" where there is none."""
    folders = sorted(path for path in results.glob("*+keep") if any(path.glob("*/*/predictions_quarter.csv")))
    if not folders:
        return "*Not run yet.*"
    losses = {
        folder.name.removesuffix("+keep"): losses_of(folder, seed=number) for number, folder in enumerate(folders)
    }
    lines = [
        "| data | runs | "
        + " | ".join(f"{name} given up, points" for name in METRICS.values())
        + " | lesion patches kept |",
        "|---|---|" + "---|" * (len(METRICS) + 1),
    ]
    for (name, parts), folder in zip(losses.items(), folders, strict=True):
        figures = [described(parts[metric]) for metric in METRICS]
        lines.append(f"| {name} | {parts['seeds']} | {' | '.join(figures)} | {lesions(folder)} |")
    if len(losses) > 1:
        together = [pool([parts[metric] for parts in losses.values()]) for metric in METRICS]
        pooled, shown = [described(found) for found in together], [shown_not_inferior(found) for found in together]
        lines.append(f"| **all, equal weights** | | {' | '.join(pooled)} | |")
        verdicts = [f"{name}: {said}" for name, said in zip(METRICS.values(), shown, strict=True)]
        lines += ["", f"Non-inferiority at {100 * MARGIN:g} point: {'; '.join(verdicts)}."]
    return "\n".join(lines)


def losses_of(folder: Path, *, seed: int) -> dict[str, Any]:
    """The number of runs, and of each metric their mean loss under common draws of patients."""
    runs = sorted(path.parent for path in folder.glob("*/*/predictions_quarter.csv"))
    frames = [read_predictions(run / f"predictions_{name}.csv") for run in runs for name in ("all", "quarter")]
    sampled = resample_together(matched(frames, classes=classes_of(frames[0]), split="test"), seed=seed)
    pairs = list(zip(sampled[::2], sampled[1::2], strict=True))
    return {"seeds": len(runs)} | {metric: mean([loss(a, b, metric) for a, b in pairs]) for metric in METRICS}


Loss = tuple[float, np.ndarray, np.ndarray, int]
"""Value, draws [R], values with groups left out [G], patients."""


def loss(a: Resampled, b: Resampled, metric: str) -> Loss:
    """All patches minus the quarter."""
    value, draws, left_out = (
        getattr(a, part).overall[metric] - getattr(b, part).overall[metric] for part in ("value", "draws", "left_out")
    )
    return float(value[0]), draws, left_out, a.patients


def mean(losses: list[Loss]) -> Loss:
    """The mean over seeds, whose draws are of the same patients: draw by draw, group by group."""
    values, draws, left_out, units = zip(*losses, strict=True)
    return float(np.mean(values)), np.mean(draws, axis=0), np.mean(left_out, axis=0), units[0]


def pool(losses: list[Loss]) -> Loss:
    """The mean over data sets, whose patients are others: a group that is left out of one changes its share alone."""
    values, draws, left_out, units = zip(*losses, strict=True)
    value = float(np.mean(values))
    lacking = [value + (groups - own) / len(losses) for own, groups in zip(values, left_out, strict=True)]
    return value, np.mean(draws, axis=0), np.concatenate(lacking), sum(units)


def described(found: Loss) -> str:
    """Points with a 95 % interval."""
    value, draws, left_out, units = found
    interval = bca(value, draws, left_out, units=units)
    if interval.low is None or interval.high is None:
        return f"{100 * value:.2f}"
    return f"{100 * value:.2f} ({100 * interval.low:.2f} to {100 * interval.high:.2f})"


def shown_not_inferior(found: Loss) -> str:
    """Whether the whole interval lies under the margin."""
    value, draws, left_out, units = found
    high = bca(value, draws, left_out, units=units).high
    return "shown" if high is not None and high <= MARGIN else "not shown"


def lesions(folder: Path) -> str:
    """Share of the lesion patches in the located quarter, a mean over the seeds."""
    found = [json.loads(path.read_text(encoding="utf-8"))["kept"] for path in sorted(folder.glob("*/*/lesions.json"))]
    known = [share for share in found if share is not None]
    return f"{100 * np.mean(known):.1f} %" if known else "no masks"
