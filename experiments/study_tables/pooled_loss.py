"""What looking at a quarter costs, and what choosing it gains, pooled over seeds and data sets, from predictions that
were kept.

A folder DATA+keep/ARM/SEED holds the test predictions of one run from all patches and from the chosen quarter, and
DATA+keep-even/ARM/SEED those of a copy that was prepared for a quarter spread evenly. Differences have the intervals of
`pooled_difference`: patients and seeds both count, and a data set with one seed is not pooled.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from msmae.statistics.predictions import read_predictions
from study_tables.pooled_difference import Gain, gains, own_seed, together

MARGIN = 0.01
QUARTER = "predictions_quarter.csv"
METRICS = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}


def table(results: Path) -> str:
    """A Markdown table of the folders results/DATA+keep: each data set (mean over its runs), and all, each weighing the
    same; and whether the whole interval of all lies under the margin. "*Not run yet.*" where there is none.
    """
    folders = sorted(path for path in results.glob("*+keep") if any(path.glob(f"*/*/{QUARTER}")))
    if not folders:
        return "*Not run yet.*"
    lines = [
        "| data | runs | "
        + " | ".join(f"{name} given up, points (95 % CI)" for name in METRICS.values())
        + " | lesion patches kept |",
        "|---|---|" + "---|" * (len(METRICS) + 1),
    ]
    pooled = []
    for folder in folders:
        runs = runs_of(folder)
        lost = losses(runs, seed=own_seed(folder))
        note = why_not_pooled(folder, len(runs))
        lines.append(f"| {folder.name.removesuffix('+keep')}{note} | {len(runs)} | {cells(lost)} | {lesions(folder)} |")
        pooled += [] if note else [lost]
    if len(pooled) > 1:
        all_of = {metric: together([lost[metric] for lost in pooled]) for metric in METRICS}
        lines.append(f"| **{len(pooled)} data sets, equal weights** | | {cells(all_of)} | |")
        verdicts = [f"{not_inferior(found)} for {METRICS[metric]}" for metric, found in all_of.items()]
        lines += [
            "",
            f"Beforehand we allowed a loss of {100 * MARGIN:g} point. A loss of at most that (whole 95 % CI) is "
            f"{' and '.join(verdicts)}.",
        ]
    return "\n".join(lines)


def gain_table(results: Path) -> str:
    """A Markdown table of what the chosen quarter is ahead of the even one, where a run has both: each data set, and
    all together. "*Not run yet.*" where there is none.
    """
    rows, pooled = [], []
    for folder in sorted(results.glob("*+keep-even")):
        chosen = folder.with_name(folder.name.removesuffix("-even"))
        runs = [run for run in runs_of(folder) if (chosen / run.relative_to(folder) / QUARTER).is_file()]
        if not runs:
            continue
        pairs = [[read_predictions(at / QUARTER) for at in (chosen / run.relative_to(folder), run)] for run in runs]
        found = gains(pairs, list(METRICS), seed=own_seed(folder))
        note = why_not_pooled(folder, len(runs))
        rows.append(f"| {chosen.name.removesuffix('+keep')}{note} | {len(runs)} | {cells(found)} |")
        pooled += [] if note else [found]
    if not rows:
        return "*Not run yet.*"
    if len(pooled) > 1:
        all_of = {metric: together([found[metric] for found in pooled]) for metric in METRICS}
        rows.append(f"| **{len(pooled)} data sets, equal weights** | | {cells(all_of)} |")
    heads = " | ".join(f"{name}: chosen − grid, points (95 % CI)" for name in METRICS.values())
    return "\n".join([f"| data | runs | {heads} |", "|---|---|" + "---|" * len(METRICS), *rows])


def why_not_pooled(folder: Path, runs: int) -> str:
    """What is said beside a data set's name: of one seed the seeds' luck is unknown, and a variant shares its patients
    with the data set that it varies. Empty where it is pooled.
    """
    if runs == 1:
        return " (patients only; not pooled)"
    base, _, variant = folder.name.partition("+")
    original = folder.with_name(f"{base}+{variant.rpartition('+')[2]}")
    return " (not pooled: the same patients)" if original != folder and original.is_dir() else ""


def runs_of(folder: Path) -> list[Path]:
    """The runs ARM/SEED that were collected."""
    return sorted(path.parent for path in folder.glob(f"*/*/{QUARTER}"))


def losses(runs: list[Path], *, seed: int) -> dict[str, Gain]:
    """By metric, what all patches have over the quarter: the mean over runs of one data set."""
    pairs = [[read_predictions(run / f"predictions_{name}.csv") for name in ("all", "quarter")] for run in runs]
    return gains(pairs, list(METRICS), seed=seed)


def cells(found: dict[str, Gain]) -> str:
    """The cells of one row."""
    return " | ".join(points(found[metric]) for metric in METRICS)


def points(found: Gain) -> str:
    """Hundredths with two digits and a sign: what the table's head says it is ahead by, or gives up."""
    low, high = found.interval()
    return f"{100 * found.value:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})".replace("-", "−")


def not_inferior(found: Gain) -> str:
    """Whether the whole interval lies under the margin."""
    return "shown" if found.interval()[1] <= MARGIN else "not shown"


def lesions(folder: Path) -> str:
    """Share of the lesion patches in the located quarter, a mean over the seeds; what is not known is said."""
    if not any(folder.glob("*/*/lesions.json")):
        return "not collected"
    found = [json.loads(path.read_text(encoding="utf-8"))["kept"] for path in sorted(folder.glob("*/*/lesions.json"))]
    known = [share for share in found if share is not None]
    return f"{100 * np.mean(known):.1f} %" if known else "no masks"
