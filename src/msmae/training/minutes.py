"""``--minutes N``: what fits into a time on this machine, from a few timed steps.

The whole command is meant, from the audit to the report. What is decided is written to config.yaml, and a second run
from that file is exact. Order of what is given up where time is short: image size first, then epochs; where not even
two epochs at the smallest size fit, the encoder stays frozen and a head learns (``probe``). What time is left after
that makes the images larger.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from msmae.config import FinetuneSettings, Settings, TrainerSettings, find_arm
from msmae.data.manifest import Manifest
from msmae.data.opening import reading_of
from msmae.encoders.spec import build_encoder
from msmae.encoders.start import HARDWARE, LARGEST, RECIPE
from msmae.encoders.weights import Weights
from msmae.errors import UserError, count
from msmae.inference.packed import packed
from msmae.machine import choose_precision, finish, median_seconds
from msmae.method.classifier import Classifier
from msmae.method.cost import classifier_macs
from msmae.runs.folder import read_run
from msmae.training.decide import sampled

AIM = 0.93
"""Share of the time that is planned for: machines are slower at times than when they were asked. Whole epochs end
below it: with 0.85, five runs ended after 0.68 to 0.82 of their time."""
EPOCHS, MOST_EPOCHS, FEWEST_EPOCHS = 8, 30, 2
"""Epochs that a larger image must leave room for; that are worth their time; that are fewer than worth it."""
PRESENTATIONS = 34_000
"""Images seen in training that are enough, too, for a larger image: 5 epochs of HAM10000."""
LIMIT = 224
"""Side in pixels beyond which accuracy was not seen to grow."""
SMALLEST, ENLARGED = 4, 8
"""Patches along a side of the smallest image, and of the one that smaller files may be enlarged to."""
POOLED = 3000
"""Training images that are seen once more where patients have several, to fit how their answers are pooled."""
REPORT = 20.0
"""Seconds for intervals, pictures and the report."""
IMAGES = 16
"""In a timed step, of eight patches along a side; of smaller ones so many that there are as many tokens."""
STEPS, SMALLEST_BATCH = 200, 8
"""Steps below which batches are made smaller; images of the smallest."""


@dataclass(frozen=True)
class Rates:
    """Seconds an image, at one image size."""

    size: int
    train: float
    predict: float


@dataclass(frozen=True)
class Amounts:
    """Images by what becomes of them, and what was spent and is still to be spent on reading them."""

    train: int
    val: int
    test: int
    spent: float
    """Seconds since the command began."""
    reading: float
    """Seconds that decoding all images will take."""
    models: int = 1
    """So many models are trained; ``train``, ``val`` and ``test`` are the images of all of them."""
    pooled: int = 0
    """Images that are seen once more, to pool the answers of a patient."""


@dataclass(frozen=True)
class Decided:
    """What is trained: the image's side in pixels and the epochs; 0 epochs: a probe on the frozen encoder."""

    size: int
    epochs: int
    seconds: float
    """Of the whole command, as expected."""

    def line(self, minutes: float) -> str:
        """One sentence for the terminal."""
        what = count(self.epochs, "epoch") if self.epochs else "a probe on the frozen encoder"
        return f"{minutes:g} minutes: {what} at {self.size} px, about {self.seconds / 60:.1f} minutes in all"


def decide(
    minutes: float,
    sizes: list[int],
    rates: Callable[[int], Rates],
    amounts: Amounts,
    *,
    epochs: int | None = None,
    frozen: bool = False,
) -> Decided:
    """As many epochs as fit at the smallest of some sizes (ascending), up to ``EPOCHS`` or ``PRESENTATIONS``; then the
    largest size at which as many still fit. Where even the fewest do not: a probe, at the largest size at which it
    fits.

    Args:
        minutes: of the whole command.
        rates: what an image costs at a size.
        epochs: as many are asked for; None: as many as fit.
        frozen: a probe is asked for.

    Raises:
        UserError: not even a probe at the smallest size fits.
    """
    budget = 60 * minutes * AIM

    def fixed(size: int) -> float:
        predicted = (2 * amounts.val + amounts.test + amounts.pooled) * rates(size).predict
        return amounts.spent + amounts.reading + REPORT + predicted

    def epoch(size: int) -> float:
        return amounts.train * rates(size).train + amounts.val * rates(size).predict

    def probe(size: int) -> float:
        return fixed(size) + (amounts.train + amounts.val) * rates(size).predict

    def fits(size: int) -> int:
        return int((budget - fixed(size)) // epoch(size))

    fewest, most = (FEWEST_EPOCHS, MOST_EPOCHS) if epochs is None else (epochs, epochs)
    enough = min(EPOCHS, math.ceil(PRESENTATIONS * amounts.models / max(1, amounts.train)))
    wanted = max(fewest, min(enough, fits(sizes[0]))) if epochs is None else epochs
    for size in reversed(sizes):
        if not frozen and fits(size) >= wanted:
            trained = min(fits(size), most)
            return Decided(size, trained, fixed(size) + trained * epoch(size))
    for size in reversed(sizes):
        if (frozen or epochs is None) and probe(size) <= budget:
            return Decided(size, 0, probe(size))
    seconds = probe(sizes[0]) if epochs is None else fixed(sizes[0]) + epochs * epoch(sizes[0])
    raise UserError(
        f"--minutes {minutes:g} is too little: the quickest way through these images takes about {seconds / 60:.1f}",
        where="--minutes",
        mend=f"give at least {math.ceil(seconds / 60 / AIM)}",
    )


def with_enough_steps(fine: FinetuneSettings, *, images: int) -> FinetuneSettings:
    """Smaller batches where there are too few images for enough steps, and a rate that suits them (it falls with the
    root of the batch). A batch size or a rate that is not the recipe's is the user's, and stays.

    Args:
        images: training images.
    """
    assert fine.epochs is not None
    if (fine.batch_size, fine.base_lr) != (RECIPE["batch_size"], RECIPE["base_lr"]):
        return fine
    batch = fine.batch_size
    while batch > SMALLEST_BATCH and fine.epochs * math.ceil(images / batch) < STEPS:
        batch //= 2
    return dataclasses.replace(fine, batch_size=batch, base_lr=fine.base_lr * math.sqrt(fine.batch_size / batch))


def candidate_sizes(own: int, limit: int, patch: int) -> list[int]:
    """Image sides to choose from, by about an eighth: from four patches to the files' own side, or to eight patches
    where that is less; within a limit."""
    least = SMALLEST * patch
    largest = max(least, min(max(ENLARGED * patch, own), limit) // patch * patch)
    sizes = [least]
    while sizes[-1] < largest:
        step = max(patch, round(sizes[-1] / 8 / patch) * patch)
        sizes.append(min(largest, sizes[-1] + step))
    return sizes


def time_steps(
    weights: Weights, *, classes: int, channels: int, batch: int, sizes: Sequence[int], machine: TrainerSettings
) -> Callable[[int], Rates]:
    """A function that says what an image costs at any size: timed at one or two ``sizes``, in the trainer's precision,
    and from there on the line through them over the multiply-accumulates."""

    def measure(size: int) -> Rates:
        middle = ENLARGED * weights.spec.patch_size
        images = min(batch, max(IMAGES, round(IMAGES * (middle / size) ** 2)))
        model = Classifier(build_encoder(weights.spec, (size, size), channels=channels), classes=classes).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
        pixels = torch.randn(images, channels, size, size, device=device)

        def backward() -> None:
            optimiser.zero_grad()
            with torch.autocast(device.type, half, enabled=precision != "32-true"):
                loss = model(pixels).float().square().mean()
            torch.autograd.backward(loss)
            finish(device)

        def step() -> None:
            optimiser.step()
            finish(device)

        def predict() -> None:
            with torch.inference_mode():
                resting(rested)

        train = median_seconds(backward) / images + median_seconds(step) / batch
        resting, rested = packed(model.cpu().eval()), pixels.cpu()  # figures are predicted on the CPU, in float32
        return Rates(size, train, median_seconds(predict) / images)

    def macs(size: int) -> float:
        with torch.device("meta"):
            model = Classifier(build_encoder(weights.spec, (size, size), channels=channels), classes=classes)
        return float(classifier_macs(model, None).total)

    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    precision = choose_precision(machine.precision, machine.accelerator)
    half = torch.float16 if precision == "16-mixed" else torch.bfloat16
    gpu = machine.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    measured = [measure(size) for size in sizes]
    return lambda size: on_the_line(measured, size, macs)


def on_the_line(measured: Sequence[Rates], size: int, macs: Callable[[int], float]) -> Rates:
    """The rates at a size, from those at one or two others (ascending): between these on the line through them, over
    the ``macs``; above in proportion to the ``macs``, since what is fixed (a GPU's waits) tells little."""
    first, last = measured[0], measured[-1]
    share = macs(size) / macs(last.size)
    begin = macs(first.size) / macs(last.size)

    def at(low: float, high: float) -> float:
        line = low + (high - low) * (share - begin) / (1 - begin) if begin < share < 1 else 0.0
        return low if size == first.size else max(line, high * share)

    return Rates(size, at(first.train, last.train), at(first.predict, last.predict))


def in_time(
    minutes: float | None,
    manifest: Manifest,
    settings: Settings,
    start: Weights | None,
    *,
    method: str,
    preset: str,
    began: float,
    folder: Path | None,
    models: int = 1,
) -> tuple[Settings, str]:
    """Settings and method that end in time; an unfinished run in ``folder`` goes on with what it decided. ``models``:
    so many are trained, one after the other."""
    if start is None:
        if minutes is None:
            return settings, method
        raise UserError("--minutes plans a training from a pretrained encoder", mend="add --init, or leave it out")
    decided = settings.model.image_size is not None and settings.finetune.epochs is not None
    if minutes is None and (decided or preset not in HARDWARE or find_arm(method).pretrains):
        return settings, method
    if folder is not None and (folder / "config.yaml").is_file():
        config, before = read_run(folder)
        size, epochs = settings.model.image_size, settings.finetune.epochs
        model = dataclasses.replace(settings.model, image_size=before.model.image_size if size is None else size)
        fine = dataclasses.replace(settings.finetune, epochs=before.finetune.epochs if epochs is None else epochs)
        fell_back = config["method"] == "probe" and not find_arm(method).frozen  # there was no time for more
        if not fell_back and not find_arm(method).frozen:
            fine = with_enough_steps(fine, images=len(manifest.ids("train")))
        return dataclasses.replace(settings, model=model, finetune=fine), "probe" if fell_back else method
    if minutes is None:
        minutes = 15.0
        print("no --minutes given: planning for 15 minutes")
    return settings_within(minutes, manifest, settings, start, method=method, began=began, models=models)


def settings_within(
    minutes: float,
    manifest: Manifest,
    settings: Settings,
    start: Weights,
    *,
    method: str,
    began: float,
    models: int = 1,
) -> tuple[Settings, str]:
    """The settings and the method that fit into a time, said in one line.

    Args:
        began: ``time.monotonic()`` when the command began.

    Raises:
        UserError: nothing fits, or the method pre-trains, for which no time is planned.
    """
    arm = find_arm(method)
    if arm.pretrains:
        raise UserError(
            f"{method} pre-trains, and --minutes plans fine-tuning and probes only",
            where="--minutes",
            mend="leave it out and give --pretrain.epochs, or choose --method vit",
        )
    sizes, each = sampled(manifest, reading_of(settings))
    reading = each * len(manifest.table)
    asked, patch = settings.model.image_size, start.spec.patch_size
    if asked is None:
        given = settings.model.image_limit
        limit = LIMIT if given == LARGEST else given  # as the start has it, or as the user says
        candidates = candidate_sizes(int(np.median([min(size) for size in sizes])), limit, patch)
    else:
        side = math.sqrt(math.prod(asked)) if isinstance(asked, tuple) else asked
        candidates = [max(1, round(side / patch)) * patch]
    channels = start.spec.channels
    rates = time_steps(
        start, classes=len(manifest.classes), channels=channels, batch=settings.finetune.batch_size,
        sizes=sorted({candidates[0], min(candidates[-1], ENLARGED * patch)}), machine=settings.trainer,
    )  # fmt: skip
    train, val, test = (len(manifest.ids(split)) for split in ("train", "val", "test"))
    column = {"auto": "patient_id", "none": ""}.get(settings.dataset.unit, settings.dataset.unit)
    named = [name for name in manifest.table[column] if name] if column else []
    pooled = min(POOLED, train) + val + test if len(set(named)) < len(named) else 0
    amounts = Amounts(models * train, models * val, models * test, time.monotonic() - began, reading, models, pooled)
    epochs, shown = settings.finetune.epochs, settings.finetune.presentations
    if epochs is None and shown != RECIPE["presentations"]:  # as the user says
        epochs = max(1, round(shown / train))
    found = decide(minutes, candidates, rates, amounts, epochs=epochs, frozen=bool(arm.frozen))
    if models > 1 and not found.epochs:
        what, mend = f"--minutes {minutes:g} is too little for {models} models", "give more, or fewer --folds"
        raise UserError(what, where="--minutes", mend=mend)
    print(found.line(minutes) + (f", for each of {models} models" if models > 1 else ""))
    model, fine = settings.model, settings.finetune
    if asked is None:
        model = dataclasses.replace(model, image_size=found.size)
    if found.epochs:
        fine = with_enough_steps(dataclasses.replace(fine, epochs=found.epochs), images=train)
    chosen = dataclasses.replace(settings, model=model, finetune=fine)
    return chosen, method if found.epochs or arm.frozen else "probe"
