"""Coarse and fine: fine-tuning on the whole image from afar and on a few of its patches close up.

A glance shows the whole image in a few coarse tokens. A locator chooses which patches are seen close up: in training
half of them, and chance the other half, so that it can find out. Of a pretrained encoder it learns beforehand where
that looks; then it goes on to foresee the attention of the model that is trained: of the patches that were seen, those
the class token looked at in the last block. Everything learns together, from the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.config import require
from msmae.data.geometry import Geometry
from msmae.data.loader import Batch
from msmae.method.classifier import Classifier
from msmae.selection.locator import Glance, Locator, glance_of, locator_width, tokens_for
from msmae.selection.selectors import Selection, share_for
from msmae.training.optimiser import layerwise_groups
from msmae.training.prepare import Prepared
from msmae.training.selecting.locate import foresee_encoder, sharpened
from msmae.training.supervised import SupervisedModule, train_supervised

CELL = 8
"""Pixels to which the locator shrinks a patch's side: what is small must still be seen."""


def selection_for(model: Classifier) -> Selection:
    """A glance and a locator with fresh weights around a classifier."""
    encoder = model.encoder
    cell = min(CELL, encoder.patch_size) // 2 * 2
    locator = Locator(encoder, width=locator_width(encoder), cell=cell, textures=True)
    return Selection(model, selector="locator", locator=locator, glance=Glance(encoder, glance_of(encoder)))


class CoarseFineModule(SupervisedModule):
    """Trains a selection, its glance and its locator together."""

    model: Selection

    def __init__(self, selection: Selection, prepared: Prepared, *, tokens: int, learned: bool) -> None:
        super().__init__(selection, prepared)
        self.count = tokens - selection.coarse
        self.learned = learned  # whether the encoder has been trained before

    def on_train_start(self) -> None:
        """The locator learns where a trained encoder looks, unless this training goes on from a checkpoint."""
        super().on_train_start()
        if self.learned and self.trainer.global_step == 0:
            assert self.model.locator is not None
            foresee_encoder(self.model.locator, self.model.model.encoder, self.prepared)

    def batch_loss(self, images: Tensor, batch: Batch, geometry: Geometry, number: int) -> Tensor:
        locator, encoder = self.model.locator, self.model.model.encoder
        assert locator is not None
        with torch.autocast(images.device.type, enabled=False):
            scores = locator(images.float())  # [B, N]
        positions = half_by(self.for_all(scores.detach()), self.count, self.generator)[self.own]  # [B, K]
        x = self.model.before_last(images, positions)  # [B, P+K+G, D]
        logits = self.model.model.classify(encoder.read(encoder.blocks[-1](x)))
        with torch.no_grad():
            row = encoder.class_row(len(encoder.blocks) - 1, x).mean(dim=1)  # [B, K+G]
        looked = sharpened(row[:, : self.count])  # [B, K]
        foreseen = F.cross_entropy(scores.gather(1, positions), looked / looked.sum(dim=1, keepdim=True))
        return self.loss(logits.float(), batch.labels) + foreseen

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        kept = self.count + self.model.coarse
        self.val_outputs.append((self.model(self.normalise(batch.images), kept).float(), batch.labels))

    def configure_optimizers(self) -> Any:
        """As in fine-tuning; glance and locator learn at the top's rate."""
        groups = layerwise_groups(self.model, self.rate, self.settings.weight_decay, self.settings.layer_decay)
        return self.with_schedule(groups, betas=(0.9, 0.999))


def half_by(scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions [B, count] of patches: the half with the largest scores [B, N], and any others."""
    chance = torch.rand(scores.shape, generator=generator).to(scores.device)
    best = scores.topk(count // 2, dim=1).indices
    return chance.scatter(1, best, 2.0).topk(count, dim=1).indices


def train_coarse(
    model: Classifier, prepared: Prepared, run: Path, *, save: Callable[[Selection, dict[str, Any]], None]
) -> None:
    """Train, or go on. ``save`` is called once, by the main process, with the trained selection and how it looks:
    ``selector`` and ``keep``, the share of the tokens that are encoded."""
    selection = selection_for(model)
    tokens = checked_tokens(prepared, model)
    way = {"selector": selection.selector, "keep": tokens / model.encoder.patches}
    learned = bool(prepared.origin) or (run / "pretrained").is_dir()
    module = CoarseFineModule(selection, prepared, tokens=tokens, learned=learned)
    train_supervised(module, run, save=lambda: save(selection, way))


def checked_tokens(prepared: Prepared, model: Classifier) -> int:
    """How many tokens are encoded.

    Raises:
        UserError: so few that none is left for a patch, or more than there are patches.
    """
    share, encoder = prepared.settings.finetune.share, model.encoder
    assert share != "mixed"  # the settings refuse it
    tokens, coarse = tokens_for(encoder, share), math.prod(glance_of(encoder))
    require(
        coarse + 2 <= tokens < encoder.patches,
        f"a share of {share} is {tokens} of {encoder.patches} tokens, and the whole image takes {coarse}"
        if share is not None
        else f"an image of {encoder.patches} patches is too small to be seen coarse and fine",
        where="finetune.share" if share is not None else "finetune.draw",
        mend=f"give at least {share_for(coarse + 2, encoder.patches)}"
        if share is not None
        else "set a larger --model.image_size",
    )
    return tokens
