"""Images with one bright patch each, an encoder that looks at it, and a way to watch what a model is given.

Where the attention must lie is known, so whether masking follows it can be counted while the stages run for real.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from msmae.config import make_settings
from msmae.data.opening import divide
from msmae.method.vit import VisionTransformer
from msmae.training.prepare import Prepared, prepare

SIDE, PATCH, GRID = 32, 4, (8, 8)
SPLITS = ["train"] * 32 + ["val"] * 12 + ["test"] * 12
CELLS = np.random.default_rng(0).integers(0, 64, len(SPLITS))  # the bright patch of each image
STILL = 1e-12
"""A learning rate that changes no weight in single precision."""


def write_spots(folder: Path) -> Path:
    """A CSV manifest of 32 x 32 images in four grey levels (the classes), each with one bright patch."""
    generator = np.random.default_rng(1)
    rows = []
    for i, (cell, split) in enumerate(zip(CELLS, SPLITS, strict=True)):
        pixels = generator.integers(0, 20, (SIDE, SIDE)) + 15 * (i % 4)
        row, column = divmod(int(cell), GRID[1])
        pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 250
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append({"image_path": f"{i}.png", "label": f"level {i % 4}", "patient_id": f"p{i}", "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def looking_at_bright_patches(image_size: tuple[int, int], patch_size: int) -> VisionTransformer:
    """One block, one head, weights set by hand: the class token attends to a patch the more the brighter it is."""
    encoder = VisionTransformer(image_size=image_size, patch_size=patch_size, channels=1, width=4, depth=1, heads=1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        encoder.blocks[0].norm1.weight.fill_(1)
        encoder.cls_token[..., 2:] = torch.tensor([1.0, -1.0])
        encoder.patch_embed.proj.weight[0] = 1 / patch_size**2  # brightness goes up in the first place
        encoder.patch_embed.proj.weight[1] = -1 / patch_size**2  # and down in the second, so that the mean stays 0
        encoder.patch_embed.proj.bias[2:] = torch.tensor([1.0, -1.0])
        encoder.blocks[0].attn.qkv.weight[0, 2] = 4.0  # the query asks with the class token's third place
        encoder.blocks[0].attn.qkv.weight[4, 0] = 4.0  # the key answers with the brightness
    return encoder


def prepared_of(data: Path, method: str = "msmae", **overrides: dict[str, Any]) -> Prepared:
    """Four-wide models, learning rates near zero, single precision; ``overrides`` on top."""
    groups: dict[str, dict[str, Any]] = {
        "model": {"width": 4, "depth": 1, "heads": 1, "decoder_width": 4, "decoder_heads": 1, "patch_size": PATCH},
        "pretrain": {"epochs": 6, "uniform_epochs": 2, "refresh_every": 2, "base_lr": STILL, "crop_scale": (0.2, 1.0)},
        "finetune": {"epochs": 3, "draw": "own", "refresh_every": 2, "base_lr": STILL, "ema": 0, "jitter": 0},
        "trainer": {"accelerator": "cpu", "devices": 1, "precision": "32-true", "threads": 1},
    }
    merged = {name: groups.get(name, {}) | overrides.get(name, {}) for name in groups.keys() | overrides.keys()}
    settings = make_settings("tiny", overrides=merged)
    return prepare(divide(data, settings=settings, seed=3), settings=settings, method=method, seed=3)


@contextmanager
def watching(kind: type[nn.Module]) -> Iterator[list[tuple[Any, ...]]]:
    """What every module of this kind is given while it runs."""
    given: list[tuple[Any, ...]] = []

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, kind):
            given.append(arguments)

    handle = register_module_forward_pre_hook(note)
    try:
        yield given
    finally:
        handle.remove()


def of_the_bright(images: Tensor, positions: Tensor) -> tuple[float, int]:
    """Of the images [B, 1, H, W] that show their bright patch, the share whose brightest patch is among positions
    [B, K]; and how many those are."""
    brightness = F.avg_pool2d(images, PATCH).flatten(1)
    shown = brightness.amax(dim=1) > 0.4 * images.max()
    among = (positions == brightness.argmax(dim=1, keepdim=True)).any(dim=1)
    return float(among[shown].float().mean()), int(shown.sum())
