"""What fine-tuning does about rare classes: weights or shifted logits in its loss, or balanced sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from msmae.errors import UserError
from msmae.training.prepare import Prepared

Remedy = Literal["none", "class_weights", "logit_adjustment", "sampling"]


@dataclass(frozen=True)
class Balance:
    """The remedy in force.

    ``weights`` [C] multiply the classes' terms of the loss (for multi-label data: the positive terms), ``shift`` [C] is
    added to the logits in the training loss only, ``chances`` [n] says how likely each training image is drawn (None:
    each once an epoch), ``even`` [C] weighs the validation loss that chooses the model.
    """

    remedy: Remedy
    reason: str
    weights: Tensor
    shift: Tensor
    even: Tensor
    chances: np.ndarray | None = None


def decide_balance(prepared: Prepared) -> Balance:
    """Follow ``finetune.balance``; ``auto`` takes the default stated in ``msmae.training.balance.advise``."""
    ids = prepared.ids("train")
    targets, classes = prepared.targets[ids], len(prepared.manifest.classes)
    multilabel = targets.ndim == 2
    ones, zeros = torch.ones(classes), torch.zeros(classes)
    counts = class_counts(targets, classes=classes)
    wanted = prepared.settings.finetune.balance
    reason = "as asked"
    if wanted == "auto":
        advice = advise(counts, multilabel=multilabel, pretrained=bool(prepared.origin) and not prepared.arm.frozen)
        wanted, reason = advice.remedy, advice.reason
    if wanted == "none":
        return Balance("none", reason, ones, zeros, ones)
    weigh = positive_weights(targets) if multilabel else class_weights(counts)
    even = torch.from_numpy(weigh).float()
    if wanted == "sampling":
        chances = sampling_weights(targets, classes=classes)
        return Balance("sampling", reason, ones, zeros, even, chances)
    if wanted == "logit_adjustment" and not multilabel:
        shift = torch.from_numpy(logit_adjustment(counts)).float()
        return Balance("logit_adjustment", reason, ones, shift, even)
    return Balance("class_weights", reason, even, zeros, even)


MILD, SEVERE = 2.0, 10.0


@dataclass(frozen=True)
class ImbalanceAdvice:
    """The default for a data set: ``remedy``, the ``ratio`` of the largest to the smallest class, and why."""

    remedy: Remedy
    ratio: float
    reason: str


def class_counts(targets: np.ndarray, *, classes: int) -> np.ndarray:
    """Labelled images of every class, int64 ``[C]``, from ``Manifest.targets()`` (``[n]``, multi-label ``[n, C]``)."""
    if targets.ndim == 2:
        return np.asarray(np.nansum(targets, axis=0), dtype=np.int64)
    return np.bincount(targets[targets >= 0], minlength=classes).astype(np.int64)


def imbalance_ratio(counts: np.ndarray) -> float:
    """Images of the largest class over those of the smallest; raises ``UserError`` for a class without images."""
    _check_counts(counts)
    return float(counts.max() / counts.min())


def advise(counts: np.ndarray, *, multilabel: bool = False, pretrained: bool = False) -> ImbalanceAdvice:
    """The stated default.

    Up to a ratio of 2 nothing; above it class weights in the loss, so that every class weighs the same in total. The
    probabilities then answer for evenly frequent classes and need recalibrating. Multi-label data: positives are
    weighted (``positive_weights``). From a pretrained encoder, above a ratio of 10: logit adjustment (Menon et al.,
    arXiv 2007.07314), which aims at the same and has no batch that one rare image rules.
    """
    ratio = imbalance_ratio(counts)
    said = f"the largest class has {ratio:.1f} times the images of the smallest"
    if multilabel:
        return ImbalanceAdvice(
            "class_weights", ratio, f"{said}; each class's positives are weighted against its negatives"
        )
    if ratio <= MILD:
        return ImbalanceAdvice("none", ratio, f"{said}: near enough to balance")
    if pretrained and ratio > SEVERE:
        return ImbalanceAdvice("logit_adjustment", ratio, f"{said}: their frequencies are kept out of the logits")
    trust = "; so few images of a class also need wide intervals" if ratio > SEVERE else ""
    return ImbalanceAdvice("class_weights", ratio, f"{said}: the loss weighs every class the same in total{trust}")


def class_weights(counts: np.ndarray, *, power: float = 1.0) -> np.ndarray:
    """Weights for the loss, float64 ``[C]``: ``counts ** -power``, scaled so that the mean over the images is 1.

    ``power`` 1 makes all classes weigh the same in total, 0 leaves the images equal, 0.5 lies between.
    """
    _check_counts(counts)
    weights = counts.astype(np.float64) ** -power
    return np.asarray(weights * counts.sum() / (weights * counts).sum())


def positive_weights(targets: np.ndarray, *, limit: float = 100.0) -> np.ndarray:
    """Multi-label: negatives over positives of each class, float64 ``[C]``, at most ``limit``; nan is neither. At least
    0.01, which is what a class that every image has is left with."""
    positives = np.asarray(np.nansum(targets, axis=0, dtype=np.float64))
    known = (~np.isnan(targets)).sum(axis=0)
    _check_counts(positives)
    return np.asarray(np.clip((known - positives) / positives, 0.01, limit))


def sampling_weights(targets: np.ndarray, *, classes: int, power: float = 1.0) -> np.ndarray:
    """How likely each image is drawn, float64 ``[n]``, sum 1: in expectation every class equally often (``power`` 1).

    An unlabelled image is as likely as the average one. In multi-label data an image counts by its rarest label.
    """
    counts = class_counts(targets, classes=classes)
    weights = class_weights(counts, power=power)
    if targets.ndim == 2:
        rarest = np.max(np.nan_to_num(targets) * weights, axis=1)  # [n]
        chosen = np.where(rarest > 0, rarest, weights.min())
        chosen = np.where(np.isnan(targets).all(axis=1), 1.0, chosen)
    else:
        chosen = np.where(targets >= 0, weights[np.maximum(targets, 0)], 1.0)
    return np.asarray(chosen / chosen.sum())


def logit_adjustment(counts: np.ndarray, *, strength: float = 1.0) -> np.ndarray:
    """``strength * log(frequency)``, float64 ``[C]``: added to the logits inside the training loss only."""
    _check_counts(counts)
    return np.asarray(strength * np.log(counts / counts.sum()))


def _check_counts(counts: np.ndarray) -> None:
    empty = np.flatnonzero(counts <= 0)
    if len(counts) == 0 or len(empty):
        raise UserError(
            f"no training image of class {', '.join(map(str, empty))}" if len(counts) else "there are no classes",
            mend="give every class an image in the training split",
        )
