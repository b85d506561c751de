"""RUN/report.html: one file that holds the whole evidence of a run, built from what the run saved.

The page asks for nothing outside itself (its own content policy forbids it), runs no script, escapes everything
that comes from the user, and is the same to the byte when it is built again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from msmae.evidence import cases, cohort, headline, wording
from msmae.evidence.predictions import Predictions, check_columns, to_arrays
from msmae.evidence.reliability import reliability
from msmae.evidence.run_files import Panel, RunFiles, read_run_files
from msmae.evidence.subgroups import subgroups

TEMPLATES = Path(__file__).parent / "templates"
OVERVIEW = 8
"""Curves in one picture; with more classes the others stand in the class-by-class pictures only."""
DETAILED = 30
"""Classes with pictures of their own, the commonest first."""
RESAMPLES = 500
"""Of bands and subgroups; the figures themselves come from metrics.json."""
PICTURES = 5_000_000
"""Bytes of panels that go into the page."""
PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc")


def write_report(run: str | Path) -> Path:
    """Write RUN/report.html from the files in RUN and give back its path.

    Needs no torch and nothing outside RUN. Raises ``UserError`` when the run is not finished, or when its predictions
    cannot be trusted (a missing probability, rows that do not sum to one, unknown labels).
    """
    run = Path(run)
    page = render(read_run_files(run))
    target = run / "report.html"
    unfinished = run / "report.html.part"
    unfinished.write_bytes(page.encode("utf-8", "backslashreplace"))
    os.replace(unfinished, target)
    return target


def render(run: RunFiles) -> str:
    """The page, as text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "svg": Markup,  # only what `figures` drew goes through it
        "count": wording.count,
        "split": wording.split_name,
        "duration": wording.duration,
        "significant": wording.significant,
        "readable": cases.readable,
    }
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template("report.html").render(css=css, **content(run))


def content(run: RunFiles) -> dict[str, Any]:
    """Everything the template shows."""
    split = headline.main_split(run.metrics)
    rows = rows_of(run, split)
    return {
        "run": run,
        "title": f"{run.name}: {run.metrics.get('arm', 'model')}",
        "split": split,
        "asked": headline.asked(run),
        "sizes": headline.sizes(run),
        "came_out": headline.came_out(run),
        "baseline": headline.baseline(rows, multilabel=run.multilabel),
        "key_figures": headline.key_figures(run),
        "found": headline.found_by_class(run),
        "cautions": headline.cautions(run),
        "leaks": headline.leaks(run.audit),
        "audit": audit_rows(run.audit),
        "table_one": table_one(run),
        "flow": flow(run),
        "training": training(run),
        "figures": figure_table(run),
        "per_class": class_table(run, split),
        "curves": curves(run, rows),
        "confusion": confusion(run, rows),
        "subgroups": subgroup_table(run, rows),
        "panels": panels(run),
        "failures": failures(run, rows),
        "settings": settings(run.config),
    }


def rows_of(run: RunFiles, split: str) -> pd.DataFrame | None:
    """The labelled predictions of a split; None where there are none with probabilities."""
    if run.predictions is None or not run.classes:
        return None
    check_columns(run.predictions, run.classes)
    rows = run.predictions
    rows = rows[(rows["split"] == split) & (rows["label"] != "")].reset_index(drop=True)
    return None if rows.empty else rows


def flow(run: RunFiles) -> list[dict[str, Any]]:
    """The boxes of the data flow: a split, its size, and its share of the images in percent."""
    if run.manifest is None:
        return []
    table = run.manifest
    return [
        {
            "split": split,
            "name": wording.split_name(split),
            "size": cohort.sentence(table[table["split"] == split]),
            "share": round(100 * float((table["split"] == split).mean()), 1),
        }
        for split in cohort.split_order(table)
    ]


def table_one(run: RunFiles) -> dict[str, Any] | None:
    """Heads and rows of table 1."""
    if run.manifest is None:
        return None
    heads, rows = cohort.table_one(run.manifest, classes=run.classes, multilabel=run.multilabel)
    return {"heads": heads, "rows": rows}


AUDIT = {
    "images": "images",
    "patients": "patients",
    "masks": "masks",
    "unreadable": "unreadable files",
    "constant": "images of one colour",
    "identical_pairs": "pairs of images with the same pixels",
    "test_identical_to_pool": "test images with the pixels of an image the model learned from",
    "test_near_pool": "test images nearly the same as one the model learned from",
    "label_conflicts": "images that occur with different labels",
    "patients_crossing": "patients on both sides of the split",
}


def audit_rows(audit: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the audit counted, in words."""
    if audit is None:
        return []
    return [(name, wording.count(headline.amount_of(audit[key]))) for key, name in AUDIT.items() if key in audit]


def training(run: RunFiles) -> list[dict[str, Any]]:
    """For each stage its curves."""
    from msmae.evidence.figures.training import by_panel, training_figure

    names = {"pretrain": "Pre-training", "finetune": "Fine-tuning"}
    return [
        {
            "stage": names.get(stage, stage),
            "figures": [
                training_figure(quantity, series, stage=names.get(stage, stage))
                for quantity, series in by_panel(log).items()
            ],
        }
        for stage, log in run.logs.items()
    ]


def figure_table(run: RunFiles) -> dict[str, Any]:
    """Every figure of every split."""
    splits = run.metrics["splits"]
    names = list(dict.fromkeys(name for split in splits.values() for name in split["metrics"]))
    known = [name for name in wording.FIGURES if name in names]
    rows = [
        {
            "figure": wording.describe(name),
            "cells": [headline.key_figure(name, split["metrics"].get(name, {})) for split in splits.values()],
        }
        for name in [*known, *(name for name in names if name not in known)]
    ]
    return {"heads": [(wording.split_name(name), split) for name, split in splits.items()], "rows": rows}


def class_table(run: RunFiles, split: str) -> dict[str, Any]:
    """The figures of each class."""
    per_class = run.metrics["splits"][split].get("per_class") or {}
    names = [name for name in PER_CLASS if any(name in entry for entry in per_class.values())]
    rows = [
        {
            "name": label,
            "n": entry.get("n"),
            "cells": [headline.key_figure(name, entry.get(name, {})) for name in names],
        }
        for label, entry in per_class.items()
    ]
    return {"heads": [wording.describe(name) for name in names], "rows": rows}


def curves(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """ROC, precision-recall and reliability: the commonest classes together, then each class alone."""
    if rows is None:
        return None
    from msmae.evidence.figures.bands import precision_recall, roc
    from msmae.evidence.figures.curves import precision_recall_figure, roc_figure
    from msmae.evidence.figures.reliability import biggest_gap, reliability_figure

    predictions = to_arrays(rows, classes=run.classes, multilabel=run.multilabel)
    names = by_frequency(predictions)[:DETAILED]
    found = {name: roc(predictions, of=name, resamples=RESAMPLES) for name in names}
    rocs = {name: curve for name, curve in found.items() if curve is not None}
    recalls = {
        name: curve
        for name in rocs
        if (curve := precision_recall(predictions, of=name, resamples=RESAMPLES)) is not None
    }
    together = [name for name in run.classes if name in list(rocs)[:OVERVIEW]]
    bins = reliability(predictions)
    return {
        "roc": roc_figure({name: rocs[name] for name in together}) if together else None,
        "pr": precision_recall_figure({name: recalls[name] for name in together}) if together else None,
        "reliability": reliability_figure(bins),
        "gap": biggest_gap(bins),
        "together": together,
        "resamples": next(iter(rocs.values())).resamples if rocs else 0,
        "left_out": [name for name in run.classes if name not in rocs],
        "alone": [
            {
                "name": name,
                "figures": [
                    roc_figure({name: rocs[name]}),
                    precision_recall_figure({name: recalls[name]}),
                    reliability_figure(reliability(predictions, of=name), of=name),
                ],
            }
            for name in run.classes
            if name in rocs
        ],
    }


def by_frequency(predictions: Predictions) -> list[str]:
    """The classes, the commonest first."""
    counts = predictions.truth.sum(axis=0)
    return sorted(predictions.classes, key=lambda name: -counts[predictions.classes.index(name)])


def confusion(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """The confusion matrix with each cell's share of its row."""
    if rows is None or run.multilabel:
        return None
    table = cases.confusion(rows, run.classes)
    return {
        "classes": run.classes,
        "rows": [
            {"name": name, "n": int(line.sum()), "cells": [(int(n), _share(n, line.sum())) for n in line]}
            for name, line in zip(run.classes, table, strict=True)
        ],
    }


def subgroup_table(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """The figures of each subgroup of the main split."""
    if rows is None or run.manifest is None:
        return None
    found, notes = subgroups(rows, run.manifest, classes=run.classes, multilabel=run.multilabel, resamples=RESAMPLES)
    names = list(dict.fromkeys(name for group in found for name in group.metrics))
    return {
        "heads": [wording.describe(name) for name in names],
        "rows": [
            {
                "group": group,
                "cells": [headline.key_figure(name, group.metrics.get(name, {})) for name in names],
            }
            for group in found
        ],
        "notes": notes,
    }


def panels(run: RunFiles) -> dict[str, Any]:
    """The attention panels that fit into the page, by outcome."""
    kinds = {
        "wrong": "Wrong answers",
        "uncertain": "Right, but uncertain",
        "right": "Right answers",
        "unlabelled": "Outcome not known",
    }
    sorted_panels = cases.sort_panels(run.panels, classes=len(run.classes))
    fitting = _fitting(panel for group in _in_turn(sorted_panels.values()) for panel in group)
    return {
        "groups": [
            {"title": kinds[kind], "panels": [panel for panel in members if panel in fitting]}
            for kind, members in sorted_panels.items()
        ],
        "left_out": len(run.panels) - len(fitting),
    }


def failures(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """The surest mistakes."""
    if rows is None:
        return None
    found = cases.failures(rows, classes=run.classes, multilabel=run.multilabel, panels=run.panels)
    return {"all": len(found), "n": len(rows), "shown": found[: cases.SHOWN]}


def settings(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every setting with its dotted name, in the order of the file."""
    found: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, dict):
            found += settings(value, prefix if name == "settings" else f"{prefix}{name}.")
        elif name != "format_version":
            found.append((f"{prefix}{name}", "automatic" if value is None else str(value)))
    return found


def _share(part: int, whole: int) -> float | None:
    return None if whole == 0 else round(100 * part / whole, 1)


def _in_turn(groups: Iterable[list[Panel]]) -> list[list[Panel]]:
    """The first of each group, then the second of each, ..."""
    lists = list(groups)
    longest = max((len(members) for members in lists), default=0)
    return [[members[i] for members in lists if i < len(members)] for i in range(longest)]


def _fitting(candidates: Iterable[Panel]) -> list[Panel]:
    """As many panels as fit, taken in order."""
    room, chosen = PICTURES, []
    for panel in candidates:
        size = panel.picture.stat().st_size
        if size <= room:
            chosen.append(panel)
            room -= size
    return chosen
