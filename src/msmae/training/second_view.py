"""A second view for the label: the arms that name the class from other patches than those they reconstruct from.

Not the paper's: there the class is named from the kept patches, which are the least attended ones. Here the encoder
runs once more in a step, over as many patches that are drawn for the label alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msmae.config.arms import Arm
from msmae.method.cost import Macs, encoder_macs, msmae_macs
from msmae.method.masking import PatchPlan, draw_order
from msmae.method.msmae import MSMAE, Reconstruction, pooled


def draw_view(arm: Arm, weights: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The ``count`` patches of the second view, positions [B, count].

    Args:
        arm: its ``label_view`` says whether attended patches are likelier, or all are alike.
        weights: maps [B, h, w] aligned with the images; non-negative, larger = more attended.
        generator: source of randomness on the maps' device.

    Raises:
        ValueError: for negative or non-finite weights.
    """
    likelier = weights if arm.label_view == "attended" else torch.ones_like(weights)
    return draw_order(likelier, generator)[:, :count]


def name_from_view(model: MSMAE, images: Tensor, view: Tensor) -> Tensor:
    """Images [B, C, H, W] and the positions [B, L] of a view -> class logits [B, classes]."""
    logits: Tensor = model.head(pooled(model.encoder(images, view), model.pool))
    return logits


def see_twice(model: MSMAE, images: Tensor, plan: PatchPlan, view: Tensor) -> Reconstruction:
    """Of images [B, C, H, W]: the masked pixels from what the plan keeps, the class from the view."""
    pixels = model.decode(model.encoder(images, plan.keep), plan)  # [B, M, C*p*p]
    return Reconstruction(pixels, name_from_view(model, images, view))


def pretraining_macs(model: MSMAE, arm: Arm, kept: int, masked: int) -> Macs:
    """One forward pass of an arm's pre-training; the second view, where it has one, is as large as the first."""
    cost = msmae_macs(model, kept, masked)
    return cost + encoder_macs(model.encoder, kept) if arm.two_views else cost
