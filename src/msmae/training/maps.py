"""Refreshing the bank: maps of all training images, made by all processes together, held by each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msmae.data.loader import Batch
from msmae.method.attention import MapBank, map_entropy, map_overlap

log = logging.getLogger("msmae")


def refresh_bank(
    bank: MapBank,
    model: nn.Module,
    batches: Iterable[Batch],
    normalise: Callable[[Tensor], Tensor],
    make_maps: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """Replace the maps of this process's whole, uncropped images, and of all other processes' images.

    Args:
        model: what makes the maps; it is in evaluation mode while it does.
        batches: this process's share of the images, in the file's own units.
        normalise: brings a batch of images onto the device and to the model's scale.
        make_maps: normalised images [B, C, H, W] -> maps [B, h, w].

    Returns:
        ``map_entropy`` (1 = uniform), ``map_overlap`` with the maps before (share of the most attended quarter), and
        ``map_diversity`` (0 = the same map for every image).
    """
    training = model.training
    model.eval()
    parts = [(batch.ids, make_maps(normalise(batch.images)).cpu()) for batch in batches]
    model.train(training)
    ids, maps = gather(torch.cat([i for i, _ in parts]), torch.cat([m for _, m in parts]))
    before = bank[ids].clone()
    first = bank.refreshes == 0
    bank.refresh(ids, maps)
    spread = maps.flatten(1).std(dim=1).mean()
    diversity = (maps - maps.mean(dim=0)).flatten(1).std(dim=1).mean() / spread.clamp(min=1e-12)
    figures = {"map_entropy": float(map_entropy(maps).mean()), "map_diversity": float(diversity)}
    if not first:
        figures["map_overlap"] = float(map_overlap(before, maps).mean())
    if spread < 0.01:
        log.warning("the maps are uniform: masking is random until they are not")
    elif diversity < 0.1:
        log.warning("the maps are the same for every image: they say nothing about where a lesion is")
    return figures


def gather(ids: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [n] and maps [n, h, w] of all processes, in every process; as they are where there is only one."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return ids, maps
    gathered: list[tuple[Tensor, Tensor] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, (ids, maps))
    shares = [share for share in gathered if share is not None]
    return torch.cat([i for i, _ in shares]), torch.cat([m for _, m in shares])
