"""Does the map find the lesion? Figures for maps of images whose lesion masks are known.

``auroc``: the chance that a lesion patch is attended more than a patch of the same image without lesion, 0.5 for a map
that knows nothing. ``pointing``: how often the most attended patch bears lesion (the pointing game, Zhang et al., arXiv
1608.00507). ``masked``, ``thrown``, ``kept``: what a plan drawn from the map does with lesion patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from msmae.method.attention import patch_maps
from msmae.method.masking import KEPT, MASKED, THROWN, plan_patches

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from msmae.stages.prepare import Prepared
    from msmae.stages.pretrain import PretrainModule

LESION_COVER = 0.25
"""A patch bears lesion when at least this share of its pixels does, or when it holds most of a smaller lesion."""
WATCHED = 200
"""Validation images that the maps are watched on."""
FILE = "map_quality.csv"


def lesion_patches(masks: Tensor, patch_size: int) -> Tensor:
    """Which patches bear lesion, bool [B, N], from pixel masks [B, H, W]."""
    cover = F.avg_pool2d((masks > 0).float().unsqueeze(1), patch_size).flatten(1)  # [B, N]
    largest = cover.amax(dim=1, keepdim=True).clamp(max=LESION_COVER)
    return (cover >= largest) & (cover > 0)


def map_auroc(maps: Tensor, lesion: Tensor) -> float:
    """Mean over the images of the area under the ROC curve of a map [B, h, w] against its lesion patches [B, N].

    Images all of whose patches bear lesion, or none, have no such area and are left out; nan where no image is left.
    """
    flat = maps.flatten(1).double()
    bearing = lesion.double()
    below = (flat.unsqueeze(1) < flat.unsqueeze(2)).double()  # [B, N, N]: patch j is attended less than patch i
    equal = (flat.unsqueeze(1) == flat.unsqueeze(2)).double()
    wins = torch.einsum("bi,bij,bj->b", bearing, below + 0.5 * equal, 1 - bearing)
    pairs = bearing.sum(dim=1) * (1 - bearing).sum(dim=1)
    return float((wins[pairs > 0] / pairs[pairs > 0]).mean())


def pointing(maps: Tensor, lesion: Tensor) -> float:
    """Share of the images [B, h, w] whose most attended patch bears lesion [B, N]."""
    return float(lesion.gather(1, maps.flatten(1).argmax(dim=1, keepdim=True)).float().mean())


def role_shares(
    maps: Tensor, lesion: Tensor, generator: torch.Generator, *, ratios: tuple[float, float], draws: int = 20
) -> dict[str, float]:
    """Share of the lesion patches [B, N] that plans from the maps mask, throw and keep."""
    roles = torch.stack([plan_patches(maps, *ratios, generator).roles() for _ in range(draws)])  # [R, B, N]
    on_lesion = roles[:, lesion]
    names = (("masked", MASKED), ("thrown", THROWN), ("kept", KEPT))
    return {name: float((on_lesion == role).float().mean()) for name, role in names}


def lesion_shares(
    maps: Tensor, lesion: Tensor, generator: torch.Generator, *, ratios: tuple[float, float] = (0.45, 0.30)
) -> dict[str, Any]:
    """What becomes of the lesion patches [B, N] under plans from maps [B, h, w], beside plans at random."""
    return {
        "images": len(maps),
        "patches_an_image": float(lesion.sum(dim=1).float().mean()),
        "guided": role_shares(maps, lesion, generator, ratios=ratios),
        "random": role_shares(torch.ones_like(maps), lesion, generator, ratios=ratios),
        "most_attended_patch_on_lesion": pointing(maps, lesion),
        "map_auroc": map_auroc(maps, lesion),
    }


class MapWatch(Callback):
    """Writes to RUN/map_quality.csv how well the maps of validation images find their lesions, over pre-training.

    Every arm is watched in the same epochs: before the first, every ``refresh_every``, and after the last. It draws
    from a generator of its own, so that watching changes nothing.
    """

    def __init__(self, prepared: Prepared, run: Path) -> None:
        self.path = run / FILE
        self.prepared = prepared
        self.ids = watched(prepared)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        every = self.prepared.settings.pretrain.refresh_every
        assert every is not None
        if trainer.current_epoch % every == 0:
            self.look(trainer, pl_module, trainer.current_epoch)  # type: ignore[arg-type]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.look(trainer, pl_module, trainer.current_epoch)  # type: ignore[arg-type]

    def look(self, trainer: pl.Trainer, module: PretrainModule, epoch: int) -> None:
        """Add the figures after so many epochs, unless the file has them: a resumed run looks once."""
        if not trainer.is_global_zero or not len(self.ids):
            return
        if self.path.is_file() and any(line.startswith(f"{epoch},") for line in self.path.read_text().splitlines()):
            return
        figures = self.figures(module)
        new = not self.path.is_file()
        with self.path.open("a", encoding="utf-8") as file:
            if new:
                file.write(f"epoch,{','.join(figures)}\n")
            file.write(f"{epoch},{','.join(f'{value:.6f}' for value in figures.values())}\n")

    def figures(self, module: PretrainModule) -> dict[str, float]:
        """The figures of the encoder as it is."""
        encoder, store = module.model.encoder, self.prepared.store
        training = encoder.training
        encoder.eval()
        with module.forward_precision():
            maps = torch.cat(
                [patch_maps(encoder, module.normalise(b.images)).cpu() for b in self.prepared.batches(self.ids, 64)]
            )
        encoder.train(training)
        lesion = lesion_patches(torch.from_numpy(store.fetch_masks(self.ids)), encoder.patch_size)
        ratios = (module.arm.mask_ratio, module.arm.throw_ratio)
        return {
            "auroc": map_auroc(maps, lesion),
            "pointing": pointing(maps, lesion),
            **role_shares(maps, lesion, torch.Generator().manual_seed(0), ratios=ratios),
        }


def watched(prepared: Prepared) -> np.ndarray:
    """The first validation images whose masks show a lesion; none where the data has no masks."""
    if prepared.store.masks is None:
        return np.array([], dtype=np.int64)
    ids = prepared.ids("val", labelled=False)
    return ids[prepared.store.fetch_masks(ids).any(axis=(1, 2))][:WATCHED]
