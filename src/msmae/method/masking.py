"""From maps to plans: which patches are masked (reconstructed), dropped (neither) and kept (encoded).

Paper: section 3.1, supervised attention-driven masking; the paper says "thrown" for dropped, as AMT does (arXiv
2211.15362).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msmae.method.attention import MapBank

MASKED, DROPPED, KEPT = 0, 1, 2


@dataclass(frozen=True)
class PatchPlan:
    """What happens to every patch of every image: positions (int64) into the row-by-row patch grid.

    ``keep`` [B, K], ``mask`` [B, M], ``throw`` [B, T] (the dropped ones); each image's three rows together are a
    permutation of 0..N-1.
    """

    keep: Tensor
    mask: Tensor
    throw: Tensor

    def __getitem__(self, rows: slice) -> PatchPlan:
        """The plans of some of the images."""
        return PatchPlan(self.keep[rows], self.mask[rows], self.throw[rows])

    def to(self, device: torch.device) -> PatchPlan:
        """The same plan on another device."""
        return PatchPlan(self.keep.to(device), self.mask.to(device), self.throw.to(device))

    def roles(self) -> Tensor:
        """The role of each patch in grid order, [B, N]: 0 masked, 1 dropped, 2 kept."""
        sizes = [(self.mask, MASKED), (self.throw, DROPPED), (self.keep, KEPT)]
        order = torch.cat([index for index, _ in sizes], dim=1)
        roles = torch.cat([torch.full_like(index, role) for index, role in sizes], dim=1)
        return torch.empty_like(order).scatter_(1, order, roles)


def patch_counts(patches: int, mask_ratio: float, throw_ratio: float) -> tuple[int, int, int]:
    """How many of N patches are masked, dropped, kept: floor(mask N), floor((mask + throw) N) - masked, the rest.

    Raises:
        ValueError: if a ratio is negative, or if together they leave nothing to keep.
    """
    if mask_ratio < 0 or throw_ratio < 0 or mask_ratio + throw_ratio >= 1:
        raise ValueError(f"mask ratio {mask_ratio} + throw ratio {throw_ratio} must be under 1, and neither negative")
    tiny = 1e-9  # so that 0.7 + 0.1 of 10 patches is 8, not 7
    masked = math.floor(mask_ratio * patches + tiny)
    gone = math.floor((mask_ratio + throw_ratio) * patches + tiny)
    if gone >= patches:
        raise ValueError(f"{gone} of {patches} patches masked or dropped leaves none to keep")
    return masked, gone - masked, patches - gone


def plan_patches(
    maps: Tensor, mask_ratio: float = 0.45, throw_ratio: float = 0.30, generator: torch.Generator | None = None
) -> PatchPlan:
    """Draw patches without replacement, likelier where the map is larger; the first are masked, the next dropped.

    Args:
        maps: [B, N] or [B, h, w], non-negative and finite; larger = likelier masked.
        mask_ratio: share of patches to reconstruct.
        throw_ratio: share of patches neither encoded nor reconstructed.
        generator: source of randomness on the maps' device.

    Raises:
        ValueError: for negative or non-finite weights, or ratios that leave nothing to keep.
    """
    order = draw_order(maps, generator)  # [B, N]
    masked, dropped, _ = patch_counts(order.shape[1], mask_ratio, throw_ratio)
    mask, drop, keep = order.tensor_split([masked, masked + dropped], dim=1)  # [B, M], [B, T], [B, K]
    return PatchPlan(keep=keep, mask=mask, throw=drop)


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


@dataclass(frozen=True)
class Draw:
    """How the plan of every image is drawn; the same value draws in pre-training, in fine-tuning and in pictures.

    ``map`` names the map that weighs the patches: "own" (the paper), "other" (another image's: the control for "any
    structured mask would do") or "none" (random masking: all patches weigh the same).
    """

    masked: float = 0.45
    """Share of the patches to reconstruct."""
    dropped: float = 0.30
    """Share of the patches that are neither encoded nor reconstructed."""
    hints: float = 0.0
    """Share of the kept patches that the map draws; all else is then drawn uniformly. 0 (paper): the map draws what is
    masked."""
    map: Literal["own", "other", "none"] = "own"

    def __post_init__(self) -> None:
        if not 0 <= self.hints <= 1:
            raise ValueError(f"a share of {self.hints} hints is not between 0 and 1")

    @property
    def follows_maps(self) -> bool:
        """Whether any map, the image's own or another's, weighs the patches."""
        return self.map != "none"

    def counts(self, patches: int) -> tuple[int, int, int]:
        """How many of N patches are masked, dropped, kept: see :func:`patch_counts`."""
        return patch_counts(patches, self.masked, self.dropped)

    def maps(self, bank: MapBank, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The maps [B, h, w] that weigh the patches of the samples ids [B]; ones where none does."""
        if self.map == "none":
            return torch.ones(len(ids), *bank.grid)
        return bank[ids if self.map == "own" else bank.others(ids, generator)]

    def plan(self, maps: Tensor, generator: torch.Generator | None = None) -> PatchPlan:
        """Draw a plan of each image from its map [B, N] or [B, h, w], non-negative and finite.

        Raises:
            ValueError: for negative or non-finite maps, or shares that leave nothing to keep.
        """
        if not self.follows_maps:
            return plan_patches(torch.ones_like(maps), self.masked, self.dropped, generator)
        if not self.hints:
            return plan_patches(maps, self.masked, self.dropped, generator)
        order = draw_order(maps, generator)  # [B, N]
        masked, dropped, kept = self.counts(order.shape[1])
        given = round(self.hints * kept)
        hinted, rest = order[:, :given], order[:, given:]
        shuffled = rest.gather(1, draw_order(torch.ones_like(rest), generator))  # [B, N - given]
        mask, drop, others = shuffled.tensor_split([masked, masked + dropped], dim=1)
        return PatchPlan(keep=torch.cat([hinted, others], dim=1), mask=mask, throw=drop)
