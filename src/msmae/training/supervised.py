"""Supervised training of any classifier: the part that fine-tuning shares with the networks it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from msmae.data.geometry import Geometry
from msmae.data.loader import Batch
from msmae.method.msmae import label_loss
from msmae.runs.checkpoint import read_checkpoint
from msmae.runs.resume import (
    BEFORE,
    BEST,
    LAST,
    BestCheckpoint,
    StopEarly,
    forget_unless_best,
)
from msmae.training.balance import decide_balance
from msmae.training.optimiser import averaging_of, layerwise_groups
from msmae.training.prepare import Prepared
from msmae.training.trainer import StageModule, fit, make_trainer


class SupervisedModule(StageModule):
    """Crops, flips, jitter, a balanced and label-smoothed loss; the epoch is chosen by the validation loss."""

    def __init__(self, model: nn.Module, prepared: Prepared) -> None:
        settings = prepared.settings.finetune
        super().__init__(prepared, settings, ids=prepared.ids("train"))
        self.model, self.settings = model, settings
        self.balance = decide_balance(prepared)
        for name in ("weights", "shift", "even"):
            self.register_buffer(name, getattr(self.balance, name), persistent=False)
        self.val_outputs: list[tuple[Tensor, Tensor]] = []

    def train_dataloader(self) -> Any:
        return dataclasses.replace(super().train_dataloader(), chances=self.balance.chances)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, geometry = self.augment(batch.images)
        loss = self.batch_loss(images, batch, geometry, batch_idx)
        self.log("loss", loss, prog_bar=True)
        return self.guard(loss, batch.ids.cpu())

    def batch_loss(self, images: Tensor, batch: Batch, geometry: Geometry, number: int) -> Tensor:
        """The loss of one training batch, the ``number``-th of its epoch: of its augmented images [B, C, H, W]."""
        return self.loss(self.classify(images, batch.ids.cpu(), geometry, number).float(), batch.labels)

    def augment(self, images: Tensor) -> tuple[Tensor, Geometry]:
        """Normalised images [B, C, H, W], cropped, flipped and jittered; and the geometry that was drawn for them."""
        settings = self.settings
        geometry = self.draw_geometry(
            len(images), scale=settings.crop_scale, flip=settings.flip, rotate=settings.rotate
        )
        images = geometry.apply(self.normalise(images), self.prepared.image_size)
        return self.jittered(images, settings.jitter), geometry

    def classify(self, images: Tensor, ids: Tensor, geometry: Geometry, number: int) -> Tensor:
        """Logits [B, classes] of one training batch, the ``number``-th of its epoch."""
        logits: Tensor = self.model(images)
        return logits

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
        logits, labels = self.val_answers()
        self.log("val_loss", self.val_loss(logits, labels), prog_bar=True, sync_dist=True)
        self.log("val_balanced_accuracy", balanced_accuracy(logits, labels), prog_bar=True, sync_dist=True)

    def val_answers(self) -> tuple[Tensor, Tensor]:
        """Logits and labels of the validation images since the last call."""
        logits, labels = (torch.cat(parts) for parts in zip(*self.val_outputs, strict=True))
        self.val_outputs.clear()
        return logits, labels

    def val_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy without smoothing, classes counting alike where training balances them."""
        assert isinstance(self.even, Tensor)
        return label_loss(logits, labels, weights=self.even)

    def configure_optimizers(self) -> Any:
        """AdamW (0.9, 0.999); weight decay on matrices only."""
        groups = layerwise_groups(self.model, self.rate, self.settings.weight_decay)
        return self.with_schedule(groups, betas=(0.9, 0.999))


def train_supervised(module: SupervisedModule, run: Path, *, save: Callable[[], None]) -> None:
    """Train, or continue from RUN/checkpoints/last.ckpt; ``save`` is called once, by the main process.

    ``module.model`` then has the weights of the epoch with the least validation loss.
    """
    settings = module.settings
    forget_unless_best(run)
    assert settings.epochs is not None
    every = epochs_between_validations(len(module.train_ids), len(module.prepared.ids("val")), settings.epochs)
    trainer = make_trainer(
        run,
        "finetune",
        epochs=settings.epochs,
        settings=module.prepared.settings.trainer,
        callbacks=[
            *averaging_of(module.model, settings.ema, warm=bool(module.prepared.origin)),
            LastIsValidated(),
            *([StopEarly("val_loss", mode="min", patience=settings.patience)] if settings.patience else []),
            BestCheckpoint(run, monitor="val_loss", mode="min"),
        ],
        accumulate=settings.accumulate,
        validate_every=every,
    )
    folder = run / "checkpoints"
    fit(trainer, module, checkpoints=[folder / LAST, folder / BEFORE])
    if trainer.is_global_zero:
        chosen = read_checkpoint(folder / BEST)
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in chosen["state_dict"].items() if k.startswith(prefix)}
        module.model.load_state_dict(state)
        save()
        if 2 <= settings.epochs == chosen["epoch"] + 1:
            more = f"--finetune.epochs {2 * settings.epochs}"
            print(f"the last epoch was the best on validation: training longer may help ({more})")
    trainer.strategy.barrier()


LEAST_VALIDATIONS = 50
"""At least so many epochs are validated where not all are: enough to choose among."""


def epochs_between_validations(train: int, val: int, epochs: int) -> int:
    """1; or, in a training of many epochs by far fewer images than validate, as many as show the network about as many
    images as one validation does, which would take most of the time otherwise.
    """
    return max(1, min(val // train, epochs // LEAST_VALIDATIONS))


class LastIsValidated(Callback):
    """The last epoch is validated, also where only every n-th is."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


def disagreement(logits: Tensor, taught: Tensor, labels: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of the answers [B, C] against a teacher's, both softened by the temperature, times its square
    (Hinton et al., arXiv 1503.02531); binary where the labels are."""
    soft, target = logits / temperature, taught / temperature
    if labels.is_floating_point():
        return temperature**2 * F.binary_cross_entropy_with_logits(soft, target.sigmoid())
    return temperature**2 * F.cross_entropy(soft, target.softmax(dim=1))


def balanced_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes of the share found of each; for multi-label, of the mean of sensitivity and specificity, of
    the classes that some images have and others have not (none: nan).

    A figure to watch the training by; the evidence has its own.
    """
    if not labels.is_floating_point():
        hits = (logits.argmax(dim=1) == labels).float()
        return torch.stack([hits[labels == c].mean() for c in range(logits.shape[1]) if (labels == c).any()]).mean()
    right = ((logits > 0) == (labels > 0.5)).float()  # [n, C]; nan: not known, and asked for below
    halves = [[right[labels[:, c] == flag, c] for flag in (0, 1)] for c in range(logits.shape[1])]
    both = [torch.stack([half.mean() for half in pair]).mean() for pair in halves if all(map(len, pair))]
    return torch.stack(both).mean() if both else torch.tensor(float("nan"), device=logits.device)
