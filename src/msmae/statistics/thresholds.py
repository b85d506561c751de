"""What a threshold does: operating points, chosen on validation and measured on test, and the decision curve.

A class is called present when its probability is at least the threshold. An operating point lies halfway between two
neighbouring validation scores: what it promises on validation holds there exactly, and neither side is favoured on new
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msmae.errors import UserError, count
from msmae.statistics.intervals import LEVEL, draw_patients
from msmae.statistics.predictions import Predictions, check_columns, class_index, is_multilabel, to_arrays
from msmae.statistics.summary import summarise_arrays

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))
REPORTED = ("sensitivity", "specificity", "ppv", "npv", "f1", "balanced_accuracy", "accuracy")


@dataclass(frozen=True)
class Sweep:
    """What every possible threshold of one question does, from the highest down: k thresholds."""

    thresholds: np.ndarray
    """float64 [k], descending: the distinct scores."""
    found: np.ndarray
    """int64 [k]: images with the class that score at least the threshold."""
    alarms: np.ndarray
    """int64 [k]: images without it that do."""
    positives: int
    negatives: int

    @property
    def sensitivity(self) -> np.ndarray:
        return self.found / self.positives

    @property
    def specificity(self) -> np.ndarray:
        return 1 - self.alarms / self.negatives

    def halfway(self, k: int) -> float:
        """The threshold halfway from the k-th score to the next lower one; of the lowest, that score itself."""
        score, lower = self.thresholds[k], self.thresholds[min(k + 1, len(self.thresholds) - 1)]
        middle = (score + lower) / 2
        return float(middle if middle > lower else score)  # neighbouring numbers have no middle


def sweep(scores: np.ndarray, truth: np.ndarray) -> Sweep:
    """Count at every distinct score: scores [n], truth bool [n]. Raises UserError unless both outcomes occur."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if positives == 0 or negatives == 0:
        raise UserError(
            f"a threshold cannot be chosen from {count(positives, 'image')} with the class and {negatives} without it",
            mend="the validation split needs some of both",
        )
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return Sweep(
        thresholds=scores[order][last_of_tie],
        found=np.cumsum(truth[order])[last_of_tie],
        alarms=np.cumsum(~truth[order])[last_of_tie],
        positives=positives,
        negatives=negatives,
    )


def youden(at: Sweep) -> float:
    """Most sensitivity + specificity; of equals the highest threshold (fewest alarms)."""
    # in whole numbers, so that equals are equal
    return at.halfway(int(np.argmax(at.found * at.negatives - at.alarms * at.positives)))


def target_sensitivity(at: Sweep, target: float) -> float:
    """The threshold with the best specificity of those that find at least the share ``target`` of the class; of equals
    the lowest, which finds most."""
    if not 0 < target <= 1:
        raise UserError(f"a target sensitivity of {target}", mend="give a share above 0 and at most 1, such as 0.95")
    enough = np.argmax(at.sensitivity >= target)
    return at.halfway(int(np.flatnonzero(at.alarms == at.alarms[enough])[-1]))


def operating_points(
    frame: pd.DataFrame,
    *,
    classes: Sequence[str],
    of: str,
    sensitivities: Sequence[float] = (0.90, 0.95),
    report: str = "test",
    multilabel: bool | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Choose thresholds for one class on the validation rows, and measure them on the rows of the split ``report``.

    Returns, for Youden's point and each target sensitivity, ``{"rule", "of", "threshold", "chosen_on": "val", "val":
    {"n", "sensitivity", "specificity"}, report: {"n", "patients", "metrics"}}``; ``metrics`` are entries as
    `summarise` gives them.
    """
    check_columns(frame, classes)
    multilabel = is_multilabel(frame) if multilabel is None else multilabel
    c = class_index(classes, of)

    def rows(split: str) -> Predictions:
        chosen = frame[(frame["split"] == split) & (frame["label"] != "")]
        if chosen.empty:
            raise UserError(
                f"no labelled image of the {split} split", mend="operating points need validation and test images"
            )
        return to_arrays(chosen, classes=classes, multilabel=multilabel).about(c)

    validation, test = rows("val"), rows(report)
    at = sweep(validation.probabilities[:, c], validation.truth[:, c])
    rules = {"youden": youden(at)}
    rules |= {f"sensitivity >= {target:g}": target_sensitivity(at, target) for target in sensitivities}
    return [
        {
            "rule": rule,
            "of": of,
            "threshold": threshold,
            "chosen_on": "val",
            "val": {"n": validation.images, **_shares(validation, c, threshold)},
            report: _measure(test, c, threshold, resamples=resamples, seed=seed),
        }
        for rule, threshold in rules.items()
    ]


def one_against_rest(predictions: Predictions, c: int, threshold: float) -> Predictions:
    """The question "class c or not" at a threshold, as predictions of two classes ("rest", the class)."""
    predictions = predictions.about(c)
    score, truth = predictions.probabilities[:, c], predictions.truth[:, c]
    called = score >= threshold
    return Predictions(
        classes=("rest", predictions.classes[c]),
        truth=np.stack([~truth, truth], axis=1),
        predicted=np.stack([~called, called], axis=1),
        probabilities=np.stack([1 - score, score], axis=1),
        patients=predictions.patients,
        patient_names=predictions.patient_names,
        multilabel=False,
    )


def _measure(predictions: Predictions, c: int, threshold: float, *, resamples: int, seed: int) -> dict[str, Any]:
    question = one_against_rest(predictions, c, threshold)
    numbers = summarise_arrays(question, resamples=resamples, seed=seed)["per_class"][predictions.classes[c]]
    return {
        "n": predictions.images,
        "patients": predictions.patient_count,
        "metrics": {name: numbers[name] for name in REPORTED},
    }


def _shares(predictions: Predictions, c: int, threshold: float) -> dict[str, float]:
    called, truth = predictions.probabilities[:, c] >= threshold, predictions.truth[:, c]
    return {"sensitivity": float(called[truth].mean()), "specificity": float((~called[~truth]).mean())}


def decision_curve(
    predictions: Predictions,
    *,
    of: str,
    thresholds: tuple[float, ...] = THRESHOLDS,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Net benefit of calling the class ``of`` present at each threshold probability t, an image.

    Net benefit = true positives / n - false positives / n x t / (1 - t): true findings, less the false alarms that
    somebody who acts at a risk of t would put up with for one finding. It needs calibrated probabilities. Columns:
    ``threshold``, ``model``, ``low``, ``high`` (95 % percentiles over patients; nan with one patient),
    ``treat_all``, ``treat_none`` (0).
    """
    at = np.asarray(thresholds, dtype=np.float64)
    if not ((at > 0) & (at < 1)).all():
        raise UserError("a threshold probability outside 0..1", mend="give numbers strictly between 0 and 1")
    c = class_index(predictions.classes, of)
    predictions = predictions.about(c)
    truth, score = predictions.truth[:, c], predictions.probabilities[:, c]
    odds = at / (1 - at)
    worth = np.where(truth[:, None], 1.0, -odds)  # of calling an image present, [n, T]
    benefit = np.zeros((predictions.patient_count, len(at)))
    np.add.at(benefit, predictions.patients, worth * (score[:, None] >= at))  # [P, T]
    images = np.bincount(predictions.patients, minlength=predictions.patient_count)  # [P]
    low, high = _band(benefit, images, resamples=resamples, seed=seed)
    return pd.DataFrame(
        {
            "threshold": at,
            "model": benefit.sum(axis=0) / predictions.images,
            "low": low,
            "high": high,
            "treat_all": worth.mean(axis=0),
            "treat_none": 0.0,
        }
    )


def _band(benefit: np.ndarray, images: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Percentiles of the mean benefit, [2, T], from each patient's sums [P, T] and images [P]."""
    patients, width = benefit.shape
    if patients < 2:
        return np.full((2, width), np.nan)
    drawn = [
        (weights @ benefit) / (weights @ images)[:, None]
        for weights in draw_patients(patients, width=width, resamples=resamples, seed=seed)
    ]
    return np.asarray(np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))
