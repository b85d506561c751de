"""Where the class token looks: one map per image, kept in a bank.

Paper: section 3.1. The map is the last block's class-token row over the patches, min-max normalised per head and
averaged over the heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msmae.method.vit import VisionTransformer


def average_heads(rows: Tensor) -> Tensor:
    """Rows [B, H, N] -> one map [B, N] in [0, 1]: min-max per head (a constant row becomes ones), then the mean."""
    low, high = rows.amin(dim=-1, keepdim=True), rows.amax(dim=-1, keepdim=True)
    span = high - low
    scaled = torch.where(span > 0, (rows - low) / span.clamp(min=torch.finfo(rows.dtype).tiny), torch.ones_like(rows))
    return scaled.mean(dim=1)


@torch.no_grad()
def patch_maps(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """Whole images [B, C, H, W] (normalised) -> maps [B, h, w] in [0, 1], without gradient."""
    return average_heads(encoder.class_attention(images).float()).reshape(-1, *encoder.grid)


class MapBank:
    """The latest map of every training image, keyed by sample id. Before the first refresh every weight is one.

    Args:
        ids: the sample ids [n] the bank holds, in any order.
        grid: (h, w) of a map.
    """

    def __init__(self, ids: Tensor, grid: tuple[int, int]) -> None:
        self.ids = ids.sort().values
        self.grid = grid
        self.maps = torch.ones(len(ids), *grid)
        self.refreshes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, ids: Tensor) -> Tensor:
        """Maps [B, h, w] of the samples ids [B]."""
        return self.maps[self._rows(ids)]

    def others(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """For each sample id another one of the bank, at random: [B] -> [B]."""
        steps = torch.randint(1, max(2, len(self)), ids.shape, generator=generator)
        return self.ids[(self._rows(ids) + steps) % len(self)]

    def refresh(self, ids: Tensor, maps: Tensor) -> None:
        """Store new maps [B, h, w] for the samples ids [B].

        Raises:
            ValueError: if the maps have another grid than the bank.
        """
        if maps.shape[1:] != self.grid:
            raise ValueError(f"maps of grid {tuple(maps.shape[1:])} do not fit a bank of grid {self.grid}")
        self.maps[self._rows(ids)] = maps.to(self.maps)
        self.refreshes += 1

    def state_dict(self) -> dict[str, Tensor | int]:
        """What a checkpoint needs to go on with the same maps."""
        return {"ids": self.ids, "maps": self.maps, "refreshes": self.refreshes}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take up the maps of a checkpoint; ``ValueError`` if they belong to another data set or grid."""
        ids, maps, refreshes = state["ids"], state["maps"], state["refreshes"]
        fits = isinstance(ids, Tensor) and isinstance(maps, Tensor) and maps.shape == self.maps.shape
        if not fits or not torch.equal(ids, self.ids):  # type: ignore[arg-type]
            raise ValueError("the checkpoint's map bank belongs to another data set or patch grid")
        self.maps, self.refreshes = maps.clone(), int(refreshes)  # type: ignore[union-attr]

    def _rows(self, ids: Tensor) -> Tensor:
        rows = torch.searchsorted(self.ids, ids.contiguous()).clamp(max=len(self) - 1)
        if not torch.equal(self.ids[rows], ids):
            raise KeyError("a sample id that the bank does not hold")
        return rows


def map_entropy(maps: Tensor) -> Tensor:
    """Entropy of each map [B, h, w] taken as a distribution, divided by log N: 1 = uniform, 0 = one patch. [B]."""
    p = maps.flatten(1)
    p = p / p.sum(dim=1, keepdim=True).clamp(min=1e-12)
    entropy: Tensor = torch.special.entr(p).sum(dim=1) / math.log(p.shape[1])
    return entropy


def map_overlap(old: Tensor, new: Tensor, share: float = 0.25) -> Tensor:
    """Share of the most attended quarter of each map that is the same in both: [B, h, w] x 2 -> [B] in [0, 1]."""
    count = max(1, int(share * old[0].numel()))
    top = [torch.zeros_like(m.flatten(1)).scatter_(1, m.flatten(1).topk(count).indices, 1.0) for m in (old, new)]
    return (top[0] * top[1]).sum(dim=1) / count
