"""Recalibration: probabilities that mean what they say, fitted on the validation images only.

All forms are one: p -> softmax(scale * log p + bias), or for several labels per image sigmoid(scale * logit p + bias).

- temperature (Guo et al. 2017): one scale for all classes, no bias; the ranking of the classes of an image does not
  change;
- class weights: a model trained with cross-entropy weighted w_c estimates probabilities proportional to w_c p_c, so
  log w_c is taken off again before anything is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, softmax

from msmae.errors import UserError
from msmae.statistics.metrics import prepare
from msmae.statistics.predictions import PREFIX, check_columns, is_multilabel, to_arrays

SCALES = (1 / 20, 20.0)  # temperatures from 20 down to 1/20
TINY = float(np.finfo(np.float32).tiny)  # below it a float32 softmax is rounding
Method = Literal["none", "temperature"]


@dataclass(frozen=True)
class Calibrator:
    """Turns the model's probabilities into calibrated ones; plain numbers, so it can be kept in JSON."""

    method: Method
    scale: tuple[float, ...]
    """One a class; 1 / temperature when they are equal."""
    bias: tuple[float, ...]
    multilabel: bool
    images: int
    """Validation images it was fitted on."""
    note: str | None = None
    """What a person should know about the fit."""

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [n, C] for the model's [n, C]."""
        logits = _logits(probabilities, multilabel=self.multilabel) * self.scale + self.bias
        return np.asarray(expit(logits) if self.multilabel else softmax(logits, axis=1))


def fit_calibrator(
    probabilities: np.ndarray,
    truth: np.ndarray,
    *,
    method: Method = "temperature",
    class_weights: Sequence[float] | None = None,
    multilabel: bool = False,
) -> Calibrator:
    """Fit on validation images by maximum likelihood: probabilities [n, C], truth [n, C] 0 and 1, nan if
    not known.

    ``class_weights`` (positive, one a class): those of the training loss, undone first; for several labels per image
    the weight of the positive part.
    """
    if class_weights is not None and (len(class_weights) != truth.shape[1] or min(class_weights) <= 0):
        raise UserError(
            f"{len(class_weights)} class weights {tuple(class_weights)} for {truth.shape[1]} classes",
            mend="give one positive weight for each class, those that the training loss used",
        )
    shift = np.zeros(truth.shape[1]) if class_weights is None else -np.log(np.asarray(class_weights, dtype=np.float64))
    logits = _logits(probabilities, multilabel=multilabel) + shift  # [n, C]
    scale, note = np.ones(truth.shape[1]), None
    if method == "temperature":
        common, note = _fit_temperature(logits, truth, multilabel=multilabel)
        scale = np.full(truth.shape[1], common)
    return Calibrator(
        method=method,
        scale=tuple(scale.tolist()),
        bias=tuple((scale * shift).tolist()),
        multilabel=multilabel,
        images=len(truth),
        note=note,
    )


def recalibrate(
    frame: pd.DataFrame,
    *,
    classes: Sequence[str],
    method: Method = "temperature",
    class_weights: Sequence[float] | None = None,
    multilabel: bool | None = None,
) -> tuple[pd.DataFrame, Calibrator]:
    """Fit on the rows of the validation split, and apply to all rows.

    ``predicted`` stays what the model decided: undoing class weights makes the probabilities honest about how
    common a class is, but the weights were given so that rare classes are found. Raises UserError when there is no
    labelled validation image.
    """
    check_columns(frame, classes)
    multilabel = is_multilabel(frame) if multilabel is None else multilabel
    validation = frame[(frame["split"] == "val") & (frame["label"] != "")]
    if validation.empty:
        raise UserError(
            "there is no labelled validation image to calibrate on",
            mend="keep a validation split; the test images must not be used for this",
        )
    fitted = to_arrays(validation, classes=classes, multilabel=multilabel)
    calibrator = fit_calibrator(
        fitted.probabilities,
        np.where(fitted.judged, fitted.truth, np.nan),
        method=method,
        class_weights=class_weights,
        multilabel=multilabel,
    )
    columns = [PREFIX + name for name in classes]
    calibrated = frame.copy()
    calibrated[columns] = calibrator(frame[columns].to_numpy(dtype=np.float64))
    return calibrated, calibrator


def calibration_errors(
    before: pd.DataFrame, after: pd.DataFrame, *, classes: Sequence[str], multilabel: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """Split -> ``ece``, ``log_loss`` and ``brier`` -> their values ``before`` and ``after`` a recalibration."""

    def measure(frame: pd.DataFrame, split: str) -> dict[str, float]:
        rows = frame[(frame["split"] == split) & (frame["label"] != "")]
        values = prepare(to_arrays(rows, classes=classes, multilabel=multilabel)).as_is().overall
        return {name: float(values[name][0]) for name in ("ece", "log_loss", "brier")}

    found = {}
    for split in dict.fromkeys(before.loc[before["label"] != "", "split"]):
        was, became = measure(before, split), measure(after, split)
        found[str(split)] = {name: {"before": was[name], "after": became[name]} for name in was}
    return found


def _logits(probabilities: np.ndarray, *, multilabel: bool) -> np.ndarray:
    if multilabel:
        eps = np.finfo(np.float64).eps
        return np.asarray(logit(np.clip(probabilities, eps, 1 - eps)))
    return np.asarray(np.log(np.maximum(probabilities, TINY)))


def _gradient(logits: np.ndarray, truth: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Of the negative log likelihood of each image with respect to its logits, [n, C]; 0 where truth is not known."""
    return np.asarray(np.nan_to_num((expit(logits) if multilabel else softmax(logits, axis=1)) - truth))


def _fit_temperature(logits: np.ndarray, truth: np.ndarray, *, multilabel: bool) -> tuple[float, str | None]:
    """The scale 1 / T at which the (convex) likelihood has slope zero."""

    def slope(scale: float) -> float:
        return float(np.mean(np.sum(_gradient(scale * logits, truth, multilabel=multilabel) * logits, axis=1)))

    low, high = SCALES
    if slope(high) <= 0:
        return 1.0, "no temperature could be fitted: the model answers every validation image correctly"
    if slope(low) >= 0:
        return low, f"the temperature is held at {1 / low:.0f}: on the validation images the probabilities say nothing"
    return float(brentq(slope, low, high, xtol=1e-14, rtol=1e-14)), None
