"""From a predictions frame to the ``splits`` part of ``metrics.json``: every metric with its interval, or why it
has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from msmae.errors import UserError
from msmae.evidence.bootstrap import bootstrap, jackknife
from msmae.evidence.intervals import Interval, bca, clopper_pearson, no_interval, wilson
from msmae.evidence.metrics import Metrics, Values, prepare
from msmae.evidence.predictions import Predictions, check_columns, is_multilabel, to_arrays

PROPORTIONS = ("prevalence", "accuracy", "sensitivity", "specificity", "ppv", "npv")


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
    predictions that cannot be trusted (`to_arrays`).
    """
    check_columns(frame, classes)
    multilabel = is_multilabel(frame) if multilabel is None else multilabel
    splits = [split for split in ("test", "val", "train") if (frame["split"] == split).any()]
    splits += sorted(set(frame["split"]) - set(splits))
    if not splits:
        raise UserError("there are no predictions to evaluate", mend="check that the test split has images")
    return {
        split: _summarise_split(
            frame[frame["split"] == split],
            classes=classes,
            resamples=resamples,
            seed=seed,
            ordinal=ordinal,
            multilabel=multilabel,
        )
        for split in splits
    }


def _summarise_split(
    rows: pd.DataFrame, *, classes: Sequence[str], resamples: int, seed: int, ordinal: bool, multilabel: bool
) -> dict[str, Any]:
    labelled = rows[rows["label"] != ""]
    if labelled.empty:
        note = f"none of the {len(rows)} images has a label: nothing can be measured"
        return {"n": 0, "patients": None, "resamples": 0, "metrics": {}, "per_class": {}, "notes": [note]}
    predictions = to_arrays(labelled, classes=classes, multilabel=multilabel)
    known = labelled["patient_id"] != ""
    metrics = prepare(predictions, ordinal=ordinal)
    everyone = metrics(np.ones((1, predictions.patient_count)))
    spread = _Spread.of(metrics, predictions, resamples=resamples, seed=seed)

    overall = {
        name: _entry(value[0], spread.overall(name, value[0]), _why_undefined(name, None, predictions))
        for name, value in everyone.overall.items()
    }
    per_class = {
        label: {
            "n": int(predictions.truth[:, c].sum()),
            **{
                name: _entry(value[0, c], spread.of_class(name, value[0, c], c), _why_undefined(name, c, predictions))
                for name, value in everyone.per_class.items()
            },
        }
        for c, label in enumerate(predictions.classes)
    }
    return {
        "n": predictions.images,
        "patients": predictions.patient_count if known.any() else None,
        "resamples": resamples,
        "metrics": overall,
        "per_class": per_class,
        "notes": _notes(
            predictions, metrics, unlabelled=len(rows) - len(labelled), unknown_patients=int((~known).sum())
        ),
    }


class _Spread:
    """The bootstrap and the jackknife of one split, and from them the interval that is right for each metric."""

    def __init__(self, predictions: Predictions, draws: Values | None, left_out: Values | None) -> None:
        self.predictions, self.draws, self.left_out = predictions, draws, left_out

    @classmethod
    def of(cls, metrics: Metrics, predictions: Predictions, *, resamples: int, seed: int) -> _Spread:
        patients, width = predictions.patient_count, predictions.truth.size
        if patients < 2:
            return cls(predictions, None, None)
        return cls(
            predictions,
            bootstrap(metrics, patients=patients, width=width, resamples=resamples, seed=seed),
            jackknife(metrics, patients=patients, width=width, seed=seed),
        )

    def overall(self, name: str, value: float) -> Interval:
        if self.draws is None or self.left_out is None:
            return no_interval("only one patient")
        if name == "accuracy":
            return self._proportion(
                value,
                np.ones(self.predictions.images, dtype=bool),
                self.draws.overall[name],
                self.left_out.overall[name],
            )
        return bca(value, self.draws.overall[name], self.left_out.overall[name])

    def of_class(self, name: str, value: float, c: int) -> Interval:
        if self.draws is None or self.left_out is None:
            return no_interval("only one patient")
        draws, left_out = self.draws.per_class[name][:, c], self.left_out.per_class[name][:, c]
        if name in PROPORTIONS:
            return self._proportion(value, _judged(self.predictions, name, c), draws, left_out)
        return bca(value, draws, left_out)

    def _proportion(self, value: float, judged: np.ndarray, draws: np.ndarray, left_out: np.ndarray) -> Interval:
        """Wilson where every patient has one image; at 0 or 1, which no resample can leave, exact with a patient as
        one trial.
        """
        if np.isnan(value):
            return no_interval("undefined")
        if not self.predictions.clustered:
            return wilson(round(value * judged.sum()), int(judged.sum()))
        if value in (0.0, 1.0):
            patients = len(np.unique(self.predictions.patients[judged]))
            return clopper_pearson(value * patients, patients)
        return bca(value, draws, left_out)


def _judged(predictions: Predictions, name: str, c: int) -> np.ndarray:
    """bool [n]: the images in the denominator of a proportion of one class."""
    return {
        "prevalence": np.ones(predictions.images, dtype=bool),
        "accuracy": np.ones(predictions.images, dtype=bool),
        "sensitivity": predictions.truth[:, c],
        "specificity": ~predictions.truth[:, c],
        "ppv": predictions.predicted[:, c],
        "npv": ~predictions.predicted[:, c],
    }[name]


def _entry(value: float, interval: Interval, why_undefined: str) -> dict[str, Any]:
    if np.isnan(value):
        return {"value": None, "low": None, "high": None, "reason": why_undefined}
    entry: dict[str, Any] = {"value": float(value), "low": interval.low, "high": interval.high}
    return entry | ({"method": interval.method} if interval.reason is None else {"reason": interval.reason})


def _why_undefined(name: str, c: int | None, predictions: Predictions) -> str:
    """Why a metric may be undefined: of class c, or overall."""
    if c is None:
        return "no class has both images with it and images without it, or one answer is given to all images"
    truth, predicted = predictions.truth[:, c], predictions.predicted[:, c]
    causes = {
        "no image has this class": not truth.any(),
        "every image has this class": truth.all(),
        "no image is predicted to have this class": not predicted.any(),
        "every image is predicted to have this class": predicted.all(),
    }
    return "; ".join(cause for cause, so in causes.items() if so)


def _notes(predictions: Predictions, metrics: Metrics, *, unlabelled: int, unknown_patients: int) -> list[str]:
    names = np.array(predictions.classes, dtype=object)
    absent, silent = ~predictions.truth.any(axis=0), ~predictions.predicted.any(axis=0)
    notes = []
    if unlabelled:
        notes.append(f"{unlabelled} images without a label are left out")
    if unknown_patients:
        notes.append(
            f"{unknown_patients} of {predictions.images} images have no patient id and count as patients of their own: "
            "if patients repeat among them, the intervals are too narrow"
        )
    if absent.any():
        notes.append(f"no image of {', '.join(names[absent])}: means over classes are over the other classes")
    if (silent & ~absent).any():
        notes.append(f"never predicted: {', '.join(names[silent & ~absent])}")
    return notes
