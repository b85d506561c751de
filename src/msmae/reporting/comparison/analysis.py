"""The numbers of a comparison's folder: means, paired differences and cheap columns, as one table too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from msmae.reporting.comparison.files import ComparisonFiles
from msmae.reporting.comparison.verdict import other_pairs, planned_pairs, primary
from msmae.statistics.comparison import as_family, compare_arms

METRICS = ("accuracy", "balanced_accuracy", "auroc", "auprc", "mcc", "brier", "ece")
CHEAP_METRICS = ("accuracy", "balanced_accuracy", "auroc")
RESAMPLES = 2000


@dataclass(frozen=True)
class Analysis:
    """What `analyse` found."""

    result: dict[str, Any]
    """Of `compare_arms`: every pair, corrected together."""
    planned: list[dict[str, Any]]
    """The pairs asked beforehand, corrected among themselves."""
    cheap: dict[str, dict[str, Any]]
    """Way to answer -> arm -> metric -> entry of `mean_over_seeds`."""
    units: dict[str, Any] | None = None
    """Of `compare_arms`, the planned pairs: the pooled answers for patients or other units."""


def shown_metrics(files: ComparisonFiles) -> tuple[str, ...]:
    """The metrics of the table; ordered classes add the weighted kappa."""
    names = (*METRICS, "kappa_quadratic") if files.ordinal and not files.multilabel else METRICS
    return names if primary(files.plan) in names else (primary(files.plan), *names)


def analyse(files: ComparisonFiles, *, resamples: int = RESAMPLES) -> Analysis:
    """Compare the arms of a folder. Raises UserError where runs were evaluated on different test images."""
    asked = planned_pairs(files.arms)
    frames = files.frames
    options: dict[str, Any] = {"classes": files.classes, "multilabel": files.multilabel, "ordinal": files.ordinal}
    result = compare_arms(
        frames,
        pairs=[*asked, *other_pairs(files.arms)],
        metrics=shown_metrics(files),
        resamples=resamples,
        **options,
    )
    cheap = {}
    for column in files.cheap:
        anchor = next(iter(column.frames))  # its own predictions hold the cheap ones to the same images
        named = {anchor: frames[anchor]} | {
            f"{arm}, {column.title}": frames_of for arm, frames_of in column.frames.items()
        }
        found = compare_arms(named, pairs=[], metrics=CHEAP_METRICS, resamples=resamples, **options)
        entries = list(found["arms"].values())[1:]
        cheap[column.name] = dict(zip(column.frames, entries, strict=True))
    units = None
    if files.units and all(frame["unit"].nunique() > 1 for of in files.units.frames.values() for frame in of):
        units = compare_arms(
            files.units.frames, pairs=asked, metrics=shown_metrics(files), resamples=resamples, **options
        )
    return Analysis(result, as_family(result["differences"][: len(asked)]), cheap, units)


def as_table(files: ComparisonFiles, analysis: Analysis) -> pd.DataFrame:
    """Every number of the page, one a row.

    Columns: ``kind`` (mean, difference, cheap, unit, unit difference), ``column`` (of cheap: which; of units: what
    names them), ``first``, ``second`` (arms), ``metric``,
    ``value``, ``low``, ``high``, ``method``, ``seed_sd``, ``p_value``, ``p_holm`` (over all pairs), ``p_holm_planned``
    (over the pairs asked beforehand), ``reason``; empty where there is none.
    """
    rows = [
        _row("mean", arm, name, entry)
        for arm, of_arm in analysis.result["arms"].items()
        for name, entry in of_arm.items()
    ]
    planned = {(pair["first"], pair["second"]): pair["metrics"] for pair in analysis.planned}
    for pair in analysis.result["differences"]:
        for name, entry in pair["metrics"].items():
            row = _row("difference", pair["first"], name, entry) | {"second": pair["second"], "p_holm": entry["p_holm"]}
            asked = planned.get((pair["first"], pair["second"]))
            rows.append(row | {"p_holm_planned": asked[name]["p_holm"] if asked else None})
    for column, arms in analysis.cheap.items():
        rows += [
            _row("cheap", arm, name, entry) | {"column": column} for arm, e in arms.items() for name, entry in e.items()
        ]
    if analysis.units is not None and files.units is not None:
        of_unit = {"column": files.units.name}
        rows += [
            _row("unit", arm, name, entry) | of_unit
            for arm, of_arm in analysis.units["arms"].items()
            for name, entry in of_arm.items()
        ]
        rows += [
            _row("unit difference", pair["first"], name, entry)
            | of_unit
            | {"second": pair["second"], "p_holm_planned": entry["p_holm"]}
            for pair in analysis.units["differences"]
            for name, entry in pair["metrics"].items()
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


COLUMNS = (
    "kind", "column", "first", "second", "metric", "value", "low", "high", "method", "seed_sd", "p_value", "p_holm",
    "p_holm_planned", "reason",
)  # fmt: skip


def _row(kind: str, arm: str, metric: str, entry: dict[str, Any]) -> dict[str, Any]:
    kept = {name: entry.get(name) for name in ("value", "low", "high", "method", "seed_sd", "p_value", "reason")}
    return {"kind": kind, "column": "", "first": arm, "second": "", "metric": metric, **kept}
