"""The parts of a comparison's page: tables of means, differences and costs, pictures, and what must be known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from msmae.reporting import headline
from msmae.reporting.cases import outcome
from msmae.reporting.comparison import verdict
from msmae.reporting.comparison.analysis import CHEAP_METRICS, Analysis, shown_metrics
from msmae.reporting.comparison.files import ComparisonFiles
from msmae.reporting.headline import key_figure
from msmae.reporting.run_files import Panel, different_software
from msmae.reporting.sections.results import reasons
from msmae.reporting.wording import describe, of
from msmae.statistics.predictions import Predictions, to_arrays
from msmae.statistics.units import SAYS

COSTS = {
    "parameters": "Parameters",
    "gmacs_pretrain": "GMAC an image, pre-training",
    "gmacs_train": "GMAC an image, fine-tuning",
    "gmacs_predict": "GMAC an image, prediction",
    "seconds_pretrain": "Time of pre-training",
    "seconds_finetune": "Time of fine-tuning",
    "images_per_s_predict": "Images predicted in a second",
}
PICTURED = 6
"""Images whose attention maps are shown side by side."""
PICTURE_BYTES = 3_000_000


def means(files: ComparisonFiles, analysis: Analysis) -> dict[str, Any]:
    """A row an arm, a column a metric: mean over seeds and 95 % interval."""
    names = shown_metrics(files)
    rows = [
        {"name": arm, "about": headline.ARMS.get(arm, BASELINES.get(arm, "")), "cells": _cells(entries, names)}
        for arm, entries in analysis.result["arms"].items()
    ]
    return {"heads": [describe(name) for name in names], "rows": rows, "reasons": reasons(rows)}


def cheap(files: ComparisonFiles, analysis: Analysis) -> list[dict[str, Any]]:
    """A table for each cheap way to answer; none where no run has it."""
    tables = []
    for column in files.cheap:
        entries = analysis.cheap[column.name]
        rows = [{"name": arm, "cells": _cells(of_arm, CHEAP_METRICS)} for arm, of_arm in entries.items()]
        heads = [describe(metric) for metric in CHEAP_METRICS]
        tables.append({"title": column.title, "heads": heads, "rows": rows, "reasons": reasons(rows)})
    return tables


def units(files: ComparisonFiles, analysis: Analysis) -> dict[str, Any] | None:
    """The same for patients or other units, each with one pooled answer; None where the runs name none."""
    if analysis.units is None or files.units is None:
        return None
    name, found = files.units.name, analysis.units
    rows = [{"name": arm, "cells": _cells(entries, shown_metrics(files))} for arm, entries in found["arms"].items()]
    pooling = sorted({str(run.metrics["patients"]["pooling"]) for run in files.all_runs})
    return {
        "title": "Patients" if name == "patient" else f"Units of the column {name}",
        "plural": "patients" if name == "patient" else f"units of the column {name}",
        "number": found["n"],
        "pooling": [SAYS[how] for how in pooling],
        "heads": [describe(metric) for metric in shown_metrics(files)],
        "rows": rows,
        "reasons": reasons(rows),
        "differences": differences(files, found["differences"])[0] if found["differences"] else None,
    }


def differences(files: ComparisonFiles, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each metric that is shown, the rows of a table of paired differences; the deciding metric first."""
    first = verdict.primary(files.plan)
    names = [first, *(name for name in shown_metrics(files) if name != first)]
    return [
        {
            "figure": describe(name),
            "lower": name in verdict.LOWER_IS_BETTER,
            "rows": [verdict.shown(pair, name) for pair in pairs],
        }
        for name in names
    ]


def costs(files: ComparisonFiles) -> dict[str, Any]:
    """A row an arm, a column a cost: means over the runs that recorded it."""
    mean = {arm: mean_cost(files, arm) for arm in files.arms}
    keys = [key for key in COSTS if any(cost[key] is not None for cost in mean.values())]
    rows = [{"name": arm, "cells": [(key, cost[key]) for key in keys]} for arm, cost in mean.items()]
    return {"heads": [COSTS[key] for key in keys], "rows": rows}


def mean_cost(files: ComparisonFiles, arm: str) -> dict[str, float | int | None]:
    """What the runs of an arm cost in the mean; None where none recorded it."""
    recorded = [run.metrics.get("cost") or {} for folds in files.runs[arm] for run in folds]
    found: dict[str, float | int | None] = {}
    for key in COSTS:
        values = [cost[key] for cost in recorded if cost.get(key) is not None]
        found[key] = None if not values else values[0] if len(set(values)) == 1 else float(np.mean(values))
    return found


def pictures(files: ComparisonFiles, analysis: Analysis) -> dict[str, str | None]:
    """Every seed of every arm, the planned differences, and the ROC curves over each other."""
    from msmae.reporting.figures.comparison import Line, forest_figure, mean_roc, roc_overlay

    metric = verdict.primary(files.plan)
    percent, name = describe(metric).percent, describe(metric).name
    unit = f"{name}, %" if percent else name
    arms = [
        Line(arm, entry["value"], entry["low"], entry["high"], _known(entry["by_seed"]))
        for arm, entries in analysis.result["arms"].items()
        for entry in [entries[metric]]
    ]
    pairs = [
        Line(
            f"{pair['first']} − {pair['second']}", entry["value"], entry["low"], entry["high"], _known(entry["by_seed"])
        )
        for pair in analysis.planned
        for entry in [pair["metrics"][metric]]
    ]
    rocs = {arm: mean_roc([_arrays(frame, files) for frame in frames]) for arm, frames in files.frames.items()}
    drawn = {arm: curve for arm, curve in rocs.items() if curve is not None}
    return {
        "arms": forest_figure(arms, label=unit, alt=f"{name} of each arm, by seed", percent=percent),
        "differences": forest_figure(
            pairs,
            label=f"difference of {name}{', points' if percent else ''}",
            alt=f"Differences of {name}",
            percent=percent,
            zero=True,
        )
        if pairs
        else None,
        "roc": roc_overlay(drawn, alt=f"ROC curves of {', '.join(drawn)}") if drawn else None,
    }


def masks(files: ComparisonFiles) -> dict[str, Any]:
    """The attention panels of the arms' first runs: the same images side by side, or else some of each arm."""
    of_arm = {arm: {panel.image_path: panel for panel in seeds[0][0].panels} for arm, seeds in files.runs.items()}
    of_arm = {arm: panels for arm, panels in of_arm.items() if panels}
    held = [path for panels in of_arm.values() for path in panels]
    shared = sorted({path for path in held if held.count(path) > 1}, key=lambda path: (-held.count(path), path))
    if shared:
        groups = [[(arm, panels[path]) for arm, panels in of_arm.items() if path in panels] for path in shared]
    else:
        groups = [
            [(arm, panel) for arm, panels in of_arm.items() for panel in _one_of(panels, kind, len(files.classes))]
            for kind in ("right", "wrong", "uncertain")
        ]
    shown, room = [], PICTURE_BYTES
    for group in [group for group in groups if group][:PICTURED]:
        size = sum(panel.picture.stat().st_size for _, panel in group)
        if size <= room:
            shown.append(group)
            room -= size
    return {"shared": bool(shared), "groups": shown}


def runs(files: ComparisonFiles, analysis: Analysis) -> dict[str, Any]:
    """A row an arm and seed: what each run reached, and which weights it was."""
    names = [verdict.primary(files.plan), *(n for n in ("accuracy", "auroc") if n != verdict.primary(files.plan))]
    rows = []
    for arm, seeds in files.runs.items():
        for place, (seed, folds) in enumerate(zip(files.seeds, seeds, strict=True)):
            values = [analysis.result["arms"][arm][name]["by_seed"][place] for name in names]
            cells = [key_figure(name, {"value": v}).value for name, v in zip(names, values, strict=True)]
            weights = ", ".join(str(run.metrics.get("model_sha256") or "unknown")[:12] for run in folds)
            rows.append({"name": f"{arm}, seed {seed}", "cells": cells, "weights": weights})
    return {"heads": [describe(name) for name in names], "rows": rows}


def settings(files: ComparisonFiles) -> dict[str, Any]:
    """Settings that differ between the arms, and those that all share."""
    from msmae.reporting.report import settings as flat

    of_arm = {arm: dict(flat(seeds[0][0].config)) for arm, seeds in files.runs.items()}
    names = list(dict.fromkeys(name for values in of_arm.values() for name in values if name not in ("method", "seed")))
    values = {name: [of_arm[arm].get(name, "not set") for arm in files.arms] for name in names}
    return {
        "differ": [(name, row) for name, row in values.items() if len(set(row)) > 1],
        "same": [(name, row[0]) for name, row in values.items() if len(set(row)) == 1],
    }


def cautions(files: ComparisonFiles, analysis: Analysis) -> list[str]:
    """What must be read before the numbers are believed."""
    found = [headline.SMOKE] if any(run.config.get("preset") == "tiny" for run in files.all_runs) else []
    if files.unfinished:
        found.append(f"{of(len(files.unfinished), 'run')} of the plan unfinished: {', '.join(files.unfinished)}.")
    if files.plan.get("folds"):
        found.append(
            "The folds of a seed are joined. AUROC and AUPRC then rank scores of different models together, so even "
            "a constant model may differ from 0.5."
        )
    if files.unused:
        found.append(f"Left out until every arm has the same seeds: {', '.join(files.unused)}.")
    tested = [run.metrics["splits"].get("test", {}).get("metrics", {}) for run in files.all_runs]
    balanced = [figures.get("balanced_accuracy") or {"value": 0.0} for figures in tested]
    for reason in sorted(
        {str(entry["reason"]) for entry in balanced if entry["value"] is None and entry.get("reason")}
    ):
        found.append(
            f"In the test split {reason}: the figures that compare classes, as balanced accuracy, say nothing."
        )
    units, what = (
        analysis.result["patients"],
        "patient" if analysis.result["patients"] < analysis.result["n"] else "image",
    )
    if units < headline.FEW_UNITS:
        found.append(f"The figures rest on {of(units, what)} only. Treat them as a pilot.")
    for arm, seeds in files.runs.items():
        for seed, folds in zip(files.seeds, seeds, strict=True):
            found += [f"{arm}, seed {seed}: {told}" for run in folds for told in headline.disagreement(run)]
    if other := different_software(run.environment for run in files.all_runs):
        told = "The runs were not all made with the same software"
        found.append(f"{told} ({', '.join(other)} differ). See environment.json of each run.")
    for place, seed in enumerate(files.seeds):
        known = {
            run.metrics["data_sha256"]
            for seeds in files.runs.values()
            for run in seeds[place][:1]
            if run.metrics.get("data_sha256")
        }
        if len(known) > 1:
            found.append(
                f"The runs of seed {seed} have different data fingerprints: their images or image sizes differ."
            )
    return found


BASELINES = {
    "majority": "always answers with the commonest class of the training images",
    "pca-svm": "support vector machine on principal components of the pixels",
    "resnet18": "a residual network of 18 layers, trained from scratch",
    "small-cnn": "a small convolutional network, trained from scratch",
    "efficientnet-lite0": "a convolutional network pretrained on ImageNet, fine-tuned",
}


def _arrays(frame: pd.DataFrame, files: ComparisonFiles) -> Predictions:
    return to_arrays(frame[frame["label"] != ""], classes=files.classes, multilabel=files.multilabel)


def _cells(entries: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    return [key_figure(name, entries.get(name, {})) for name in names]


def _known(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)


def _one_of(panels: Mapping[str, Panel], kind: str, classes: int) -> list[Panel]:
    """The surest panel of a kind."""
    return [panel for panel in panels.values() if outcome(panel, classes=classes) == kind][:1]
