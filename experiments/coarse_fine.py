"""Recipe 2, coarse and fine: the whole image at 112 px, and 32 of its 576 patches at 336 px.

    python experiments/coarse_fine.py [--arms ...] [--seeds 0 1]

A phantom of 336 px whose lesions are 9 px wide; DINOv2 ViT-S/14 from MSMAE_WEIGHTS, or ../shared/weights; eight epochs
an arm. What differs is which 32 patches are seen close up: any (random), those in the middle (centre), those that the
mask of the lesion touches (oracle: a bound, and no method), those that a small locator chooses (located:
`--finetune.draw coarse`). Rivals are whole images: 140 px, which cost 3 % less, 154 px, which cost 17 % more, and
336 px. Runs go to runs/experiments/phantom-336+coarse/ARM/SEED, results to results/phantom-336+coarse.npz. Killed, the
same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from arms import PUBLIC, REPOSITORY
from collect import add, files_of
from PIL import Image
from pretrained import WEIGHTS
from torch import Tensor

import msmae
from msmae.data.geometry import Geometry
from msmae.data.loader import Batch
from msmae.data.phantom import make_phantom
from msmae.evaluation.calibrate import calibrate
from msmae.evaluation.evaluate import predictions_frame
from msmae.inference.model import load
from msmae.method.classifier import Classifier
from msmae.runs.checkpoint import build_model
from msmae.selection.cost import selection_macs
from msmae.selection.locator import Glance, glance_of
from msmae.selection.selectors import Selection
from msmae.statistics.predictions import write_predictions
from msmae.training.cards import card_of
from msmae.training.optimiser import layerwise_groups
from msmae.training.prepare import Prepared, prepare, prepare_again
from msmae.training.start import fill
from msmae.training.supervised import SupervisedModule, train_supervised
from msmae.verbs.begin import TRAINING, settings_of

STUDY = "phantom-336+coarse"
IMAGES, SIDE, LESION, SEED = 2400, 336, 9 / 336, 20261129
EPOCHS, FINE, PATCH = 8, 32, 14
WHOLE = {"140-all": 140, "154-all": 154, "336-all": SIDE}
ARMS = ("140-all", "154-all", "coarse-oracle", "coarse-located", "coarse-random", "coarse-centre", "336-all")


class CoarseFine(SupervisedModule):
    """Fine-tunes a classifier on a glance at the whole image and on 32 patches of it."""

    model: Selection

    def __init__(self, model: Selection, prepared: Prepared, *, chooses: str) -> None:
        super().__init__(model, prepared)
        self.chooses = chooses

    def scores(self, images: Tensor, ids: Tensor, geometry: Geometry | None) -> Tensor:
        """What is looked at first, [B, N]: larger scores. Ties are broken by chance."""
        encoder = self.model.model.encoder
        rows, columns = encoder.grid
        count = len(images)
        chance = torch.rand(count, encoder.patches, generator=self.generator)
        if self.chooses == "centre":
            y, x = torch.meshgrid(torch.arange(rows) - (rows - 1) / 2, torch.arange(columns) - (columns - 1) / 2)
            return -(y**2 + x**2).flatten().expand(count, -1) + 0.1 * chance
        if self.chooses == "oracle":
            masks = torch.from_numpy(self.prepared.store.fetch_masks(ids.numpy()) > 0).float()  # [B, H, W]
            if geometry is not None:
                masks = geometry.apply_to_masks(masks, self.prepared.image_size)
            return (F.max_pool2d(masks.unsqueeze(1), encoder.patch_size).flatten(1) > 0).float() + 0.5 * chance
        return chance

    def positions(self, images: Tensor, ids: Tensor, geometry: Geometry | None = None) -> Tensor:
        """The patches that are seen close up, [B, K]."""
        return self.scores(images, ids, geometry).topk(FINE, dim=1).indices

    def batch_loss(self, images: Tensor, batch: Batch, geometry: Geometry, number: int) -> Tensor:
        logits = self.model.read(images, self.positions(images, batch.ids.cpu(), geometry))
        return self.loss(logits.float(), batch.labels)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images = self.normalise(batch.images)
        logits = self.model.read(images, self.positions(images, batch.ids.cpu()))
        self.val_outputs.append((logits.float(), batch.labels))

    def configure_optimizers(self) -> Any:
        """As in fine-tuning; the locator has its own."""
        groups = layerwise_groups(self.model, self.rate, self.settings.weight_decay, self.settings.layer_decay)
        return self.with_schedule(groups, betas=(0.9, 0.999))


@torch.inference_mode()
def answers(module: CoarseFine, split: str) -> pd.DataFrame:
    """The predictions of one split, not calibrated."""
    prepared, rows = module.prepared, module.prepared.ids(split)
    parts = []
    for some in np.array_split(rows, max(1, len(rows) // 32)):
        images = module.normalise(torch.from_numpy(prepared.store.fetch(some).astype(np.float32)))
        parts.append(
            module.model.read(images, module.positions(images, torch.from_numpy(some))).double().softmax(dim=1)
        )
    return predictions_frame(torch.cat(parts).numpy(), prepared, rows)


@torch.inference_mode()
def lesions_found(module: CoarseFine) -> float | None:
    """Of the test images' patches with lesion in them, the share that is seen close up."""
    prepared, rows = module.prepared, module.prepared.ids("test")
    found = every = 0.0
    for some in np.array_split(rows, max(1, len(rows) // 32)):
        images = module.normalise(torch.from_numpy(prepared.store.fetch(some).astype(np.float32)))
        masks = torch.from_numpy(prepared.store.fetch_masks(some) > 0).float().unsqueeze(1)
        lesion = F.max_pool2d(masks, module.model.model.encoder.patch_size).flatten(1)  # [B, N]
        seen = torch.zeros_like(lesion).scatter_(1, module.positions(images, torch.from_numpy(some)), 1.0)
        found, every = found + float((seen * lesion).sum()), every + float(lesion.sum())
    return found / every if every else None


def tell_fixed_rules(phantom: Path, out: Path) -> Path:
    """Of the test images' patches with lesion in them, the share among the 32 that a rule without learning puts first:
    the middle, the darkest, and those with the largest contrast to their 5 x 5 surroundings. OUT holds them."""
    table = pd.read_csv(phantom / "manifest.csv", keep_default_na=False)
    table = table[(table["split"] == "test") & (table["mask_path"] != "")]
    found, every = dict.fromkeys(("middle", "dark", "contrast"), 0.0), 0.0
    rows = torch.arange(SIDE // PATCH) - (SIDE / PATCH - 1) / 2
    middle = -(rows[:, None] ** 2 + rows**2).flatten()  # [N]
    for image, mask in zip(table["image_path"], table["mask_path"], strict=True):
        pixels, lesion = (
            torch.from_numpy(np.asarray(Image.open(phantom / name))).float()[None, None] for name in (image, mask)
        )
        touched = F.max_pool2d(lesion, PATCH).flatten() > 0
        contrast = (pixels - F.avg_pool2d(pixels, 5, 1, 2)).abs()
        dark = -F.avg_pool2d(pixels, PATCH).flatten()
        for name, scores in (("middle", middle), ("dark", dark), ("contrast", F.max_pool2d(contrast, PATCH).flatten())):
            found[name] += float(touched[scores.topk(FINE).indices].sum())
        every += float(touched.sum())
    out.write_text(json.dumps({name: value / every for name, value in found.items()}) + "\n")
    return out


def tell_lesions_found(run: Path) -> None:
    """The same of a finished run of msmae, added to RUN/metrics.json."""
    prepared, model = prepare_again(run), load(run)
    found = every = 0.0
    for some in np.array_split(prepared.ids("test"), 16):
        masks = torch.from_numpy(prepared.store.fetch_masks(some) > 0).float().unsqueeze(1)
        lesion = F.max_pool2d(masks, model.card.patch_size).flatten(1)  # [B, N]
        seen = torch.zeros_like(lesion).scatter_(
            1, model.looked_at(prepared.store.fetch(some).astype(np.float32), 1.0), 1
        )
        found, every = found + float((seen * lesion).sum()), every + float(lesion.sum())
    told = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**told, "lesions_found": found / every}) + "\n")


def train(prepared: Prepared, run: Path, *, chooses: str) -> None:
    """Train an arm that sees coarse and fine, and write RUN/predictions.csv and RUN/metrics.json."""
    torch.manual_seed(prepared.seed + 1)
    model = build_model(card_of(prepared, "classifier"), drop_path=prepared.settings.finetune.drop_path)
    assert isinstance(model, Classifier)
    assert prepared.start is not None
    fill(model.encoder, prepared.start)
    selection = Selection(model, selector="random", glance=Glance(model.encoder, glance_of(model.encoder)))
    module, began = CoarseFine(selection, prepared, chooses=chooses), time.process_time()
    train_supervised(module, run, save=lambda: None)
    seconds = time.process_time() - began
    module.eval()
    frame = pd.concat([answers(module, split) for split in ("val", "test")], ignore_index=True)
    write_predictions(calibrate(frame, prepared)[0], run / "predictions.csv")
    macs = selection_macs(selection, FINE + selection.coarse).total
    cost = {"gmacs_train": macs / 1e9, "gmacs_predict": macs / 1e9, "seconds_finetune": seconds}
    (run / "metrics.json").write_text(json.dumps({"cost": cost, "lesions_found": lesions_found(module)}) + "\n")


def main() -> None:
    """Train what is asked for, and collect it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    asked = parser.parse_args()
    work = REPOSITORY / "runs" / "experiments" / STUDY
    manifest = make_phantom(work / "phantom", images=IMAGES, size=SIDE, lesion=LESION, seed=SEED)
    rules = tell_fixed_rules(work / "phantom", work / "rules.json")
    add(work, [rules], REPOSITORY / "results", STUDY, roots=[work])
    for seed in asked.seeds:
        for arm in asked.arms:
            run = work / arm / str(seed)
            given: dict[str, Any] = {
                "model": {"image_size": WHOLE.get(arm, SIDE)},
                "finetune": {"epochs": asked.epochs},
            }
            if not (run / "metrics.json").is_file():
                if arm in WHOLE or arm == "coarse-located":
                    fine = given["finetune"] | ({} if arm in WHOLE else {"draw": "coarse"})
                    msmae.run(
                        str(work / "phantom"), out=str(run), init=str(WEIGHTS), seed=seed, model=given["model"],
                        finetune=fine,
                    )  # fmt: skip
                    if arm == "coarse-located":
                        tell_lesions_found(run)
                else:
                    chosen, start = settings_of("auto", None, given, groups=TRAINING, seed=seed, weights=str(WEIGHTS))
                    prepared = prepare(manifest, settings=chosen, method="vit", seed=seed, start=start)
                    run.mkdir(parents=True, exist_ok=True)
                    train(prepared, run, chooses=arm.removeprefix("coarse-"))
            add(work, files_of(run), REPOSITORY / "results", STUDY, roots=[PUBLIC, WEIGHTS.parent, work, REPOSITORY])


if __name__ == "__main__":
    main()
