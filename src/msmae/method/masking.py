"""From maps to plans: which patches are masked (reconstructed), thrown (gone) and kept (seen).

Paper: section 3.1, supervised attention-driven masking; the "masking and throwing" split is AMT's (arXiv 2211.15362).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from msmae.method.attention import MapBank

MASKED, THROWN, KEPT = 0, 1, 2


@dataclass(frozen=True)
class PatchPlan:
    """What happens to every patch of every image: positions (int64) into the row-by-row patch grid.

    ``keep`` [B, K], ``mask`` [B, M], ``throw`` [B, T]; each image's three rows together are a permutation of 0..N-1.
    """

    keep: Tensor
    mask: Tensor
    throw: Tensor

    def to(self, device: torch.device) -> PatchPlan:
        """The same plan on another device."""
        return PatchPlan(self.keep.to(device), self.mask.to(device), self.throw.to(device))

    def roles(self) -> Tensor:
        """The role of each patch in grid order, [B, N]: 0 masked, 1 thrown, 2 kept."""
        sizes = [(self.mask, MASKED), (self.throw, THROWN), (self.keep, KEPT)]
        order = torch.cat([index for index, _ in sizes], dim=1)
        roles = torch.cat([torch.full_like(index, role) for index, role in sizes], dim=1)
        return torch.empty_like(order).scatter_(1, order, roles)


def patch_counts(patches: int, mask_ratio: float, throw_ratio: float) -> tuple[int, int, int]:
    """How many of N patches are masked, thrown, kept: floor(mask N), floor((mask + throw) N) - masked, the rest.

    Raises:
        ValueError: if a ratio is negative, or if together they leave nothing to keep.
    """
    if mask_ratio < 0 or throw_ratio < 0 or mask_ratio + throw_ratio >= 1:
        raise ValueError(f"mask ratio {mask_ratio} + throw ratio {throw_ratio} must be under 1, and neither negative")
    tiny = 1e-9  # so that 0.7 + 0.1 of 10 patches is 8, not 7
    masked = math.floor(mask_ratio * patches + tiny)
    gone = math.floor((mask_ratio + throw_ratio) * patches + tiny)
    if gone >= patches:
        raise ValueError(f"{gone} of {patches} patches masked or thrown leaves none to keep")
    return masked, gone - masked, patches - gone


def plan_patches(
    maps: Tensor, mask_ratio: float = 0.45, throw_ratio: float = 0.30, generator: torch.Generator | None = None
) -> PatchPlan:
    """Draw patches without replacement, likelier where the map is larger; the first are masked, the next thrown.

    Args:
        maps: [B, N] or [B, h, w], non-negative and finite; larger = likelier masked.
        mask_ratio: share of patches to reconstruct.
        throw_ratio: share of patches neither encoded nor reconstructed.
        generator: source of randomness on the maps' device.

    Raises:
        ValueError: for negative or non-finite weights, or ratios that leave nothing to keep.
    """
    order = draw_order(maps, generator)  # [B, N]
    masked, thrown, _ = patch_counts(order.shape[1], mask_ratio, throw_ratio)
    return PatchPlan(mask=order[:, :masked], throw=order[:, masked : masked + thrown], keep=order[:, masked + thrown :])


def tempered(maps: Tensor, temperature: float = 1.0, uniform_share: float = 0.0) -> Tensor:
    """The weights of a draw that follows maps [B, N] or [B, h, w] more or less closely than they say; not in the paper.

    They are ``w ** (1 / temperature)``: a temperature above 1 evens the draw, one under 1 sharpens it. Then they are
    brought to the sum of 1 and mixed with even weights, to which ``uniform_share`` of it goes. At (1, 0): the maps.
    """
    if temperature == 1 and uniform_share == 0:
        return maps
    weights = maps.flatten(1).float()  # [B, N]
    sharp = (weights / weights.amax(dim=1, keepdim=True).clamp(min=1e-12)) ** (1 / temperature)
    shares = sharp / sharp.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return ((1 - uniform_share) * shares + uniform_share / weights.shape[1]).reshape(maps.shape)


def draw_order(maps: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """All patches of maps [B, N] or [B, h, w] in the order of such a draw: [B, N].

    Sorting ``log w`` plus Gumbel noise draws the same as picking one patch after another with probability
    proportional to its weight (Efraimidis & Spirakis 2006; Kool et al., arXiv 1903.06059). The tiny constant keeps
    patches of zero weight apart: a bare log 0 would tie them, and ties fall by position.

    Raises:
        ValueError: for negative or non-finite weights.
    """
    weights = maps.flatten(1).float()  # [B, N]
    if not bool((weights >= 0).all() & torch.isfinite(weights).all()):
        raise ValueError("maps must be finite and non-negative")
    exponential = -torch.rand(weights.shape, generator=generator, device=weights.device).log()
    gumbel = -exponential.log()
    return ((weights + 1e-12).log() + gumbel).argsort(dim=1, descending=True)


Draw = Callable[[Tensor, torch.Generator], PatchPlan]
"""Draws a plan from maps [B, h, w]."""
Policy = Callable[[MapBank, Tensor, torch.Generator], Tensor]
"""Chooses the weights [B, h, w] for samples ids [B] from the bank of maps."""


def uniform_weights(bank: MapBank, ids: Tensor, generator: torch.Generator) -> Tensor:
    """All patches alike: plain random masking."""
    return torch.ones(len(ids), *bank.grid)


def attention_weights(bank: MapBank, ids: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's own map: the paper's masking."""
    return bank[ids]


def shuffled_weights(bank: MapBank, ids: Tensor, generator: torch.Generator) -> Tensor:
    """Another image's map: the control for "any structured mask would do"."""
    return bank[bank.others(ids, generator)]


POLICIES: dict[str, Policy] = {
    "uniform": uniform_weights,
    "attention": attention_weights,
    "shuffled": shuffled_weights,
    "ones": uniform_weights,  # what the released code's bank held for ever
}


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
