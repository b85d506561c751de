"""The report's results in words and tables: all figures, class by class, calibration, confusion, subgroups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from msmae.reporting import cases
from msmae.reporting.headline import LISTED, KeyFigure, key_figure
from msmae.reporting.run_files import RunFiles
from msmae.reporting.subgroups import subgroups
from msmae.reporting.wording import FIGURES, describe, figure_value, number, of, split_name

PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")
RESAMPLES = 500
"""Of subgroups; the figures themselves come from metrics.json."""
REMEDIES = {
    "class_weights": "The training loss gave rare classes more weight",
    "sampling": "Training drew rare classes more often",
    "logit_adjustment": "Training kept the frequencies of the classes out of the network's answers",
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
        return [f"The probabilities are not calibrated: {record.get('reason', 'it was not asked for')}."]
    temperature = record["temperature"]
    kind = "less" if temperature > 1 else "more"
    found = []
    if record.get("weights_undone"):
        found.append(
            f"{REMEDIES.get(record.get('balance', ''), 'Training gave rare classes more weight')}. The network's own "
            "probabilities therefore assume equally common classes. The calibrated ones assume the frequencies of "
            "training. Plain answers follow the calibrated probabilities, balanced answers the network's own."
        )
    note = f"{record['note'][:1].upper()}{record['note'][1:]}." if record.get("note") else ""
    if note and temperature == 1:
        return [*found, f"The probabilities are as the network gives them. {note}"]
    found.append(
        f"One temperature, {number(temperature)}, was fitted on {of(record['images'], 'validation image')}. It makes "
        f"the model {kind} confident."
    )
    found += [note] if note else []
    errors = (record.get("errors") or {}).get(split)
    if errors:
        was, became = ({"value": errors["ece"][when]} for when in ("before", "after"))
        found.append(
            f"On the {split_name(split)} images the calibration error changed from {figure_value('ece', was)} to "
            f"{figure_value('ece', became)}, the log loss from {number(errors['log_loss']['before'])} to "
            f"{number(errors['log_loss']['after'])}."
        )
    return found


def rules(run: RunFiles, split: str) -> dict[str, Any] | None:
    """The two ways to answer side by side: accuracy, balanced accuracy, F1 and sensitivity by class; None where the run
    knows one only.
    """
    known = run.metrics["splits"][split]
    if "plain" not in known:
        return None
    both = [known["plain"], known["balanced"]]
    overall = [name for name in ("accuracy", "balanced_accuracy", "f1_macro") if name in both[0]["metrics"]]
    rows: list[dict[str, Any]] = [
        {"name": describe(name).name, "cells": [key_figure(name, one["metrics"].get(name, {})) for one in both]}
        for name in overall
    ] + [
        {
            "name": f"Sensitivity, {label}",
            "cells": [key_figure("sensitivity", one["per_class"][label].get("sensitivity", {})) for one in both],
        }
        for label in list(both[0]["per_class"])[:LISTED]
    ]
    same = all(row["cells"][0].value == row["cells"][1].value for row in rows)
    return {"rows": rows, "reasons": reasons(rows), "same": same}


def confusion(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """The confusion matrix, with each cell's percentage of its row; None for several labels per image."""
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
