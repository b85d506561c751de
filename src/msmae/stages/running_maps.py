"""Maps that training makes by itself: what its answers hung on, remembered patch by patch.

A step that names the class from some patches of an image also tells, by one more gradient, how fast that answer changes
with each of them. Remembered in the image's own grid, and averaged from visit to visit, this is a map that is never
older than the last epoch and takes no pass over whole images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msmae.look.sensitivity import token_lengths, widened
from msmae.method.attention import MapBank
from msmae.method.msmae import pooled
from msmae.method.transfer import Classifier

NEWEST = 0.5
"""Weight of what a patch has just shown, beside what it showed before."""
FLOOR = 0.02
"""Weight of a patch that says nothing, where the most telling one has 1."""


def answer(model: Classifier, images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, classes] from the patches of images [B, C, H, W] at keep [B, K], and how much the answer hangs on each
    of them, [B, K]."""
    tokens = model.encoder.embed(images, keep)  # [B, 1+K, D]
    logits: Tensor = model.head(pooled(model.encoder.encode(tokens), model.pool))
    return logits, token_lengths(logits, tokens)


class RunningMaps:
    """Keeps, in a bank, what each image's patches have shown; nan where a patch was never seen."""

    def __init__(self, bank: MapBank) -> None:
        self.bank = bank
        bank.maps.fill_(torch.nan)

    def weights(self, ids: Tensor) -> Tensor:
        """Maps [B, h, w] of the samples ids [B], above 0 and at most 1 + ``FLOOR``: each place with its eight
        neighbours, since a lesion is wider than its most telling patch. What was never seen weighs as the image's mean;
        an image never seen, the same everywhere.
        """
        maps = self.bank[ids]
        mean = maps.flatten(1).nanmean(dim=1).nan_to_num(nan=1.0).reshape(-1, 1, 1)
        wide = widened(torch.where(maps.isnan(), mean, maps))
        return wide / wide.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12) + FLOOR

    def record(self, ids: Tensor, cells: Tensor, lengths: Tensor) -> None:
        """Remember what the patches at cells [B, K] of the samples ids [B] have shown, lengths [B, K]."""
        maps = self.bank[ids]
        flat = maps.flatten(1)
        before = flat.gather(1, cells)
        lengths = lengths.to(flat)
        now = torch.where(before.isnan(), lengths, before + NEWEST * (lengths - before))
        self.bank.refresh(ids, flat.scatter(1, cells, now).reshape(maps.shape))
