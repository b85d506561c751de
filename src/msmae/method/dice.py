"""The losses of segmentation: soft Dice over the batch plus cross-entropy (Milletari et al. 2016, arXiv 1606.04797)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTH = 1e-5
"""Added above and below the fraction, so that a class that nobody drew and nobody found costs nothing."""


def dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - Dice, the mean over the classes; each class's areas are summed over the whole batch.

    Args:
        probabilities: [B, C, H, W], 0 to 1.
        target: 0 or 1, of the same shape.
    """
    over = (0, 2, 3)
    both = (probabilities * target).sum(dim=over)  # [C]
    only_said = (probabilities.sum(dim=over) - both) * 0.5
    only_drawn = (target.sum(dim=over) - both) * 0.5
    return (1 - (2 * both + SMOOTH) / (2 * (both + only_said + only_drawn) + SMOOTH)).mean()


class SigmoidLoss(nn.Module):
    """For one class, or several that may overlap."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and 0/1 targets, both [B, classes, H, W]."""
        return dice_loss(logits.sigmoid(), target) + F.binary_cross_entropy_with_logits(logits, target)


class SoftmaxLoss(nn.Module):
    """For classes that exclude each other; the background counts in the cross-entropy, not in Dice."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits [B, 1 + classes, H, W] and the numbers of the classes [B, 1, H, W], 0 the background."""
        numbers = target[:, 0].long()
        drawn = F.one_hot(numbers, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
        return dice_loss(torch.softmax(logits, 1)[:, 1:], drawn[:, 1:]) + F.cross_entropy(logits, numbers)


def make_loss(*, exclusive: bool) -> nn.Module:
    """The loss for classes that exclude each other, or for one class or several that may overlap."""
    return SoftmaxLoss() if exclusive else SigmoidLoss()
