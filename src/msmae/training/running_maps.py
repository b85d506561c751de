"""Maps that training makes by itself: what its answers hung on, remembered patch by patch.

A step that names the class from some patches of an image also tells, by one more gradient, how fast that answer changes
with each of them. Remembered in the image's own grid, and averaged from visit to visit, this is a map that is never
older than the last epoch and takes no pass over whole images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msmae.method.attention import MapBank
from msmae.method.classifier import Classifier
from msmae.method.msmae import pooled
from msmae.selection.sensitivity import token_lengths, widened

NEWEST = 0.5
"""Weight of what a patch has just shown, beside what it showed before."""
FLOOR = 0.02
"""Weight of a patch that says nothing, where the most telling one has 1."""


def answer(model: Classifier, images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, classes] from the patches of images [B, C, H, W] at keep [B, K], and how much the answer hangs on each
    of them, [B, K]."""
    tokens = model.encoder.embed(images, keep)  # [B, 1+K, D]
    logits: Tensor = model.head(pooled(model.encoder.encode(tokens), model.pool))
    return logits, token_lengths(logits, tokens, model.encoder.leading)


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
        """Remember what the patches at cells [B, K] of the samples ids [B] have shown, lengths [B, K].

        The mean, where a place was shown more than once.
        """
        ids, rows = torch.unique(ids, return_inverse=True)  # an image may be drawn twice
        maps = self.bank[ids].flatten(1)  # [U, N]
        places = (rows.unsqueeze(1) * maps.shape[1] + cells).flatten()  # and two patches of a crop may share a cell
        shown, times = torch.zeros(2, maps.numel())
        shown.index_add_(0, places, lengths.to(shown).flatten())
        times.index_add_(0, places, torch.ones(len(places)))
        now = (shown / times).reshape(maps.shape)  # [U, N], nan where nothing was shown
        blended = torch.where(maps.isnan(), now, maps + NEWEST * (now - maps))
        self.bank.refresh(ids, torch.where(now.isnan(), maps, blended).reshape(-1, *self.bank.grid))
