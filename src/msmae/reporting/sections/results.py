"""The report's results in words and tables: all figures, class by class, calibration, confusion, subgroups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from msmae.reporting import cases
from msmae.reporting.headline import KeyFigure, key_figure
from msmae.reporting.run_files import RunFiles
from msmae.reporting.subgroups import subgroups
from msmae.reporting.wording import FIGURES, describe, figure_value, number, of, split_name

PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")
RESAMPLES = 500
"""Of subgroups; the figures themselves come from metrics.json."""
REMEDIES = {
    "class_weights": "Training weighed rare classes more",
    "sampling": "Training drew rare classes more often",
}


def figure_table(run: RunFiles) -> dict[str, Any]:
    """Every figure of every split."""
    splits = run.metrics["splits"]
    logged = list(dict.fromkeys(name for split in splits.values() for name in split["metrics"]))
    names = [name for name in FIGURES if name in logged] + [name for name in logged if name not in FIGURES]
    rows = [
        {
            "figure": describe(name),
            "cells": [key_figure(name, split["metrics"].get(name, {})) for split in splits.values()],
        }
        for name in names
    ]
    heads = [(split_name(name), split) for name, split in splits.items()]
    return {"heads": heads, "rows": rows, "reasons": reasons(rows)}


def class_table(run: RunFiles, split: str) -> dict[str, Any]:
    """The figures of each class."""
    per_class = run.metrics["splits"][split].get("per_class") or {}
    names = [name for name in PER_CLASS if any(name in entry for entry in per_class.values())]
    names = names or [name for name in next(iter(per_class.values()), {}) if name != "n"]
    rows = [
        {"name": label, "n": entry.get("n"), "cells": [key_figure(name, entry.get(name, {})) for name in names]}
        for label, entry in per_class.items()
    ]
    return {"heads": [describe(name) for name in names], "rows": rows, "reasons": reasons(rows)}


def calibration(metrics: Mapping[str, Any], split: str) -> list[str]:
    """What was fitted, on which images, and what it did to the calibration error; empty where it is not recorded."""
    record = metrics.get("calibration")
    if not record:
        return []
    if record.get("method", "none") == "none":
        return [f"The probabilities were not recalibrated: {record.get('reason', 'it was not asked for')}."]
    temperature = record["temperature"]
    kind = "less" if temperature > 1 else "more"
    found = []
    if record.get("weights_undone"):
        found.append(
            f"{REMEDIES.get(record.get('balance', ''), 'Training favoured rare classes')}, so its probabilities are "
            "those of a world where all classes are equally common. That was undone: they now answer for classes as "
            "common as in training. The answers stay as they were trained, so an answer need not be the class with the "
            "largest probability."
        )
    found.append(
        f"One temperature, {number(temperature)}, was fitted on {of(record['images'], 'validation image')}: it makes "
        f"the model {kind} sure."
    )
    if record.get("note"):
        found.append(f"{record['note'][:1].upper()}{record['note'][1:]}.")
    errors = (record.get("errors") or {}).get(split)
    if errors:
        was, became = ({"value": errors["ece"][when]} for when in ("before", "after"))
        found.append(
            f"On the {split_name(split)} images the calibration error was {figure_value('ece', was)} before and is "
            f"{figure_value('ece', became)} after, the log loss {number(errors['log_loss']['before'])} and "
            f"{number(errors['log_loss']['after'])}."
        )
    return found


def confusion(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """The confusion matrix, with each cell's percentage of its row; None for several labels an image."""
    if rows is None or run.multilabel:
        return None
    table = cases.confusion(rows, run.classes)
    lines = []
    for name, line in zip(run.classes, table, strict=True):
        total = int(line.sum())
        shares = [None if total == 0 else round(100 * int(n) / total, 1) for n in line]
        lines.append({"name": name, "n": total, "cells": list(zip(line.tolist(), shares, strict=True))})
    return {"classes": run.classes, "rows": lines}


def subgroup_table(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """The figures of each subgroup of the main split."""
    if rows is None or run.manifest is None:
        return None
    found, notes = subgroups(rows, run.manifest, classes=run.classes, multilabel=run.multilabel, resamples=RESAMPLES)
    names = list(dict.fromkeys(name for group in found for name in group.metrics))
    lines = [
        {"group": group, "cells": [key_figure(name, group.metrics.get(name, {})) for name in names]} for group in found
    ]
    heads = [describe(name) for name in names]
    return {"heads": heads, "rows": lines, "notes": notes, "reasons": reasons(lines)}


def reasons(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Why numbers or intervals are missing, each reason once: the footnotes of a table."""
    cells: Iterable[KeyFigure] = (figure for row in rows for figure in row["cells"])
    return list(dict.fromkeys(figure.reason for figure in cells if figure.reason))
