"""Training the segmenter: Dice and cross-entropy, one geometry for image and mask, chosen by the validation Dice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msmae.data.loader import Batch
from msmae.files import write_whole
from msmae.method.dice import make_loss
from msmae.method.segmenter import Segmenter
from msmae.runs.checkpoint import build_model, read_checkpoint, save_model
from msmae.runs.resume import (
    BEFORE,
    BEST,
    LAST,
    BestCheckpoint,
    StopEarly,
    forget_unless_best,
)
from msmae.training.cards import card_of
from msmae.training.optimiser import averaging_of, layerwise_groups
from msmae.training.prepare import Prepared
from msmae.training.segment_data import class_layers
from msmae.training.start import fill
from msmae.training.trainer import StageModule, check_trainer, fit, make_trainer

AUXILIARY = 0.4
"""Weight of each further head under deep supervision (SETR, arXiv 2012.15840)."""
GENTLE = 0.1
"""The share of its rate that an encoder gets which has learned already: the decoder beside it begins from nothing."""


class SegmentModule(StageModule):
    """Supervised training on whole images, with layer-wise rates and averaged weights.

    The loss is the Dice loss over the batch plus the cross-entropy. Dice weighs every class by its own area, which
    is what rare classes and small lesions need; over the batch rather than the image it is steady for empty masks.
    """

    def __init__(self, model: Segmenter, prepared: Prepared) -> None:
        settings = prepared.settings.segment
        ids = prepared.ids("train", labelled=False)
        super().__init__(prepared, settings, ids=ids)
        self.model, self.settings = model, settings
        self.classes, self.overlapping = len(settings.class_names), bool(prepared.manifest.mask_classes)
        self.loss = make_loss(exclusive=self.classes > 1 and not self.overlapping)
        self.sums: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ids = batch.ids.cpu()
        settings = self.settings
        geometry = self.draw_geometry(len(ids), scale=settings.crop_scale, flip=settings.flip, rotate=settings.rotate)
        images = geometry.apply(self.normalise(batch.images), self.prepared.image_size)
        masks = torch.from_numpy(self.prepared.store.fetch_masks(ids.numpy())).to(self.device)
        target = self.target(geometry.apply_to_masks(masks, self.prepared.image_size))
        heads = self.model.heads(self.jittered(images, settings.jitter))
        losses = [self.loss(logits.float(), target) for logits in heads]
        loss = losses[-1] + AUXILIARY * sum(losses[:-1])
        self.log("loss", loss, prog_bar=True)
        return self.guard(loss, ids)

    def target(self, masks: Tensor) -> Tensor:
        """Masks [B, H, W] as the store holds them -> what the loss compares with: class numbers [B, 1, H, W] where
        classes exclude each other, else 0 and 1 for each class [B, classes, H, W]."""
        if self.classes > 1 and not self.overlapping:
            return masks.unsqueeze(1).float()
        if not self.overlapping:
            return (masks > 0).unsqueeze(1).float()
        bits = torch.arange(self.classes, dtype=torch.uint8, device=masks.device).view(1, -1, 1, 1)
        return ((masks.unsqueeze(1) >> bits) & 1).float()

    def val_dataloader(self) -> Any:
        return self.prepared.batches(self.prepared.ids("val", labelled=False), 4 * self.batch_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        inside = torch.from_numpy(class_layers(self.prepared, batch.ids.cpu().numpy())).to(self.device).flatten(2)
        said = decide(self.model(self.normalise(batch.images)).float(), classes=self.classes).flatten(2)
        both, areas = (inside & said).sum(2).flatten(), (inside.sum(2) + said.sum(2)).flatten()  # [B * classes]
        self.sums.append(torch.stack([2 * both, areas], dim=1).float())

    def on_validation_epoch_end(self) -> None:
        overlap, areas = torch.cat(self.sums).unbind(1)
        self.sums.clear()
        shown = areas > 0  # where nothing is to be outlined and nothing is, Dice is undefined
        dice = (overlap[shown] / areas[shown]).mean() if shown.any() else torch.zeros((), device=self.device)
        self.log("val_dice", dice, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise learning-rate decay in the encoder; the decoder learns at the full rate."""
        settings, encoder = self.settings, GENTLE if self.prepared.origin else 1.0
        groups = layerwise_groups(self.model, self.rate, settings.weight_decay, settings.layer_decay, encoder=encoder)
        return self.with_schedule(groups, betas=(0.9, 0.999))


def decide(logits: Tensor, *, classes: int) -> Tensor:
    """Logits [B, outputs, H, W] -> where each class is, bool [B, classes, H, W]."""
    if logits.shape[1] == classes:
        return logits > 0
    numbers = torch.arange(1, classes + 1, device=logits.device).view(1, -1, 1, 1)
    return logits.argmax(dim=1, keepdim=True) == numbers


def check_segmenter(prepared: Prepared) -> None:
    """Find out what would stop the training later: weights that do not fit, or a trainer that Lightning refuses."""
    model = build_model(card_of(prepared, "segmenter"))
    assert isinstance(model, Segmenter)
    if prepared.start is not None:
        fill(model.encoder, prepared.start)
    check_trainer(prepared.settings.trainer)


def segment_model(prepared: Prepared, run: Path) -> None:
    """Train into RUN/model, or continue from RUN/checkpoints/last.ckpt."""
    card, settings = card_of(prepared, "segmenter"), prepared.settings.segment
    torch.manual_seed(prepared.seed + 2)
    model = build_model(card, drop_path=settings.drop_path)
    assert isinstance(model, Segmenter)
    if prepared.start is None:
        nothing = "encoder weights: none, training starts from nothing"
        write_whole(run / "loading.txt", f"{nothing}\n")
        print(nothing)
    else:
        print(f"encoder weights from {prepared.start.path}\n{fill(model.encoder, prepared.start, run)}")
    forget_unless_best(run)
    assert settings.epochs is not None
    trainer = make_trainer(
        run,
        "segment",
        epochs=settings.epochs,
        settings=prepared.settings.trainer,
        callbacks=[
            *averaging_of(model, settings.ema, warm=bool(prepared.origin)),
            *([StopEarly("val_dice", mode="max", patience=settings.patience)] if settings.patience else []),
            BestCheckpoint(run, monitor="val_dice", mode="max"),
        ],
        accumulate=settings.accumulate,
    )
    folder = run / "checkpoints"
    fit(trainer, SegmentModule(model, prepared), checkpoints=[folder / LAST, folder / BEFORE])
    if trainer.is_global_zero:
        chosen = read_checkpoint(folder / BEST)
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in chosen["state_dict"].items() if k.startswith(prefix)}
        model.load_state_dict(state)
        save_model(run / "model", model, card)
    trainer.strategy.barrier()
