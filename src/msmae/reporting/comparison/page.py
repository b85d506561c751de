"""A comparison's page, its table to quote and its table to compute with, from the folder's saved files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.files import fill_csv, whole, write_whole
from msmae.reporting.comparison import sections, verdict
from msmae.reporting.comparison.analysis import RESAMPLES, Analysis, analyse, as_table
from msmae.reporting.comparison.files import ComparisonFiles, read_comparison
from msmae.reporting.render import make_page, render
from msmae.reporting.sections import data
from msmae.reporting.wording import describe, figure_interval, figure_reason, figure_value

DIGITS = "%.10g"
"""How numbers are written to table.csv: the last digits of a sum depend on the number of threads."""

EQUAL = {
    "epochs": "with equally many epochs",
    "gmacs": "at an equal number of multiply-accumulates in training",
    "seconds": "in equal training time",
}
"""What the arms had in common, by the kind of the budget."""


def write_comparison(folder: str | Path, *, resamples: int = RESAMPLES) -> Path:
    """Write FOLDER/report.html, comparison_table.md and table.csv, and give back the page's path.

    The figure that decides is printed, a line an arm, and the result in words.

    Needs no torch. Raises ``UserError`` when there is no comparison, no arm has finished a seed, runs
    were evaluated on different test images, or predictions cannot be trusted.
    """
    folder = Path(folder)
    files = read_comparison(folder)
    analysis = analyse(files, resamples=resamples)
    shown = content(files, analysis)
    metric, width = verdict.primary(files.plan), max(map(len, files.arms))
    for arm, entries in analysis.result["arms"].items():
        reach = figure_interval(metric, entries[metric]) or figure_reason(entries[metric])
        print(f"  {arm:{width}}  {describe(metric).name} {figure_value(metric, entries[metric])} ({reach})")
    print(shown["came_out"])
    page, table = make_page("comparison.html", **shown), render("comparison_table.md", **shown)
    with whole(folder / "table.csv") as unfinished:
        fill_csv(unfinished, as_table(files, analysis), float_format=DIGITS)
    write_whole(folder / "comparison_table.md", table)
    return write_whole(folder / "report.html", page)


def content(files: ComparisonFiles, analysis: Analysis) -> dict[str, Any]:
    """Everything the templates show."""
    metric = verdict.primary(files.plan)
    found = analysis.result
    return {
        "run": files,  # what the section on the data calls it
        "title": f"{files.name}: "
        + (f"comparison of {len(files.arms)} arms" if len(files.arms) > 1 else files.arms[0]),
        "equal": EQUAL.get(str((files.plan.get("budget") or {}).get("kind")), "at an equal budget"),
        "budget": str((files.plan.get("budget") or {}).get("statement") or "The budget of the runs was not recorded."),
        "metric": describe(metric),
        "came_out": verdict.headline(found, found["differences"], metric),
        "answers": verdict.answers(analysis.planned, metric),
        "how_sure": verdict.how_sure(found, analysis.planned, metric),
        "images": found["n"],
        "patients": found["patients"] if found["patients"] < found["n"] else None,
        "cautions": [*sections.cautions(files, analysis), *data.warnings(files.audit)],
        "means": sections.means(files, analysis),
        "cheap": sections.cheap(files, analysis),
        "units": sections.units(files, analysis),
        "planned": sections.differences(files, analysis.planned),
        "every_pair": sections.differences(files, found["differences"]),
        "costs": sections.costs(files),
        "pictures": sections.pictures(files, analysis),
        "masks": sections.masks(files),
        "runs": sections.runs(files, analysis),
        "settings": sections.settings(files),
        "leaks": data.leaks(files.audit),
        "audit": data.audit_rows(files.audit),
        "audit_notes": data.audit_notes(files.audit),
        "understood": data.understood(files.audit),
        "table_one": data.table_one(files),
        "flow": data.flow(files),
    }
