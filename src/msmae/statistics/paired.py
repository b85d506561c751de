"""Paired comparison: runs measured on the same draws of the same patients, so that what they share cancels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msmae.errors import UserError
from msmae.statistics.intervals import bca, bca_p_value, draw_patients, entry, join, leave_out, undefined
from msmae.statistics.metrics import Metrics, Values, prepare
from msmae.statistics.predictions import Predictions, check_columns, identity_columns, is_multilabel, to_arrays


@dataclass(frozen=True)
class Resampled:
    """One run's metrics under draws of patients that are common to all runs of one `resample_together`.

    Differences between runs and means over runs are therefore made draw by draw.
    """

    metrics: Metrics
    value: Values
    """R = 1: the metrics themselves."""
    draws: Values
    """R draws of patients."""
    left_out: Values
    """G groups of patients left out."""
    patients: int
    """In all runs together."""


def matched(
    frames: Sequence[pd.DataFrame],
    *,
    classes: Sequence[str],
    split: str = "test",
    multilabel: bool | None = None,
    names: Sequence[str] = (),
) -> list[Predictions]:
    """The labelled rows of one split of several runs, as arrays with equal images in equal order.

    ``names`` of the runs are for the messages. Raises UserError unless all runs have the same images, labels and
    patients.
    """
    names = names or [f"run {number}" for number in range(1, len(frames) + 1)]
    several = any(map(is_multilabel, frames)) if multilabel is None else multilabel
    ordered = []
    for frame in frames:
        check_columns(frame, classes)
        rows = frame[(frame["split"] == split) & (frame["label"] != "")]
        if rows.empty:
            raise UserError(f"no labelled image of the {split} split", mend="evaluate the run on it first")
        ordered.append(rows.sort_values(identity_columns(rows)).reset_index(drop=True))
    same = [*identity_columns(ordered[0]), "label", "patient_id"]
    for name, rows in zip(names[1:], ordered[1:], strict=True):
        if not (identity_columns(rows) == same[:-2] and rows[same].equals(ordered[0][same])):
            raise UserError(
                f"{names[0]} and {name} cannot be compared: their {split} images, labels or patients differ",
                where=f"{len(ordered[0])} and {len(rows)} images",
                mend="evaluate both on the same manifest and split",
            )
    return [to_arrays(rows, classes=classes, multilabel=several) for rows in ordered]


def resample_together(
    runs: Sequence[Predictions], *, resamples: int = 2000, seed: int = 0, ordinal: bool = False, areas: bool = True
) -> list[Resampled]:
    """Evaluate every run under the same draws from the patients of all of them.

    Runs may be on different patients: a patient drawn twice counts twice wherever it is. Without ``areas`` (under
    curves) it takes a fraction of the time. Raises UserError with one patient.
    """
    everyone = np.unique(np.concatenate([run.patient_names for run in runs]))
    if len(everyone) < 2:
        raise UserError("the test split has one patient only", mend="a comparison needs at least two")
    members = [np.searchsorted(everyone, run.patient_names) for run in runs]
    prepared = [prepare(run, ordinal=ordinal) for run in runs]
    width = max(metrics.width for metrics in prepared)
    chunks = draw_patients(len(everyone), width=width, resamples=resamples, seed=seed)
    pairs = list(zip(prepared, members, strict=True))
    parts = [[metrics(drawn[:, who], areas=areas) for metrics, who in pairs] for drawn in chunks]
    chunks = leave_out(len(everyone), width=width, seed=seed)
    lacking = [[metrics(kept[:, who], areas=areas) for metrics, who in pairs] for kept in chunks]
    return [
        Resampled(
            metrics=metrics,
            value=metrics.as_is(),
            draws=join([part[number] for part in parts]),
            left_out=join([part[number] for part in lacking]),
            patients=len(everyone),
        )
        for number, metrics in enumerate(prepared)
    ]


def difference(a: Resampled, b: Resampled, name: str) -> dict[str, Any]:
    """One metric of run a minus that of run b, with BCa interval and p-value."""
    reason = not_comparable(a, b, name)
    if reason:
        return undefined(reason) | {"p_value": None}
    value = float(a.value.overall[name][0] - b.value.overall[name][0])
    draws = a.draws.overall[name] - b.draws.overall[name]
    left_out = a.left_out.overall[name] - b.left_out.overall[name]
    interval = bca(value, draws, left_out, units=a.patients)
    return entry(value, interval) | {"p_value": bca_p_value(draws, left_out, value, units=a.patients)}


def not_comparable(a: Resampled, b: Resampled, name: str) -> str | None:
    """Why a metric of two runs cannot be subtracted, if so."""
    if np.isnan(a.value.overall[name][0] - b.value.overall[name][0]):
        return "undefined for one of the two"
    over_a, over_b = a.metrics.averaged.get(name), b.metrics.averaged.get(name)
    if over_a is not None and over_b is not None and not np.array_equal(over_a, over_b):
        return "the two means are over different classes: one run never predicts some class"
    return None
