"""Fine-tuning: a classifier from the pre-trained encoder, on all patches or on those the arm's own masking keeps."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from msmae.data.geometry import random_geometry
from msmae.data.loader import Batch
from msmae.exchange.checkpoint import ModelCard, build_model, load_model, pretrained_part, save_model
from msmae.exchange.weights import load_encoder
from msmae.method.attention import MapBank
from msmae.method.masking import POLICIES, plan_patches
from msmae.method.msmae import MSMAE, label_loss
from msmae.method.transfer import Classifier
from msmae.stages.balance import decide_balance
from msmae.stages.prepare import Prepared
from msmae.stages.pretrain import pretrained_card
from msmae.stages.refresh import refresh_bank
from msmae.stages.training import StageModule, decayed, last_checkpoint, make_trainer


class FinetuneModule(StageModule):
    """Supervised training with layer-wise rates, drop path and label smoothing; chosen by the validation loss."""

    def __init__(self, model: Classifier, prepared: Prepared) -> None:
        settings = prepared.settings.finetune
        ids = prepared.ids("train")
        super().__init__(prepared, batch_size=settings.batch_size, ids=ids, warmup=settings.lr_warmup)
        self.model, self.settings, self.arm = model, settings, prepared.arm
        self.bank = MapBank(torch.from_numpy(ids), model.encoder.grid)
        self.ratios = prepared.settings.pretrain.ratios(prepared.arm)
        self.balance = decide_balance(prepared)
        for name in ("weights", "shift", "even"):
            self.register_buffer(name, getattr(self.balance, name), persistent=False)
        self.val_outputs: list[tuple[Tensor, Tensor]] = []

    def train_dataloader(self) -> Any:
        return dataclasses.replace(super().train_dataloader(), chances=self.balance.chances)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        assert self.settings.refresh_every is not None
        guided = self.settings.draw == "own" and self.arm.policy in ("attention", "shuffled")
        if guided and self.current_epoch % self.settings.refresh_every == 0:  # before the first step too
            share = self.train_ids[self.global_rank :: self.trainer.world_size]
            batches = self.prepared.batches(share, 4 * self.batch_size)
            with self.forward_precision():
                figures = refresh_bank(self.bank, self.model.encoder, batches, self.normalise)
            self.log_dict(figures, rank_zero_only=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ids = batch.ids.cpu()
        geometry = random_geometry(
            len(ids), scale=self.settings.crop_scale, flip=self.settings.flip, generator=self.generator
        )
        images = geometry.apply(self.normalise(batch.images), self.prepared.image_size)
        images = jitter(images, self.settings.jitter, self.generator)
        keep = None
        if self.settings.draw == "own":
            maps = POLICIES[self.arm.policy](self.bank, ids, self.generator)
            weights = geometry.apply_to_maps(maps, self.bank.grid)
            keep = plan_patches(weights, *self.ratios, self.generator).keep.to(self.device)
        logits = self.model(images, keep).float()
        loss = self.loss(logits, batch.labels)
        self.log("loss", loss, prog_bar=True)
        return self.guard(loss, ids)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Label-smoothed cross-entropy (binary for multi-label), balanced as decided."""
        assert isinstance(self.weights, Tensor)
        assert isinstance(self.shift, Tensor)
        smoothing = self.settings.label_smoothing
        return label_loss(logits + self.shift, labels, smoothing=smoothing, weights=self.weights)

    def val_dataloader(self) -> Any:
        return self.prepared.batches(self.prepared.ids("val"), 4 * self.batch_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_outputs.append((self.model(self.normalise(batch.images)).float(), batch.labels))

    def on_validation_epoch_end(self) -> None:
        logits, labels = (torch.cat(parts) for parts in zip(*self.val_outputs, strict=True))
        self.val_outputs.clear()
        assert isinstance(self.even, Tensor)
        self.log("val_loss", label_loss(logits, labels, weights=self.even), prog_bar=True, sync_dist=True)
        self.log("val_balanced_accuracy", balanced_accuracy(logits, labels), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW (0.9, 0.999) with layer-wise learning-rate decay (BEiT, arXiv 2106.08254)."""
        rate = self.settings.base_lr * self.batch_size * self.trainer.world_size / 256
        top = len(self.model.encoder.blocks) + 1
        groups = [
            {
                "params": [parameter],
                "lr": rate * self.settings.layer_decay ** (top - layer_of(name, top)),
                "weight_decay": self.settings.weight_decay if decayed(name, parameter) else 0.0,
            }
            for name, parameter in self.model.named_parameters()
        ]
        return self.with_schedule(groups, betas=(0.9, 0.999))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["map_bank"] = self.bank.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bank.load_state_dict(checkpoint["map_bank"])


def layer_of(name: str, top: int) -> int:
    """0 for the embedding, 1.. for the blocks, ``top`` for the final norm and the head."""
    block = re.match(r"encoder\.blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return 0 if name.startswith(("encoder.patch_embed", "encoder.cls_token", "encoder.pos_embed")) else top


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random contrast and brightness of normalised images [B, C, H, W], each with this standard deviation."""
    if strength == 0:
        return images
    draws = strength * torch.randn(2, len(images), 1, 1, 1, generator=generator).to(images.device)
    return images * (1 + draws[0]) + draws[1]


def balanced_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes of the share found of each; for multi-label, the share of all yes/no answers that is right.

    A figure to watch the training by; the evidence has its own.
    """
    if labels.is_floating_point():
        return ((logits > 0) == (labels > 0.5)).float().mean()
    hits = (logits.argmax(dim=1) == labels).float()
    return torch.stack([hits[labels == c].mean() for c in range(logits.shape[1]) if (labels == c).any()]).mean()


def classifier_card(prepared: Prepared) -> ModelCard:
    """The card of the classifier that these settings make."""
    pool = prepared.settings.finetune.pool or prepared.arm.pool
    return dataclasses.replace(pretrained_card(prepared), kind="classifier", pool=pool, decoder={})


def finetune_model(prepared: Prepared, run: Path, *, init: Path | None = None) -> None:
    """Fine-tune RUN/pretrained (or fresh weights, or ``init``) into RUN/model; continues from checkpoints/last.ckpt."""
    card, settings = classifier_card(prepared), prepared.settings.finetune
    torch.manual_seed(prepared.seed + 1)
    model = build_model(card, drop_path=settings.drop_path)
    assert isinstance(model, Classifier)
    if (run / "pretrained").is_dir():
        source, _ = load_model(run / "pretrained")
        assert isinstance(source, MSMAE)
        model.encoder.load_state_dict(pretrained_part(source))
    elif init is not None:
        print(load_encoder(model.encoder, init))
    best = ModelCheckpoint(
        dirpath=run / "checkpoints", filename="best", monitor="val_loss", mode="min", enable_version_counter=False
    )
    averaging: list[Callback] = [EMAWeightAveraging(decay=settings.ema)] if settings.ema else []
    assert settings.epochs is not None
    trainer = make_trainer(
        run,
        "finetune",
        epochs=settings.epochs,
        settings=prepared.settings.trainer,
        callbacks=[*averaging, best, last_checkpoint(run)],
    )
    resume = run / "checkpoints" / "last.ckpt"
    trainer.fit(FinetuneModule(model, prepared), ckpt_path=str(resume) if resume.is_file() else None)
    if trainer.is_global_zero:
        chosen = torch.load(run / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=False)
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in chosen["state_dict"].items() if k.startswith(prefix)}
        model.load_state_dict(state)
        save_model(run / "model", model, card)
    trainer.strategy.barrier()
