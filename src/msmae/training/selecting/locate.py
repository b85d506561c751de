"""Teaching a locator: from a map of every training image it learns which patches are worth a closer look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.data.geometry import random_geometry
from msmae.errors import count
from msmae.method.attention import MapBank
from msmae.method.vit import VisionTransformer
from msmae.selection.locator import Locator
from msmae.training.prepare import Prepared

RATE = 1e-2
RATE_OF_TEXTURES = 3e-3
SHARP = 3
"""Power of an attention that a locator foresees: the few patches that stand out count, not the many that do not."""
LOOKED_AT = 1000
"""Images whose attention an encoder is asked for, at most, before it is fine-tuned."""
TIMES = 5
"""How often the locator is shown each of them."""


def teach_locator(locator: Locator, bank: MapBank, ids: np.ndarray, prepared: Prepared, *, presentations: int) -> None:
    """Train a locator to give each patch the share that it has of its image's map, on crops and mirror images.

    Args:
        bank: a map of every image of ``ids``.
        presentations: images shown.
    """
    normalise, settings = scaled_by(prepared), prepared.settings.finetune
    generator, device = torch.Generator().manual_seed(prepared.seed), locator.score.weight.device
    epochs = max(1, round(presentations / len(ids)))
    steps = epochs * len(prepared.batches(ids, settings.batch_size, epoch=0))
    rate = RATE_OF_TEXTURES if locator.textures else RATE
    optimiser = torch.optim.AdamW(locator.parameters(), rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for epoch in range(epochs):
        for batch in prepared.batches(ids, settings.batch_size, epoch=epoch):
            geometry = random_geometry(
                len(batch.ids), scale=settings.crop_scale, flip=settings.flip, generator=generator
            )
            images = geometry.apply(normalise(batch.images), prepared.image_size).to(device)
            wanted = geometry.apply_to_maps(bank[batch.ids], bank.grid).flatten(1).to(device)  # [B, N]
            loss = F.cross_entropy(locator(images), wanted / wanted.sum(dim=1, keepdim=True).clamp(min=1e-12))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def foresee_encoder(locator: Locator, encoder: VisionTransformer, prepared: Prepared) -> None:
    """Teach a locator where an encoder looks before it is fine-tuned: in its middle block, which attends to what stands
    out near by (``docs/lab-notes.md``, 29 November 2026), and costs half of a pass."""
    normalise, train = scaled_by(prepared), prepared.ids("train", labelled=False)
    if len(train) > LOOKED_AT:
        train = np.sort(np.random.default_rng(prepared.seed).choice(train, LOOKED_AT, replace=False))
    print(f"locator: it learns where the encoder looks, in {count(len(train), 'image')}")
    bank, training = MapBank(torch.from_numpy(train), encoder.grid), encoder.training
    encoder.eval()
    with torch.inference_mode():
        for batch in prepared.batches(train, prepared.settings.finetune.batch_size):
            images = normalise(batch.images).to(encoder.pos_embed.device)
            maps = middle_maps(encoder, images).float().cpu()  # [B, h, w]
            bank.refresh(batch.ids, sharpened(maps.flatten(1)).reshape(maps.shape))
    encoder.train(training)
    teach_locator(locator, bank, train, prepared, presentations=TIMES * len(train))


def sharpened(attention: Tensor) -> Tensor:
    """Attention [B, N] over its mean, to the power that lets few patches count."""
    return (attention / attention.mean(dim=1, keepdim=True)) ** SHARP


def middle_maps(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """Where the class token looks in the middle block: normalised images [B, C, H, W] -> [B, h, w]."""
    middle = len(encoder.blocks) // 2
    x = encoder.embed(images)
    for block in encoder.blocks[:middle]:
        x = block(x)
    return encoder.class_row(middle, x).mean(dim=1).reshape(-1, *encoder.grid)


def scaled_by(prepared: Prepared) -> Callable[[Tensor], Tensor]:
    """What turns images [B, C, H, W] in the files' own units into what the encoder reads."""
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (prepared.mean, prepared.std))
    return lambda images: (images.float() - mean) / std
