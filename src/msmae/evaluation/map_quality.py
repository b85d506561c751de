"""Does the map find the lesion? Figures for maps of images whose lesion masks are known.

``auroc``: the chance that a lesion patch is attended more than a patch of the same image without lesion, 0.5 for a map
that knows nothing. ``pointing``: how often the most attended patch bears lesion (the pointing game, Zhang et al., arXiv
1608.00507). ``masked``, ``thrown`` (dropped), ``kept``: what a plan drawn from the map does with lesion patches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from msmae.method.masking import DROPPED, KEPT, MASKED, Draw

LESION_COVER = 0.25
"""A patch bears lesion when at least this share of its pixels does, or when it holds most of a smaller lesion."""


def lesion_patches(masks: Tensor, patch_size: int) -> Tensor:
    """Which patches bear lesion, bool [B, N], from pixel masks [B, H, W]."""
    cover = F.avg_pool2d((masks > 0).float().unsqueeze(1), patch_size).flatten(1)  # [B, N]
    largest = cover.amax(dim=1, keepdim=True).clamp(max=LESION_COVER)
    return (cover >= largest) & (cover > 0)


def map_auroc(maps: Tensor, lesion: Tensor) -> float:
    """Mean over the images of the area under the ROC curve of a map [B, h, w] against its lesion patches [B, N].

    Images all of whose patches bear lesion, or none, have no such area and are left out; nan where no image is left.
    """
    bearing = lesion.cpu().numpy()  # [B, N]
    with_lesion, without = bearing.sum(axis=1), (~bearing).sum(axis=1)  # [B]
    mixed = (with_lesion > 0) & (without > 0)
    if not mixed.any():
        return float("nan")
    ranks = rankdata(maps.flatten(1).cpu().double().numpy(), axis=1)  # [B, N], ties share the mean of their ranks
    wins = (ranks * bearing).sum(axis=1) - with_lesion * (with_lesion + 1) / 2  # Mann-Whitney's U
    return float((wins[mixed] / (with_lesion * without)[mixed]).mean())


def pointing(maps: Tensor, lesion: Tensor) -> float:
    """Share of the images [B, h, w] whose most attended patch bears lesion [B, N]."""
    return float(lesion.gather(1, maps.flatten(1).argmax(dim=1, keepdim=True)).float().mean())


def role_shares(
    maps: Tensor, lesion: Tensor, generator: torch.Generator, *, draw: Draw, draws: int = 20
) -> dict[str, float]:
    """Share of the lesion patches [B, N] that plans drawn from the maps mask, drop ("thrown") and keep."""
    roles = torch.stack([draw.plan(maps, generator).roles() for _ in range(draws)])  # [R, B, N]
    on_lesion = roles[:, lesion]
    names = (("masked", MASKED), ("thrown", DROPPED), ("kept", KEPT))
    return {name: float((on_lesion == role).float().mean()) for name, role in names}


def lesion_shares(maps: Tensor, lesion: Tensor, generator: torch.Generator, *, draw: Draw) -> dict[str, Any]:
    """What becomes of the lesion patches [B, N] under plans from maps [B, h, w], beside plans at random."""
    return {
        "images": len(maps),
        "patches_an_image": float(lesion.sum(dim=1).float().mean()),
        "guided": role_shares(maps, lesion, generator, draw=draw),
        "random": role_shares(maps, lesion, generator, draw=replace(draw, map="none")),
        "most_attended_patch_on_lesion": pointing(maps, lesion),
        "map_auroc": map_auroc(maps, lesion),
    }
