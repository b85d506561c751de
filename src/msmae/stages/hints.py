"""Hints: the map decides what is kept, and chance what is masked. Not the paper's.

The paper masks what is attended, so that the label is taught on what is not: of a lesion that the map finds, next to
nothing is kept. Here some of the kept patches are hints, drawn where the map is largest; everything else is drawn
evenly from the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msmae.method.masking import PatchPlan, draw_order, patch_counts


def plan_with_hints(
    maps: Tensor,
    mask_ratio: float = 0.45,
    throw_ratio: float = 0.30,
    *,
    hints: float = 0.5,
    generator: torch.Generator | None = None,
) -> PatchPlan:
    """Draw the hints without replacement, likelier where the map is larger; then the rest of the plan evenly.

    Args:
        maps: [B, N] or [B, h, w], non-negative and finite; larger = likelier a hint.
        mask_ratio, throw_ratio: as in ``plan_patches``; the counts are the same.
        hints: share of the kept patches that the map draws, 0 to 1.
        generator: source of randomness on the maps' device.

    Raises:
        ValueError: for negative or non-finite weights, ratios that leave nothing to keep, or a share out of range.
    """
    if not 0 <= hints <= 1:
        raise ValueError(f"a share of {hints} hints is not between 0 and 1")
    order = draw_order(maps, generator)  # [B, N]
    masked, thrown, kept = patch_counts(order.shape[1], mask_ratio, throw_ratio)
    given = round(hints * kept)
    hinted, rest = order[:, :given], order[:, given:]
    shuffled = rest.gather(1, draw_order(torch.ones_like(rest), generator))  # [B, N - given]
    mask, throw, even = shuffled[:, :masked], shuffled[:, masked : masked + thrown], shuffled[:, masked + thrown :]
    return PatchPlan(keep=torch.cat([hinted, even], dim=1), mask=mask, throw=throw)
