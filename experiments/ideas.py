"""Ideas that have no place in the library until they earn one:  python experiments/ideas.py IDEA

Each idea takes the place of the module of one training stage; all else is a comparison like those of arms.py, of
`msmae` on the phantom with small lesions (rare-classes: on HAM10000). Collects into results/DATA+IDEA; what was
expected and what came out is in docs/lab-notes.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from arms import compare_arms
from studies import IDEA_STUDIES
from torch import Tensor

from msmae.data.geometry import Geometry
from msmae.method.masking import PatchPlan, draw_order, patch_counts, tempered
from msmae.method.msmae import MSMAE
from msmae.method.vit import gather_tokens, patchify
from msmae.training import finetune, pretrain

QUARTERS = 4
QUARTER_EPOCHS = 20


class EasyToHard(pretrain.PretrainModule):
    """The draw is even at first, and follows the maps more closely from epoch to epoch: at the end as they say."""

    def plan(self, maps: Tensor) -> PatchPlan:
        return super().plan(tempered(maps, uniform_share=self.even_share()))

    def even_share(self) -> float:
        """1 in the first epoch of guided masks, 0 in the last."""
        first, epochs = self.settings.uniform_epochs, self.settings.epochs
        assert first is not None
        assert epochs is not None
        return min(1.0, (epochs - 1 - self.current_epoch) / max(1, epochs - 1 - first))


class Blocks(pretrain.PretrainModule):
    """Blocks of two by two patches are masked, thrown or kept together, each drawn by the mean of its weights."""

    def plan(self, maps: Tensor) -> PatchPlan:
        if self.warming_up:
            return super().plan(maps)
        return plan_blocks(maps, self.draw.masked, self.draw.dropped, self.generator)


class HardPatches(pretrain.PretrainModule):
    """The maps say what is badly reconstructed, not what is attended."""

    def maps(self, images: Tensor) -> Tensor:
        return difficulty(self.model, images, self.generator)


class SteadyMaps(pretrain.PretrainModule):
    """Maps change by half from refresh to refresh: the bank keeps the mean of the new and of what it held."""

    def on_train_epoch_start(self) -> None:
        before, refreshes = self.bank.maps.clone(), self.bank.refreshes
        super().on_train_epoch_start()
        if 0 < refreshes < self.bank.refreshes:
            self.bank.maps = (before + self.bank.maps) / 2


class RareClasses(pretrain.PretrainModule):
    """Images of every class but the commonest have their maps made anew before each epoch of guided masks."""

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if not self.warming_up and not self.refresh_due():
            self.refresh(rarer(self.train_ids, self.prepared.targets))


class QuarterThenAll(finetune.FinetuneModule):
    """Fine-tuning sees an even quarter of the patches for 20 epochs, and all of them afterwards."""

    def classify(self, images: Tensor, ids: Tensor, geometry: Geometry, number: int) -> Tensor:
        keep = None
        if self.current_epoch < QUARTER_EPOCHS:
            even = torch.ones(len(images), *self.bank.grid)
            keep = pretrain.WARM_UP.plan(even, self.generator).keep.to(images.device)
        logits: Tensor = self.model(images, keep)
        return logits


def plan_blocks(weights: Tensor, mask_ratio: float, throw_ratio: float, generator: torch.Generator) -> PatchPlan:
    """A plan of weights [B, h, w] in blocks of two by two; h and w are even, and the ratios give whole blocks."""
    _, height, width = weights.shape
    blocks = F.avg_pool2d(weights.unsqueeze(1), 2)  # [B, 1, h/2, w/2]
    order = draw_order(blocks.flatten(1), generator)  # [B, N/4]
    cells = patchify(torch.arange(height * width).reshape(1, 1, height, width), 2)[0]  # [N/4, 4]
    patches = cells[order].flatten(1)  # [B, N]
    masked, thrown, _ = patch_counts(height * width, mask_ratio, throw_ratio)
    return PatchPlan(patches[:, masked + thrown :], patches[:, :masked], patches[:, masked : masked + thrown])


@torch.no_grad()
def difficulty(model: MSMAE, images: Tensor, generator: torch.Generator) -> Tensor:
    """How badly each patch of images [B, C, H, W] is told from other quarters of them: maps [B, h, w] in [0, 1]."""
    order = draw_order(torch.ones(len(images), model.encoder.patches), generator).to(images.device)  # [B, N]
    quarters = order.chunk(QUARTERS, dim=1)
    patches = patchify(images, model.encoder.patch_size)  # [B, N, P]
    errors = torch.zeros(patches.shape[:2], device=images.device)
    for keep in quarters:
        mask = torch.cat([quarter for quarter in quarters if quarter is not keep], dim=1)
        pixels = model(images, PatchPlan(keep, mask, mask[:, :0])).pixels.float()  # [B, M, P]
        errors.scatter_add_(1, mask, (pixels - gather_tokens(patches, mask)).square().mean(dim=2))
    low, high = errors.amin(dim=1, keepdim=True), errors.amax(dim=1, keepdim=True)
    return ((errors - low) / (high - low).clamp(min=1e-12)).reshape(-1, *model.encoder.grid)


def rarer(ids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Those of the sample ids [n] whose class (targets of all samples; under 0: none) is not the commonest."""
    classes = targets[ids]
    commonest = np.bincount(classes[classes >= 0]).argmax()
    return ids[(classes >= 0) & (classes != commonest)]


@dataclass(frozen=True)
class Modules:
    """The modules of the two training stages under an idea."""

    pretrain: type[pretrain.PretrainModule] = pretrain.PretrainModule
    finetune: type[finetune.FinetuneModule] = finetune.FinetuneModule


MODULES = {
    "again": Modules(),
    "easy-to-hard": Modules(EasyToHard),
    "blocks": Modules(Blocks),
    "hard-patches": Modules(HardPatches),
    "steady-maps": Modules(SteadyMaps),
    "rare-classes": Modules(RareClasses),
    "quarter-then-all": Modules(finetune=QuarterThenAll),
}
"""``again`` differs in nothing, and shows how far apart two trainings lie."""


def main() -> None:
    """Train under one idea."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("idea", choices=MODULES)
    parser.add_argument("--seeds", nargs="+")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    modules, data = MODULES[asked.idea], next(name for name in IDEA_STUDIES if name.endswith(f"+{asked.idea}"))
    pretrain.PretrainModule, finetune.FinetuneModule = modules.pretrain, modules.finetune  # type: ignore[misc]
    wanted = argparse.Namespace(**vars(asked), data=data, scale="cpu", arms=None, weights=False)
    compare_arms(IDEA_STUDIES[data], wanted)


if __name__ == "__main__":
    main()
