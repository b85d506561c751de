"""What fine-tuning does about rare classes: weights or shifted logits in its loss, or balanced sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msmae.data import imbalance
from msmae.stages.prepare import Prepared


@dataclass(frozen=True)
class Balance:
    """The remedy in force.

    ``weights`` [C] multiply the classes' terms of the loss (for multi-label data: the positive terms), ``shift`` [C] is
    added to the logits in the training loss only, ``chances`` [n] says how likely each training image is drawn (None:
    each once an epoch), ``even`` [C] weighs the validation loss that chooses the model.
    """

    remedy: str
    reason: str
    weights: Tensor
    shift: Tensor
    even: Tensor
    chances: np.ndarray | None = None


def decide_balance(prepared: Prepared) -> Balance:
    """Follow ``finetune.balance``; ``auto`` takes the default stated in ``msmae.data.imbalance.advise``."""
    ids = prepared.ids("train")
    targets, classes = prepared.targets[ids], len(prepared.manifest.classes)
    multilabel = targets.ndim == 2
    ones, zeros = torch.ones(classes), torch.zeros(classes)
    counts = imbalance.class_counts(targets, classes=classes)
    wanted = prepared.settings.finetune.balance
    reason = "as asked"
    if wanted == "auto":
        advice = imbalance.advise(counts, multilabel=multilabel)
        wanted, reason = advice.remedy, advice.reason
    if wanted == "none":
        return Balance("none", reason, ones, zeros, ones)
    weigh = imbalance.positive_weights(targets) if multilabel else imbalance.class_weights(counts)
    even = torch.from_numpy(weigh).float()
    if wanted == "sampling":
        chances = imbalance.sampling_weights(targets, classes=classes)
        return Balance("sampling", reason, ones, zeros, even, chances)
    if wanted == "logit_adjustment" and not multilabel:
        shift = torch.from_numpy(imbalance.logit_adjustment(counts)).float()
        return Balance("logit_adjustment", reason, ones, shift, even)
    return Balance("class_weights", reason, even, zeros, even)
