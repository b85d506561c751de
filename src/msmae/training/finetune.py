"""Fine-tuning: a classifier from the pre-trained encoder, on all patches or on a share of them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msmae.data.geometry import Geometry
from msmae.data.loader import Batch
from msmae.method.attention import MapBank, patch_maps
from msmae.method.classifier import Classifier
from msmae.method.lora import add_lora, freeze_first, merge_lora
from msmae.method.msmae import MSMAE
from msmae.runs.checkpoint import build_model, load_model, pretrained_part, save_model, with_keep
from msmae.selection.selectors import Selection
from msmae.training.cards import card_of
from msmae.training.maps import refresh_bank
from msmae.training.optimiser import averaged_weights, layerwise_groups
from msmae.training.prepare import Prepared
from msmae.training.probe import fit_probe
from msmae.training.selecting.coarse import train_coarse
from msmae.training.start import fill
from msmae.training.supervised import SupervisedModule, disagreement, train_supervised
from msmae.training.views import CYCLE, WHOLE, draw_for, follows_maps, share_of

TEMPERATURE = 2.0
"""At which the answer from a quarter is pulled to the answer from all patches (Hinton et al., arXiv 1503.02531)."""


class FinetuneModule(SupervisedModule):
    """A classifier on a pre-trained encoder, with layer-wise rates; it may see only a share of the patches."""

    model: Classifier

    def __init__(self, model: Classifier, prepared: Prepared) -> None:
        super().__init__(model, prepared)
        self.bank = MapBank(torch.from_numpy(self.train_ids), model.encoder.grid)

    def on_train_epoch_start(self) -> None:
        assert self.settings.refresh_every is not None
        if follows_maps(self.prepared) and self.current_epoch % self.settings.refresh_every == 0:
            self.refresh()  # before the first step too: then the maps are those of the start

    def refresh(self) -> None:
        """Refresh the attention maps, and log what they are like: of the averaged weights, where weights are averaged;
        the paper's draw (own) follows the weights as they are."""
        share = self.train_ids[self.global_rank :: self.trainer.world_size]
        batches = self.prepared.batches(share, 4 * self.batch_size)
        averaged = nullcontext() if self.settings.draw == "own" else averaged_weights(self.trainer, self)
        with self.forward_precision(), averaged:
            figures = refresh_bank(self.bank, self.model, batches, self.normalise, self.maps)
        self.log_dict(figures, rank_zero_only=True)

    def maps(self, images: Tensor) -> Tensor:
        """Attention maps [B, h, w] of whole normalised images [B, C, H, W]."""
        return patch_maps(self.model.encoder, images)

    def keep(self, ids: Tensor, geometry: Geometry, share: float) -> Tensor | None:
        """Positions [B, K] of the patches that a batch of crops keeps; None: all."""
        draw = draw_for(self.prepared, share)
        if draw is None:
            return None
        maps = draw.maps(self.bank, self.for_all(ids), self.generator)[self.own]  # [B, h, w]
        maps = geometry.apply_to_maps(maps, self.bank.grid)
        return draw.plan(self.for_all(maps), self.generator)[self.own].keep.to(self.device)

    @property
    def sees_whole(self) -> bool:
        """Whether this is one of the last steps, in which ``finetune.share`` mixed sees all patches."""
        begins = (1 - WHOLE) * int(self.trainer.estimated_stepping_batches)
        return self.settings.share == "mixed" and self.global_step >= begins

    def batch_loss(self, images: Tensor, batch: Batch, geometry: Geometry, number: int) -> Tensor:
        if not self.sees_whole:
            return super().batch_loss(images, batch, geometry, number)
        whole = self.model(images).float()  # [B, classes]
        part = self.model(images, self.keep(batch.ids.cpu(), geometry, CYCLE[0])).float()
        taught = disagreement(part, whole.detach(), batch.labels, temperature=TEMPERATURE)
        return self.loss(whole, batch.labels) + taught

    def classify(self, images: Tensor, ids: Tensor, geometry: Geometry, number: int) -> Tensor:
        logits: Tensor = self.model(images, self.keep(ids, geometry, share_of(self.prepared, number)))
        return logits

    def configure_optimizers(self) -> Any:
        """AdamW (0.9, 0.999) with layer-wise learning-rate decay (BEiT, arXiv 2106.08254)."""
        groups = layerwise_groups(self.model, self.rate, self.settings.weight_decay, self.settings.layer_decay)
        return self.with_schedule(groups, betas=(0.9, 0.999))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["map_bank"] = self.bank.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bank.load_state_dict(checkpoint["map_bank"])


def finetune_model(prepared: Prepared, run: Path) -> None:
    """Fine-tune RUN/pretrained (or the start, or fresh weights) into RUN/model; go on from checkpoints/last.ckpt."""
    card, settings = card_of(prepared, "classifier"), prepared.settings.finetune
    torch.manual_seed(prepared.seed + 1)
    model = build_model(card, drop_path=settings.drop_path)
    assert isinstance(model, Classifier)
    if (run / "pretrained").is_dir():
        source, _ = load_model(run / "pretrained")
        assert isinstance(source, MSMAE)
        model.encoder.load_state_dict(pretrained_part(source))
    elif prepared.start is not None:
        print(fill(model.encoder, prepared.start, run))
    if prepared.arm.frozen:
        fit_probe(prepared, run, model, card)
        return
    if settings.lora:
        add_lora(model.encoder, settings.lora)
    freeze_first(model.encoder, settings.freeze)

    def save(selection: Selection | None = None, way: dict[str, Any] | None = None) -> None:
        merge_lora(model.encoder)
        own = with_keep(card, own=way) if way else card
        save_model(run / "model", model, own, selection=selection)

    if settings.draw == "coarse":
        train_coarse(model, prepared, run, save=save)
    else:
        train_supervised(FinetuneModule(model, prepared), run, save=save)
