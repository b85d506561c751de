"""Supervised masked pre-training: random masking first, then attention-guided masking."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msmae.config import check_adaptation
from msmae.data.loader import Batch
from msmae.method.attention import MapBank, patch_maps
from msmae.method.classifier import Classifier
from msmae.method.masking import Draw, PatchPlan
from msmae.method.msmae import MSMAE, msmae_loss
from msmae.runs.checkpoint import build_model, save_model
from msmae.runs.resume import BEFORE, LAST
from msmae.training.cards import card_of
from msmae.training.maps import refresh_bank
from msmae.training.optimiser import layerwise_groups
from msmae.training.prepare import Prepared
from msmae.training.selecting.coarse import checked_tokens
from msmae.training.start import fill
from msmae.training.trainer import StageModule, check_trainer, fit, make_trainer

log = logging.getLogger("msmae")

WARM_UP = Draw(masked=0.75, dropped=0.0, map="none")
"""Random masking until an arm's own draw begins (as the released code does)."""


class PretrainModule(StageModule):
    """One arm's pre-training. The schedule lives here; the model only ever receives a plan."""

    def __init__(self, model: MSMAE, prepared: Prepared) -> None:
        settings, arm = prepared.settings.pretrain, prepared.arm
        ids = prepared.ids("train", labelled=False)
        super().__init__(prepared, settings, ids=ids)
        self.model, self.settings, self.arm = model, settings, arm
        self.draw = prepared.draw
        self.label_weight = settings.weight_of_labels(arm)
        if settings.label_weight and not self.label_weight:
            log.info("%s learns no labels: pretrain.label_weight is not used", prepared.method)
        self.bank = MapBank(torch.from_numpy(ids), model.encoder.grid)

    @property
    def warming_up(self) -> bool:
        """Whether this epoch masks uniformly, at the ratio of the plain masked autoencoder."""
        assert self.settings.uniform_epochs is not None
        return self.current_epoch < self.settings.uniform_epochs

    def refresh_due(self) -> bool:
        """Whether the attention maps are to be refreshed before this epoch."""
        assert self.settings.uniform_epochs is not None
        assert self.settings.refresh_every is not None
        guided = self.arm.guided and not self.warming_up
        return guided and (self.current_epoch - self.settings.uniform_epochs) % self.settings.refresh_every == 0

    def say_what_begins(self) -> None:
        """One line where an arm's own draw takes the place of the warm-up's."""
        draw = self.draw
        if self.current_epoch != self.settings.uniform_epochs or draw == WARM_UP:
            return
        kind = "attention-guided masking" if draw.follows_maps else "random masking"
        shares = f"{100 * draw.masked:.0f} % masked, {100 * draw.dropped:.0f} % dropped"
        log.info("epoch %d: %s begins, %s", self.current_epoch + 1, kind, shares)

    def on_train_epoch_start(self) -> None:
        if self.trainer.is_global_zero:
            self.say_what_begins()
        if self.refresh_due():
            self.refresh(self.train_ids)

    def refresh(self, ids: np.ndarray) -> None:
        """Refresh the attention maps of these training images, and log what the maps are like."""
        share = ids[self.global_rank :: self.trainer.world_size]
        batches = self.prepared.batches(share, 4 * self.batch_size)
        with self.forward_precision():
            figures = refresh_bank(self.bank, self.model, batches, self.normalise, self.maps)
        self.log_dict(figures, rank_zero_only=True)

    def maps(self, images: Tensor) -> Tensor:
        """Attention maps [B, h, w] of whole normalised images [B, C, H, W]."""
        return patch_maps(self.model.encoder, images)

    def plan(self, maps: Tensor) -> PatchPlan:
        """The plan of a batch from its aligned maps [B, h, w]."""
        draw = WARM_UP if self.warming_up else self.draw
        return draw.plan(self.for_all(maps), self.generator)[self.own]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ids = batch.ids.cpu()
        geometry = self.draw_geometry(len(ids), scale=self.settings.crop_scale, flip=self.settings.flip)
        images = geometry.apply(self.normalise(batch.images), self.prepared.image_size)
        maps = self.draw.maps(self.bank, self.for_all(ids), self.generator)[self.own]  # [B, h, w], of whole images
        plan = self.plan(geometry.apply_to_maps(maps, self.bank.grid)).to(self.device)
        losses = msmae_loss(
            images,
            self.model(images, plan),
            plan,
            batch.labels,
            patch_size=self.model.encoder.patch_size,
            label_weight=self.label_weight,
            normalise_pixels=self.settings.normalise_pixels,
            softmax_twice=self.arm.softmax_twice,
        )
        self.log("reconstruction", losses.reconstruction, prog_bar=True)
        if self.label_weight:  # what is not learned is not shown as if it were
            self.log("label", losses.label, prog_bar=True)
        return self.guard(losses.total, ids)

    def configure_optimizers(self) -> Any:
        """AdamW (0.9, 0.95); weight decay on matrices only."""
        groups = layerwise_groups(self.model, self.rate, self.settings.weight_decay)
        return self.with_schedule(groups, betas=(0.9, 0.95))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["map_bank"] = self.bank.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bank.load_state_dict(checkpoint["map_bank"])


def check_training(prepared: Prepared) -> None:
    """Find out what would stop the training later: the weights to start from, the machine's settings.

    Raises:
        UserError: the weights do not fit, Lightning refuses the trainer's settings, or a setting would have no effect.
    """
    check_adaptation(prepared.settings, prepared.method, started=prepared.start is not None)
    model = build_model(card_of(prepared, "pretrained"))
    assert isinstance(model, MSMAE)
    if prepared.start is not None:
        fill(model.encoder, prepared.start)
    check_trainer(prepared.settings.trainer)
    if prepared.settings.finetune.draw == "coarse":
        classifier = build_model(card_of(prepared, "classifier"))
        assert isinstance(classifier, Classifier)
        checked_tokens(prepared, classifier)


def pretrain_model(prepared: Prepared, run: Path) -> None:
    """Pre-train into RUN/pretrained, or continue from RUN/checkpoints/last.ckpt."""
    card = card_of(prepared, "pretrained")
    torch.manual_seed(prepared.seed)
    model = build_model(card)
    assert isinstance(model, MSMAE)
    if prepared.start is not None:
        log.warning("encoder weights from %s\n%s", prepared.start.path, fill(model.encoder, prepared.start, run))
    module = PretrainModule(model, prepared)
    assert prepared.settings.pretrain.epochs is not None
    trainer = make_trainer(
        run,
        "pretrain",
        epochs=prepared.settings.pretrain.epochs,
        settings=prepared.settings.trainer,
        callbacks=[],
        accumulate=prepared.settings.pretrain.accumulate,
    )
    done, resume, before = (run / "checkpoints" / name for name in ("pretrain.ckpt", LAST, BEFORE))
    fit(trainer, module, checkpoints=[done, resume, before])  # done: killed before the model was saved
    if trainer.is_global_zero:
        before.unlink(missing_ok=True)
        if resume.is_file():
            resume.replace(done)  # fine-tuning must not take it for its own
        save_model(run / "pretrained", model, card)
    trainer.strategy.barrier()
