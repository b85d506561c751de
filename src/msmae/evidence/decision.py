"""Decision curves: is it better to act on the model than to treat everybody, or nobody (Vickers and Elkin 2006)?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmae.errors import UserError
from msmae.evidence.bootstrap import draw_patients
from msmae.evidence.intervals import LEVEL
from msmae.evidence.predictions import Predictions, class_index

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))


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
