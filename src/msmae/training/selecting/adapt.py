"""Preparing a fine-tuned classifier for a selection of the tokens: what inference drops, training drops too.

First the locator learns, from the training images, to foresee what the classifier's answers hang on. Then a copy of
the classifier goes on learning from the tokens that the locator keeps, another number of them in every step; the
classifier itself sees everything, stays as it is, and teaches. How much of the quarter is a glance is tried shortly: a
copy each, of which the better one on validation goes on. It is stored beside the model, so predictions from all
patches remain what they were.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msmae.data.loader import Batch
from msmae.method.attention import MapBank
from msmae.method.classifier import Classifier
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import describe_selection, load_model, save_selection
from msmae.runs.folder import write_json
from msmae.selection.locator import Glance, Locator, locator_width
from msmae.selection.selectors import Selection
from msmae.selection.sensitivity import sensitivity, widened
from msmae.training.optimiser import layerwise_groups
from msmae.training.prepare import Prepared
from msmae.training.selecting.locate import scaled_by, teach_locator
from msmae.training.supervised import SupervisedModule, disagreement, train_supervised

LEAST, MOST = 0.125, 0.5
"""Shares of the tokens that are kept in training."""
TEACHING = 0.5
"""Weight of the all-patch classifier's answers; the rest is the labels'."""
TRIED = 0.2
"""Share of the preparing for which every glance is tried; the better one then has all of it."""
GLANCES = (1 / 4, 3 / 8)
"""Sides of the glance over the patch grid's that are tried."""
PRESENTATIONS = 2
"""Images shown for each that fine-tuning was, unless told otherwise: a quarter of the tokens is cheaper."""
CELL = 4
"""Pixels to which the locator shrinks a patch's side."""


def adapt_model(prepared: Prepared, run: Path, *, presentations: int | None, selector: str = "locator") -> None:
    """Prepare RUN's model, and write RUN/model/keep.safetensors; an unfinished training in RUN/keep is gone on with.

    ``presentations``: images shown; None: in proportion to fine-tuning's.
    """
    network, card = load_model(run / "model")
    assert isinstance(network, Classifier)
    images, epochs = len(prepared.ids("train")), prepared.settings.finetune.epochs
    assert epochs is not None
    if presentations is None:
        presentations = PRESENTATIONS * epochs * images
    torch.manual_seed(prepared.seed + 2)
    found: dict[str, Any] = {}
    locator = new_locator(network.encoder) if selector == "locator" else None
    if locator is not None:
        found["foreseen"] = fit_locator(locator, network, prepared, presentations=presentations)
        locator.requires_grad_(False)
    short, whole = (max(1, round(share * presentations / images)) for share in (TRIED, 1))
    selections: dict[str, Selection] = {}
    losses: dict[str, float] = {}
    for rows, columns in glances(network.encoder):
        student = student_of(network, prepared.settings.finetune.drop_path)
        glance, name = Glance(student.encoder, (rows, columns)), f"{rows}x{columns}"
        selections[name] = Selection(student, selector=selector, locator=locator, glance=glance)
        losses[name] = train_selection(selections[name], network, prepared, folder_of(run, name, short), epochs=short)
    name = min(losses, key=losses.__getitem__)
    selection, found = selections[name], found | {"presentations": whole * images, "glances": losses}

    def save(loss: float) -> None:
        keep = describe_selection(selection) | found | {"loss": loss}
        save_selection(run / "model", selection, dataclasses.replace(card, keep=keep))

    train_selection(selection, network, prepared, folder_of(run, name, short, whole), epochs=whole, save=save)
    for needless in (run / "keep").glob("*/checkpoints"):  # nothing goes on from there any more
        shutil.rmtree(needless, ignore_errors=True)  # another process may be at it, too


def folder_of(run: Path, glance: str, *epochs: int) -> Path:
    """Where a selection is trained: what is found there was begun with the same glance for as many epochs."""
    return run / "keep" / "-".join([glance, *map(str, epochs)])


def new_locator(encoder: VisionTransformer) -> Locator:
    """A locator that reads a shrunken image."""
    return Locator(encoder, width=locator_width(encoder), cell=CELL)


def glances(encoder: VisionTransformer) -> list[tuple[int, int]]:
    """The glances (rows, columns) to try: those that leave a patch of a quarter of the tokens, or a single token."""
    height, width = encoder.grid
    grids = [(max(1, round(share * height)), max(1, round(share * width))) for share in GLANCES]
    return list(dict.fromkeys(grid for grid in grids if math.prod(grid) < encoder.patches // 4)) or [(1, 1)]


def with_epochs(prepared: Prepared, epochs: int) -> Prepared:
    """Fine-tuning's settings for so many epochs."""
    finetune = dataclasses.replace(prepared.settings.finetune, epochs=epochs)
    return dataclasses.replace(prepared, settings=dataclasses.replace(prepared.settings, finetune=finetune))


def fit_locator(locator: Locator, classifier: Classifier, prepared: Prepared, *, presentations: int) -> float:
    """Teach a locator what the classifier's answers hang on; gives back how well it foresees it on validation.

    That is the share of the weight of the quarter most telling patches that the locator's quarter has.
    """
    normalise = scaled_by(prepared)

    train = prepared.ids("train", labelled=False)
    bank = MapBank(torch.from_numpy(train), classifier.encoder.grid)
    for batch in prepared.batches(train, 256):
        bank.refresh(batch.ids, wanted_patches(classifier, normalise(batch.images)))
    teach_locator(locator, bank, train, prepared, presentations=presentations)
    shares = [
        foreseen(locator, classifier, normalise(batch.images)) for batch in prepared.batches(prepared.ids("val"), 256)
    ]
    return float(torch.cat(shares).mean())


def wanted_patches(classifier: Classifier, images: Tensor) -> Tensor:
    """What an answer hangs on, and around it: [B, h, w], the same for an image and its mirror image."""
    both = (sensitivity(classifier, images) + sensitivity(classifier, images.flip(-1)).flip(-1)) / 2
    return widened(both)


@torch.no_grad()
def foreseen(locator: Locator, classifier: Classifier, images: Tensor) -> Tensor:
    """Of each image, the weight of the locator's quarter of the patches over that of the best quarter, [B]."""
    wanted, scores = wanted_patches(classifier, images).flatten(1), locator(images)
    quarter = max(1, wanted.shape[1] // 4)
    found, best = (wanted.gather(1, order.topk(quarter, dim=1).indices).sum(dim=1) for order in (scores, wanted))
    return found / best.clamp(min=1e-12)


def train_selection(
    selection: Selection,
    teacher: Classifier,
    prepared: Prepared,
    folder: Path,
    *,
    epochs: int,
    save: Callable[[float], None] = lambda _: None,
) -> float:
    """Train a selection in a folder, or go on with it; gives back the validation loss from a quarter of the tokens.

    ``save`` is called with that loss, by the main process.
    """
    module, told = AdaptModule(selection, teacher, with_epochs(prepared, epochs)), folder / "loss.json"

    def measure() -> None:
        write_json(told, {"loss": loss_of_quarter(module)})
        save(told_loss(told))

    train_supervised(module, folder, save=measure)
    return told_loss(told)


def told_loss(path: Path) -> float:
    """The loss that the main process wrote down, so that all processes know it."""
    return float(json.loads(path.read_text(encoding="utf-8"))["loss"])


@torch.no_grad()
def loss_of_quarter(module: AdaptModule) -> float:
    """The validation loss from a quarter of the tokens."""
    module.eval()
    for number, batch in enumerate(module.val_dataloader()):
        module.validation_step(batch, number)
    return float(module.val_loss(*module.val_answers()))


class AdaptModule(SupervisedModule):
    """Trains a selection, its locator excepted, with the classifier of all patches as teacher."""

    model: Selection

    def __init__(self, selection: Selection, teacher: Classifier, prepared: Prepared) -> None:
        super().__init__(selection, prepared)
        self.teacher = (teacher.eval(),)  # in a tuple, so that it is no part of what is trained and saved
        self.patches = selection.model.encoder.patches

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ids = batch.ids.cpu()
        images, _ = self.augment(batch.images)
        share = LEAST + (MOST - LEAST) * float(torch.rand((), generator=self.generator))
        kept = max(self.model.coarse + 1, int(share * self.patches))
        logits = self.model(images, kept, self.generator).float()
        with torch.no_grad():
            taught = self.teacher[0].to(self.device)(images).float()
        loss = (1 - TEACHING) * self.loss(logits, batch.labels) + TEACHING * disagreement(logits, taught, batch.labels)
        self.log("loss", loss, prog_bar=True)
        return self.guard(loss, ids)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        kept = max(self.model.coarse + 1, self.patches // 4)
        self.val_outputs.append((self.model(self.normalise(batch.images), kept).float(), batch.labels))

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise rates, as in fine-tuning; the glance learns at the top's rate."""
        groups = layerwise_groups(self.model, self.rate, self.settings.weight_decay, self.settings.layer_decay)
        return self.with_schedule(groups, betas=(0.9, 0.999))


def student_of(classifier: Classifier, drop_path: float) -> Classifier:
    """A copy to train, with stochastic depth rising to ``drop_path``."""
    student = copy.deepcopy(classifier).requires_grad_(True)
    rates = torch.linspace(0, drop_path, len(student.encoder.blocks)).tolist()
    for block, rate in zip(student.encoder.blocks, rates, strict=True):
        block.drop_path.rate = rate  # type: ignore[union-attr]
    return student
