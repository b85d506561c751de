"""RUN/report.html: one file that holds the whole evidence of a run, built from what the run saved.

The page asks for nothing outside itself (its own content policy forbids it), runs no script, escapes everything
that comes from the user, and is the same to the byte when it is built again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from msmae.files import write_whole
from msmae.reporting import headline
from msmae.reporting.render import make_page
from msmae.reporting.run_files import RunFiles, as_answered, read_run_files
from msmae.reporting.sections import budget, cases, curves, data, patients, results, segmentation
from msmae.statistics.predictions import check_columns, to_arrays


def write_report(run: str | Path) -> Path:
    """Write RUN/report.html from the files in RUN and give back its path.

    Needs no torch and nothing outside RUN. Raises ``UserError`` when the run is not finished, or when its predictions
    cannot be trusted (a missing probability, rows that do not sum to one, unknown labels).
    """
    return write_whole(Path(run) / "report.html", render(as_answered(read_run_files(Path(run)))))


def render(run: RunFiles) -> str:
    """The page, as text."""
    return make_page("report.html", **content(run))


def content(run: RunFiles) -> dict[str, Any]:
    """Everything the templates show."""
    split = headline.main_split(run.metrics)
    rows = rows_of(run, split)
    return {
        "run": run,
        "title": f"{run.name}: {run.metrics.get('arm', 'model')}",
        "split": split,
        "asked": headline.asked(run),
        "facts": headline.facts(run),
        "came_out": headline.came_out(run),
        "against_chance": headline.against_chance(run, rows),
        "rules": results.rules(run, split),
        "key_figures": headline.key_figures(run),
        "found": headline.found_by_class(run),
        "cautions": [*headline.cautions(run), *headline.worse_than_constant(run, rows), *data.warnings(run.audit)],
        "leaks": data.leaks(run.audit),
        "audit": data.audit_rows(run.audit),
        "audit_notes": data.audit_notes(run.audit),
        "understood": data.understood(run.audit),
        "table_one": data.table_one(run, labels=segmentation.labels(run)),
        "flow": data.flow(run),
        "training": curves.training(run),
        "models": run.config.get("folds"),
        "figures": results.figure_table(run),
        "per_class": results.class_table(run, split),
        "curves": curves.curves(run, rows, split),
        "calibration": results.calibration(run.metrics, split),
        "confusion": results.confusion(run, rows),
        "subgroups": results.subgroup_table(run, rows),
        "patients": patients.patients(run, split),
        "panels": cases.panels(run),
        "outlines": segmentation.outlines(run),
        "strata": segmentation.by_size(run, split),
        "empties": segmentation.empties(run, split),
        "mistakes": cases.mistakes(run, rows),
        "labels": cases.labels(run),
        "budget": budget.budget(run),
        "settings": settings(run.config),
    }


def rows_of(run: RunFiles, split: str) -> pd.DataFrame | None:
    """The labelled predictions of a split; None where there are none. ``UserError`` where any split is damaged."""
    if run.predictions is None or not run.classes:
        return None
    check_columns(run.predictions, run.classes)
    known = run.predictions[run.predictions["label"] != ""]
    to_arrays(known, classes=run.classes, multilabel=run.multilabel)  # refuses what no number can be made of, anywhere
    rows = run.predictions[(run.predictions["split"] == split) & (run.predictions["label"] != "")]
    return None if rows.empty else rows.reset_index(drop=True)


def settings(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every setting with its dotted name, in the order of the file."""
    found: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, dict):
            found += settings(value, prefix if name == "settings" else f"{prefix}{name}.")
        elif name != "format_version" and prefix != "understood.":  # which the section on the data says
            found.append((f"{prefix}{name}", "automatic" if value is None else str(value)))
    return found
