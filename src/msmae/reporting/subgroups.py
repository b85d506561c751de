"""Does it work equally well for everybody? The same figures for each site, sex, age band and other group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from msmae.reporting.cohort import groups, match_rows, patients
from msmae.statistics.predictions import to_arrays
from msmae.statistics.summary import summarise_arrays

SHOWN = ("accuracy", "balanced_accuracy", "auroc", "ece")
MOST = 6  # columns: of more columns, one would differ by chance


@dataclass(frozen=True)
class Subgroup:
    """The figures of the images with one value of one column."""

    column: str
    value: str
    n: int
    patients: int | None
    metrics: dict[str, dict[str, Any]]
    notes: tuple[str, ...]


def subgroups(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    *,
    classes: tuple[str, ...],
    multilabel: bool,
    resamples: int,
    seed: int = 0,
) -> tuple[list[Subgroup], list[str]]:
    """The figures of each group among these predictions (the labelled rows of one split), and sentences about what is
    not shown.
    """
    places = match_rows(manifest, predictions)
    found, notes = places >= 0, []
    if not found.all():
        notes.append(f"{int((~found).sum())} of {len(found)} predictions have no image in manifest.csv: left out here")
    rows = predictions[found].reset_index(drop=True)
    columns = groups(manifest)
    if len(columns) > MOST:
        notes.append(f"only the first {MOST} of {len(columns)} columns are shown")
    table = []
    for group in columns[:MOST]:
        values = group.values.iloc[places[found]].reset_index(drop=True)
        for value in [*group.order, ""]:
            inside = rows[values == value]
            if inside.empty:
                continue
            arrays = to_arrays(inside, classes=classes, multilabel=multilabel)
            summary = summarise_arrays(arrays, resamples=resamples, seed=seed)
            table.append(
                Subgroup(
                    column=group.name,
                    value=value or "not known",
                    n=summary["n"],
                    patients=patients(inside),
                    metrics={name: summary["metrics"][name] for name in SHOWN if name in summary["metrics"]},
                    notes=tuple(summary["notes"]),
                )
            )
    return table, notes
