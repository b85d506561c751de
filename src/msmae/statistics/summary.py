"""From a predictions frame to the ``splits`` part of ``metrics.json``: every metric with its interval, or why it
has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from msmae.errors import UserError, count
from msmae.statistics.answers import OF_PROBABILITIES, PLAIN
from msmae.statistics.intervals import entry, undefined
from msmae.statistics.metrics import prepare
from msmae.statistics.predictions import (
    Predictions,
    check_columns,
    cluster_count,
    is_multilabel,
    names_patient,
    to_arrays,
)
from msmae.statistics.reliability import calibration_line
from msmae.statistics.uncertainty import ONE_PATIENT, resample


def summarise(
    frame: pd.DataFrame,
    *,
    classes: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    ordinal: bool = False,
    multilabel: bool | None = None,
) -> dict[str, dict[str, Any]]:
    """All metrics of every split in a predictions frame, ready for JSON.

    Returns ``{split: {"n", "patients", "resamples", "metrics": {name: entry}, "per_class": {class: {"n", name:
    entry}}, "notes"}}`` where an entry is ``{"value", "low", "high", "method"}`` (95 %), or has None for what is
    undefined and then a ``"reason"``. ``patients`` is None when no image has a patient. ``notes`` are sentences
    that belong beside the numbers. ``ordinal`` says that ``classes`` are in order; ``multilabel`` is found from
    ``;`` in the labels unless given. Rows without a label are counted in a note and left out. Raises UserError for
    predictions that cannot be trusted: see `check_columns` and `to_arrays`.
    """
    check_columns(frame, classes)
    if frame.empty:
        raise UserError("there are no predictions to evaluate", mend="check that the test split has images")
    multilabel = is_multilabel(frame) if multilabel is None else multilabel
    present = set(frame["split"])
    known = [split for split in ("test", "val", "train") if split in present]
    return {
        split: summarise_rows(
            frame[frame["split"] == split],
            classes=classes,
            resamples=resamples,
            seed=seed,
            ordinal=ordinal,
            multilabel=multilabel,
        )
        for split in [*known, *sorted(present.difference(known))]
    }


def with_both_rules(
    splits: Mapping[str, dict[str, Any]],
    frame: pd.DataFrame,
    *,
    classes: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    ordinal: bool = False,
    multilabel: bool,
) -> dict[str, dict[str, Any]]:
    """``splits`` of `summarise`, each with ``"plain": {"metrics", "per_class", "notes"}``: those of the answers in the
    column ``predicted_plain``, as far as they depend on the answers.
    """
    found = {}
    for name, split in splits.items():
        rows = frame[frame["split"] == name]
        figures = split
        if not rows["predicted"].equals(rows[PLAIN]):
            figures = summarise_rows(
                rows.assign(predicted=rows[PLAIN]),
                classes=classes,
                resamples=resamples,
                seed=seed,
                ordinal=ordinal,
                multilabel=multilabel,
                areas=False,
            )
        plain = {
            "metrics": _of_answers(figures["metrics"]),
            "per_class": {label: _of_answers(entries) for label, entries in figures["per_class"].items()},
            "notes": list(figures["notes"]),
        }
        found[name] = {**split, "plain": plain}
    return found


def figures_by(split: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """A split of metrics.json with its ``metrics``, ``per_class`` and ``notes`` by this rule, where it holds both."""
    plain = split.get("plain")
    if rule != "plain" or plain is None:
        return dict(split)
    per_class = {label: entries | plain["per_class"].get(label, {}) for label, entries in split["per_class"].items()}
    return {**split, "metrics": split["metrics"] | plain["metrics"], "per_class": per_class, "notes": plain["notes"]}


def _of_answers(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if name not in OF_PROBABILITIES}


def summarise_rows(
    rows: pd.DataFrame,
    *,
    classes: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    ordinal: bool = False,
    multilabel: bool,
    areas: bool = True,
) -> dict[str, Any]:
    """What `summarise` says of one split, of any rows of a checked frame: a site, an age band."""
    labelled = rows[rows["label"] != ""]
    if labelled.empty:
        note = f"no image of {len(rows):,} has a label: nothing can be measured"
        return {"n": 0, "patients": None, "resamples": 0, "metrics": {}, "per_class": {}, "notes": [note]}
    predictions = to_arrays(labelled, classes=classes, multilabel=multilabel)
    summary = summarise_arrays(predictions, resamples=resamples, seed=seed, ordinal=ordinal, areas=areas)
    nameless, clusters = int((~names_patient(labelled)).sum()), cluster_count(labelled)
    if nameless == predictions.images:
        summary["patients"] = None
    if clusters:
        summary["clusters"] = clusters
    summary["notes"] += _notes_on_rows(
        unlabelled=len(rows) - len(labelled), nameless=nameless, images=predictions.images, clusters=clusters
    )
    return summary


def summarise_arrays(
    predictions: Predictions, *, resamples: int = 2000, seed: int = 0, ordinal: bool = False, areas: bool = True
) -> dict[str, Any]:
    """What `summarise` says of one split, from arrays; without ``areas`` (under curves) in a fraction of the time."""
    metrics = prepare(predictions, ordinal=ordinal)
    values = metrics.as_is(areas=areas)
    enough = predictions.patient_count > 1
    uncertainty = resample(metrics, predictions, resamples=resamples, seed=seed, areas=areas) if enough else None

    alone = one_class(predictions)

    def overall(name: str, value: float) -> dict[str, Any]:
        if alone and name not in OF_ONE_CLASS:
            return undefined(f"every image is of one class, {alone}")
        if np.isnan(value):
            return undefined(_why_undefined(name))
        return entry(value, uncertainty.overall(name, value) if uncertainty else ONE_PATIENT)

    def of_class(name: str, value: float, c: int) -> dict[str, Any]:
        if np.isnan(value):
            return undefined(_why_undefined_for(predictions, c))
        return entry(value, uncertainty.of_class(name, value, c) if uncertainty else ONE_PATIENT)

    return {
        "n": predictions.images,
        "patients": predictions.patient_count,
        "resamples": resamples if enough else 0,
        "metrics": {name: overall(name, value[0]) for name, value in values.overall.items()},
        "per_class": {
            label: {"n": int(predictions.truth[:, c].sum())}
            | {name: of_class(name, value[0, c], c) for name, value in values.per_class.items()}
            | _line(predictions.about(c), c)
            for c, label in enumerate(predictions.classes)
        },
        "notes": _notes_on_classes(predictions),
    }


OF_ONE_CLASS = frozenset({"accuracy", "brier", "log_loss", "ece", "mean_absolute_error"})
"""What is still a figure where every image is of one class; all others compare classes."""


def one_class(predictions: Predictions) -> str:
    """The class of every image, where there is only one; ``""`` otherwise, and where images carry several labels."""
    present = np.flatnonzero(predictions.truth.any(axis=0))
    return predictions.classes[present[0]] if len(present) == 1 and not predictions.multilabel else ""


def _line(predictions: Predictions, c: int) -> dict[str, Any]:
    """Slope and intercept of the calibration of class c."""
    return calibration_line(predictions.probabilities[:, c], predictions.truth[:, c], predictions.patients)


def _why_undefined(name: str) -> str:
    if name in ("mcc", "kappa", "kappa_quadratic"):
        return "all images have one class, or all are predicted to have one class"
    if name == "f1_micro":
        return "no image has any label, and none is predicted"
    return "no class has both images with it and images without it, or none of those is ever predicted"


def _why_undefined_for(predictions: Predictions, c: int) -> str:
    predictions = predictions.about(c)
    truth, predicted = predictions.truth[:, c], predictions.predicted[:, c]
    causes = {
        "of no image it is known whether it has this class": not len(truth),
        "no image has this class": not truth.any(),
        "every image has this class": len(truth) and truth.all(),
        "no image is predicted to have this class": not predicted.any(),
        "every image is predicted to have this class": len(truth) and predicted.all(),
    }
    return "; ".join(cause for cause, so in causes.items() if so)


def _notes_on_rows(*, unlabelled: int, nameless: int, images: int, clusters: int) -> list[str]:
    notes = []
    if unlabelled:
        notes.append(f"left out, without a label: {count(unlabelled, 'image')}")
    if nameless:
        together = f", except those of {count(clusters, 'cluster')} of near-identical images" if clusters else ""
        notes.append(
            f"no patient id: {nameless:,} of {count(images, 'image')}. Each counts as a patient{together}: if patients "
            "repeat, the intervals are too narrow"
        )
    return notes


def _notes_on_classes(predictions: Predictions) -> list[str]:
    names = np.array(predictions.classes, dtype=object)
    absent, unpredicted = ~predictions.truth.any(axis=0), ~predictions.predicted.any(axis=0)
    notes = []
    unsure = int((~predictions.judged).sum())
    if unsure:
        notes.append(
            f"not known (? in the label), and left out of the figures of their class: {count(unsure, 'label')}"
        )
    if alone := one_class(predictions):
        notes.append(f"every image is of one class, {alone}: figures that compare classes are left out")
    elif absent.any():
        notes.append(f"no image of {', '.join(names[absent])}: means over classes are over the other classes")
    if (unpredicted & ~absent).any():
        notes.append(f"never predicted: {', '.join(names[unpredicted & ~absent])}")
    return notes
