"""Which interval is right for which metric, given one split's predictions.

- proportions (accuracy, sensitivity, ...): Wilson where every patient has one image; with clusters the bootstrap,
  and at 0 or 1, which no resample can leave, Clopper-Pearson with a patient as one trial;
- AUROC of 1 or 0: exact, from disjoint pairs of patients;
- expected calibration error: `ece_intervals`;
- everything else: BCa over patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmae.statistics.intervals import (
    LEVEL,
    Interval,
    alike,
    bca,
    bootstrap,
    clopper_pearson,
    draw_patients,
    jackknife,
    no_interval,
    perfect_ranking,
    wilson,
)
from msmae.statistics.metrics import ECE_BINS, TINY, Metrics, Values
from msmae.statistics.predictions import Predictions

ONE_PATIENT = no_interval("one patient only")


@dataclass(frozen=True)
class Uncertainty:
    """The draws of one split; `overall` and `of_class` give the 95 % interval of a metric. Build with `resample`."""

    predictions: Predictions
    metrics: Metrics
    draws: Values
    left_out: Values
    ece: list[Interval]
    """Overall, then of each class."""

    def overall(self, name: str, value: float) -> Interval:
        if name == "ece":
            return self.ece[0]
        if name == "auroc" and value in (0.0, 1.0):
            averaged = np.flatnonzero(self.metrics.averaged["auroc"]).tolist()
            pairs = min(_disjoint_pairs(self.predictions, c) for c in averaged)
            return perfect_ranking(value, pairs, level=1 - (1 - LEVEL) / len(averaged))
        judged = np.asarray(self.predictions.judged.all(axis=1)) if name == "accuracy" else None
        return self._interval(value, self.draws.overall[name], self.left_out.overall[name], judged)

    def of_class(self, name: str, value: float, c: int) -> Interval:
        if name == "ece":
            return self.ece[1 + c]
        if name == "auroc" and value in (0.0, 1.0):
            return perfect_ranking(value, _disjoint_pairs(self.predictions, c))
        draws, left_out = self.draws.per_class[name][:, c], self.left_out.per_class[name][:, c]
        return self._interval(value, draws, left_out, _judged(self.predictions, name, c))

    def _interval(self, value: float, draws: np.ndarray, left_out: np.ndarray, judged: np.ndarray | None) -> Interval:
        if judged is not None and not self.predictions.clustered:
            return wilson(round(value * judged.sum()), int(judged.sum()))
        if judged is not None and value in (0.0, 1.0):
            patients = len(np.unique(self.predictions.patients[judged]))
            return clopper_pearson(value * patients, patients)
        return bca(value, draws, left_out, units=self.predictions.patient_count)


def resample(
    metrics: Metrics, predictions: Predictions, *, resamples: int, seed: int, areas: bool = True
) -> Uncertainty:
    """Draw and leave out patients (at least two are needed); without ``areas`` (under curves) in a fraction of the
    time.
    """
    return Uncertainty(
        predictions=predictions,
        metrics=metrics,
        draws=bootstrap(metrics, resamples=resamples, seed=seed, areas=areas),
        left_out=jackknife(metrics, seed=seed, areas=areas),
        ece=_ece(metrics, resamples=resamples, seed=seed),
    )


def ece_intervals(
    gaps: np.ndarray, images: np.ndarray, *, resamples: int, seed: int, level: float = LEVEL
) -> list[Interval]:
    """One interval for each of k calibration errors.

    ``gaps`` [P, k, bins]: probability minus outcome summed over each patient's images in each bin; ``images`` [P]
    counts them, or [P, k] for each error.
    """
    patients, k, bins = gaps.shape
    images = images.reshape(patients, -1)  # [P, 1 or k]
    observed = gaps.sum(axis=0) / np.maximum(images.sum(axis=0), 1)[:, None]  # [k, bins]
    lengths, errors = [], []
    for weights in draw_patients(patients, width=k * bins, resamples=resamples, seed=seed):
        drawn = (weights @ gaps.reshape(patients, -1)).reshape(len(weights), k, bins)
        drawn /= np.maximum(weights @ images, TINY)[:, :, None]
        lengths.append(np.abs(drawn).sum(axis=2))  # [r, k]
        errors.append(np.abs(drawn - observed).sum(axis=2))
    length, error = np.concatenate(lengths), np.concatenate(errors)
    value = np.abs(observed).sum(axis=1)  # [k]
    low = np.maximum(0, value - np.quantile(error, (1 + level) / 2, axis=0))
    high = np.maximum(value, np.quantile(length, (1 + level) / 2, axis=0))
    return [
        Interval(low=float(low[i]), high=float(high[i]), method="triangle")
        if not alike(length[:, i])
        else no_interval("every resample gives the same value")
        for i in range(k)
    ]


def _ece(metrics: Metrics, *, resamples: int, seed: int) -> list[Interval]:
    images, of_classes = metrics.sums["n"][:, 0], metrics.sums["class_gaps"]  # [P], [P, C * bins]
    known = metrics.sums["known"]  # [P, C]
    each = ece_intervals(of_classes.reshape(len(images), -1, ECE_BINS), known, resamples=resamples, seed=seed)
    if metrics.multilabel:  # the mean over classes is the length of all gaps, over C times the images
        gaps, images = of_classes, known.sum(axis=1)
    else:
        gaps = metrics.sums["top_gaps"]
    return ece_intervals(gaps[:, None, :], images, resamples=resamples, seed=seed) + each


def _judged(predictions: Predictions, name: str, c: int) -> np.ndarray | None:
    """bool [n]: the images in the denominator of a proportion of class c; None for what is not a proportion."""
    known, truth, predicted = predictions.judged[:, c], predictions.truth[:, c], predictions.predicted[:, c]
    return {
        "prevalence": known,
        "accuracy": known,
        "sensitivity": truth,
        "specificity": known & ~truth,
        "ppv": known & predicted,
        "npv": known & ~predicted,
    }.get(name)


def _disjoint_pairs(predictions: Predictions, c: int) -> int:
    """How many pairs (a patient with the class, another without) can be formed using every patient once."""
    known, truth = predictions.judged[:, c], predictions.truth[:, c]
    having, lacking = (set(predictions.patients[flag]) for flag in (truth, known & ~truth))
    return min(len(having), len(lacking), len(having | lacking) // 2)
