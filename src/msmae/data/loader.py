"""Batches from the store: whole batches by one gather, no worker processes, the same order on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msmae.data.store import ImageStore


class Batch(NamedTuple):
    """Sample ids [B], images [B, C, H, W] in the file's own numbers, labels int64 [B] or float [B, classes]."""

    ids: Tensor
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batches:
    """One epoch of batches; with ``shuffle`` the order depends on seed and epoch alone.

    Attributes:
        ids: sample ids to go through.
        targets: labels of all samples in the store (see ``Manifest.targets``).
        rank, world: this process's share in distributed training; ids are repeated to give all ranks equally many.
        chances: how likely each id is drawn, with replacement, when shuffling; None: each id once.
        first: the batch that is begun with; those before it still count in the length.
        drop_last: leave out a last batch that is not full, unless it is the only one.
    """

    store: ImageStore
    targets: np.ndarray
    ids: np.ndarray
    batch_size: int
    shuffle: bool = False
    drop_last: bool = False
    chances: np.ndarray | None = None
    seed: int = 0
    epoch: int = 0
    first: int = 0
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        share = -(-len(self.ids) // self.world) if self.shuffle else len(self.ids[self.rank :: self.world])
        full = share // self.batch_size
        return full if self.drop_last and full else -(-share // self.batch_size)

    def order(self) -> np.ndarray:
        """This epoch's ids: each once, or drawn with replacement by their chances."""
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.chances is None:
            drawn = generator.permutation(self.ids)
        else:
            drawn = generator.choice(self.ids, size=len(self.ids), p=self.chances)
        return self.store.drawn(drawn, generator)

    def __iter__(self) -> Iterator[Batch]:
        ids = self.ids
        if self.shuffle:
            ids = self.order()
            ids = np.resize(ids, -(-len(ids) // self.world) * self.world)  # equally many for every rank
        ids = ids[self.rank :: self.world]
        for start in range(self.first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            chosen = ids[start : start + self.batch_size]
            yield Batch(
                ids=torch.from_numpy(chosen),
                images=torch.from_numpy(self.store.fetch(chosen)),
                labels=torch.from_numpy(self.targets[chosen]),
            )
