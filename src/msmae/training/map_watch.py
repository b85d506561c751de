"""Watching over a pre-training how well the maps find the lesions of validation images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from msmae.evaluation.map_quality import lesion_patches, map_auroc, pointing, role_shares
from msmae.method.msmae import MSMAE
from msmae.training.maps import draw_of_arm, maps_of_arm
from msmae.training.prepare import Prepared
from msmae.training.trainer import StageModule

WATCHED = 200
"""Validation images that the maps are watched on."""
FILE = "map_quality.csv"


class MapWatch(Callback):
    """Writes to RUN/map_quality.csv how well the maps of validation images find their lesions, over pre-training.

    Every arm is watched in the same epochs: before the first, every ``refresh_every``, and after the last. It draws
    from a generator of its own, so that watching changes nothing.
    """

    def __init__(self, prepared: Prepared, model: MSMAE, run: Path) -> None:
        self.prepared, self.model, self.path = prepared, model, run / FILE
        self.ids = watched(prepared)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = self.prepared.settings.pretrain.refresh_every
        assert every is not None
        if trainer.current_epoch % every == 0:
            self.look(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.look(trainer, pl_module)

    def look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Add the figures after so many epochs, unless the file has them: a resumed run looks once."""
        if not trainer.is_global_zero or not len(self.ids):
            return
        assert isinstance(module, StageModule)
        epoch = trainer.current_epoch
        if self.path.is_file() and any(line.startswith(f"{epoch},") for line in self.path.read_text().splitlines()):
            return
        figures = self.figures(module)
        new = not self.path.is_file()
        with self.path.open("a", encoding="utf-8") as file:
            if new:
                file.write(f"epoch,{','.join(figures)}\n")
            file.write(f"{epoch},{','.join(f'{value:.6f}' for value in figures.values())}\n")

    def figures(self, module: StageModule) -> dict[str, float]:
        """The figures of the model as it is."""
        model, arm, store = self.model, self.prepared.arm, self.prepared.store
        training = model.training
        model.eval()
        with module.forward_precision():
            maps = torch.cat(
                [maps_of_arm(arm, model, module.normalise(b.images)).cpu() for b in self.prepared.batches(self.ids, 64)]
            )
        model.train(training)
        lesion = lesion_patches(torch.from_numpy(store.fetch_masks(self.ids)), model.encoder.patch_size)
        return {
            "auroc": map_auroc(maps, lesion),
            "pointing": pointing(maps, lesion),
            **role_shares(
                maps, lesion, torch.Generator().manual_seed(0), draw=draw_of_arm(arm, self.prepared.settings.pretrain)
            ),
        }


def watched(prepared: Prepared) -> np.ndarray:
    """The first validation images whose masks show a lesion; none where the data has no masks."""
    if prepared.store.masks is None:
        return np.array([], dtype=np.int64)
    ids = prepared.ids("val", labelled=False)
    return ids[prepared.store.fetch_masks(ids).any(axis=(1, 2))][:WATCHED]
