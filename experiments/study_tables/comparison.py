"""The numbers of one comparison, results/tables/NAME.csv, and the part of a page that shows them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.reporting.comparison.files import ComparisonFiles, read_comparison
from msmae.statistics.comparison import as_family, compare_arms
from study_tables import map_history
from study_tables.markdown import NAMES, estimate, known, listed, number, p_value, table

METRICS = tuple(NAMES)
PRIMARY = "balanced_accuracy"
CHEAP_METRICS = ("accuracy", "balanced_accuracy", "auroc")
CHEAP = {
    "linear_probe": "Frozen encoder, linear probe",
    "knn": "Frozen encoder, nearest neighbours",
    "quarter": "Fine-tuned model on the quarter of the patches that it attends to most",
}
SUBJECT = "msmae"
BESIDES = (
    ("supmae", "mae"), ("msmae-twoview", "supmae"), ("msmae-twoview", "supmae-twoview"), ("msmae-hints", "supmae"),
    ("msmae-hints", "msmae-hints-shuffled"), ("msmae-hints-rollout", "supmae"),
)  # fmt: skip
"""Asked beforehand, besides the paper's arm against every other one."""
COLUMNS = (
    "kind", "column", "first", "second", "metric", "value", "low", "high", "method", "seed_sd", "p_value", "p_holm",
    "p_holm_planned", "reason",
)  # fmt: skip
COSTS = {
    "parameters": "parameters",
    "gmacs_pretrain": "GMAC an image, pre-training",
    "gmacs_train": "GMAC an image, fine-tuning",
    "gmacs_predict": "GMAC an image, prediction",
    "seconds_pretrain": "seconds of pre-training",
    "seconds_finetune": "seconds of fine-tuning",
    "images_per_s_predict": "images predicted in a second",
}
DIGITS = "%.10g"
"""How numbers are written: the last digits of a sum depend on the number of threads."""
ALPHA = 0.05


def numbers(folder: Path, *, resamples: int = 2000) -> str:
    """The CSV of a comparison: means, paired differences, and answers from the frozen encoder and from a quarter.

    ``p_holm`` is corrected over all pairs, ``p_holm_planned`` over those asked beforehand. Raises UserError where no
    seed is finished for all arms.
    """
    files = read_comparison(folder)
    frames, options = files.frames, {"classes": files.classes, "resamples": resamples}
    asked, others = pairs_of(list(files.arms))
    found = compare_arms(frames, pairs=[*asked, *others], metrics=METRICS, **options)
    planned = as_family(found["differences"][: len(asked)])
    rows = [row("mean", arm, "", name, one) for arm, of in found["arms"].items() for name, one in of.items()]
    for place, pair in enumerate(found["differences"]):
        for name, one in pair["metrics"].items():
            corrected = planned[place]["metrics"][name]["p_holm"] if place < len(asked) else None
            rows.append({**row("difference", pair["first"], pair["second"], name, one), "p_holm_planned": corrected})
    for column in files.cheap:
        if column.name not in CHEAP:  # plain answers have a table of their own
            continue
        anchor = next(iter(column.frames))  # its own predictions hold these to the same images
        named = {anchor: frames[anchor], **{f"{arm}, {column.name}": of for arm, of in column.frames.items()}}
        cheap = compare_arms(named, pairs=[], metrics=CHEAP_METRICS, **options)["arms"]
        for arm, of in zip(column.frames, list(cheap.values())[1:], strict=True):
            rows += [{**row("cheap", arm, "", name, one), "column": column.name} for name, one in of.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n", float_format=DIGITS)


def pairs_of(arms: list[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs of a comparison that were asked beforehand, and all others."""
    if SUBJECT not in arms:
        return list(combinations(arms, 2)), []
    asked = [(SUBJECT, arm) for arm in arms if arm != SUBJECT]
    asked += [pair for pair in BESIDES if set(pair) <= set(arms)]
    told = {frozenset(pair) for pair in asked}
    return asked, [pair for pair in combinations(arms, 2) if frozenset(pair) not in told]


def row(kind: str, first: str, second: str, metric: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A row of the CSV."""
    kept = {name: entry.get(name) for name in COLUMNS[5:]}
    return {**kept, "kind": kind, "column": "", "first": first, "second": second, "metric": metric}


def text(folder: Path, found: pd.DataFrame) -> str:
    """The part of a page: what stands out, then the tables, one below the other. ``found`` is the CSV of the folder."""
    files = read_comparison(folder)
    parts = [leader(found), basis(files), means(found), differences(found), *cheap(found)]
    maps = map_history.table_of(files)
    parts += [f"### Do the maps find the lesion?\n\n{map_history.ABOUT}\n\n{maps}"] if maps else []
    return "\n\n".join([*parts, costs(files)])


def leader(found: pd.DataFrame) -> str:
    """Which arm has the highest balanced accuracy, and over which others that is significant."""
    of_arm = found[(found["kind"] == "mean") & (found["metric"] == PRIMARY)].set_index("first")["value"]
    best = str(of_arm.idxmax())
    told = f"`{best}` has the highest balanced accuracy, {number(of_arm[best], PRIMARY)} %."
    pairs = found[(found["kind"] == "difference") & (found["metric"] == PRIMARY)]
    mine = pairs[(pairs["first"] == best) | (pairs["second"] == best)]
    if mine.empty:
        return told
    others = mine["first"].where(mine["first"] != best, mine["second"])
    beaten = list(others[mine["p_holm"] < ALPHA])
    level = [arm for arm in others if arm not in beaten]
    if not level:
        return f"{told} It is significantly ahead of every other arm (Holm's p below 0.05 over all pairs)."
    if not beaten:
        return f"{told} Its lead over the other arms is not significant (Holm's p over all {len(pairs)} pairs)."
    return (
        f"{told} It is significantly ahead of {listed(beaten)}, not of {listed(level)} (Holm's p over all "
        f"{len(pairs)} pairs)."
    )


def basis(files: ComparisonFiles) -> str:
    """Budget, seeds, images; and what is missing."""
    first = next(iter(files.frames.values()))[0]
    images = len(first)
    patients = int((first["patient_id"].where(first["patient_id"] != "", first["image_path"])).nunique())
    told = str((files.plan.get("budget") or {}).get("statement") or "The budget was not recorded.")
    seeds = ", ".join(map(str, files.seeds))
    told += f" Seed{'s' * (len(files.seeds) > 1)} {seeds}; {images:,} test images"
    told += f" of {patients:,} patients or groups." if patients < images else "."
    if len(files.seeds) == 1:
        told += " With one seed an interval covers other patients, not another training run."
    left = [*files.unfinished, *files.unused]
    return told + (f" Planned and not finished for every arm: {', '.join(left)}." if left else "")


def means(found: pd.DataFrame) -> str:
    """A row an arm, a column a metric."""
    return f"### Means over seeds (95 % CI)\n\n{arms_by_metrics(found[found['kind'] == 'mean'], METRICS)}"


def cheap(found: pd.DataFrame) -> list[str]:
    """The same of each further way to answer."""
    rows = found[found["kind"] == "cheap"]
    return [
        f"### {CHEAP[str(name)]}\n\n{arms_by_metrics(of, CHEAP_METRICS)}"
        for name, of in rows.groupby("column", sort=False)
    ]


def arms_by_metrics(rows: pd.DataFrame, metrics: tuple[str, ...]) -> str:
    """A table of rows of the CSV."""
    entries = {(str(one["first"]), str(one["metric"])): one for one in rows.to_dict("records")}
    arms = list(dict.fromkeys(arm for arm, _ in entries))
    cells = [[of(entries[arm, name]) for name in metrics] for arm in arms]
    return table(
        ["arm", *(NAMES[name] for name in metrics)], [[arm, *line] for arm, line in zip(arms, cells, strict=True)]
    )


def of(one: dict[str, Any], *, sign: bool = False) -> str:
    """The value of a row of the CSV with its interval."""
    return estimate(one["value"], one["low"], one["high"], str(one["metric"]), sign=sign)


def differences(found: pd.DataFrame) -> str:
    """The pairs that were asked beforehand."""
    rows = found[(found["kind"] == "difference") & (found["metric"] == PRIMARY)]
    asked, _ = pairs_of(list(found.loc[found["kind"] == "mean", "first"].unique()))
    lines = []
    for one in rows.to_dict("records"):
        if (one["first"], one["second"]) not in asked:
            continue
        p = one["p_holm_planned"]
        said = "—" if not known(p) else "not significant" if p >= ALPHA else "ahead" if one["value"] > 0 else "behind"
        lines.append(
            [f"{one['first']} − {one['second']}", of(one, sign=True), p_value(one["p_value"]), p_value(p), said]
        )
    heads = ["first − second", "difference, points (95 % CI)", "p", "Holm p", "the first is"]
    return f"### Paired differences of balanced accuracy\n\n{table(heads, lines)}" if lines else ""


def costs(files: ComparisonFiles) -> str:
    """A row an arm, a column a cost: means over the runs that recorded it."""
    rows = []
    for arm, seeds in files.runs.items():
        recorded = [run.metrics.get("cost") or {} for folds in seeds for run in folds]
        values = [[cost[key] for cost in recorded if cost.get(key) is not None] for key in COSTS]
        rows.append([arm, *(f"{float(np.mean(one)):,.3g}" if one else "—" for one in values)])
    rows = [[row[0], *(as_count(cell) for cell in row[1:])] for row in rows]
    return f"### Cost, means over the runs\n\n{table(['arm', *COSTS.values()], rows)}"


def as_count(cell: str) -> str:
    """``1.81e+06`` as 1,810,000."""
    return f"{float(cell.replace(',', '')):,.0f}" if "e" in cell else cell
