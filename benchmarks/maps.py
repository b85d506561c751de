"""How alike cheaper maps are to the exact ones: Spearman's rank correlation, image by image.

    python benchmarks/maps.py RUN DATA [--images 256]

RUN is a run with a pre-trained encoder (RUN/pretrained), DATA images. The exact map is made in float32 from the whole
image; beside it maps in bfloat16, from an image of half the side, and from an earlier block.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from msmae.data.opening import cache_folder
from msmae.data.store import open_store
from msmae.data.tables.layouts import open_dataset
from msmae.method.attention import patch_maps
from msmae.method.vit import VisionTransformer, resize_position_embedding
from msmae.runs.checkpoint import load_model


def correlation(maps: Tensor, exact: Tensor) -> float:
    """Mean over the images of Spearman's rank correlation between two maps [B, h, w]."""
    ranks = [rankdata(m.flatten(1).numpy(), axis=1) for m in (maps, exact)]
    centred = [r - r.mean(axis=1, keepdims=True) for r in ranks]
    norms = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    return float(((centred[0] * centred[1]).sum(axis=1) / norms).mean())


def half_sized(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """Maps of images of half the side, enlarged to the grid."""
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    half = copy.deepcopy(encoder)
    half.grid = (encoder.grid[0] // 2, encoder.grid[1] // 2)
    half.pos_embed.data = resize_position_embedding(encoder.pos_embed.data, encoder.grid, half.grid)
    maps = patch_maps(half, small).unsqueeze(1)
    return F.interpolate(maps, size=encoder.grid, mode="bilinear", align_corners=False).squeeze(1)


def from_block(encoder: VisionTransformer, images: Tensor, blocks: int) -> Tensor:
    """Maps read from the last of the first ``blocks`` blocks."""
    shorter = copy.deepcopy(encoder)
    shorter.blocks = shorter.blocks[:blocks]
    return patch_maps(shorter, images)


def low_precision(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """Maps in bfloat16, as trainings make them where the hardware has it."""
    with torch.autocast("cpu", torch.bfloat16):
        return patch_maps(encoder, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    model, card = load_model(options.run / "pretrained")
    encoder = model.encoder.eval()
    whole = open_dataset(options.data)
    rows = np.linspace(0, len(whole) - 1, min(options.images, len(whole))).astype(int)
    manifest = whole.select(rows).with_columns({"mask_path": [""] * len(rows)})
    store = open_store(manifest, size=card.image_size, channels=card.channels, cache=cache_folder() / "stores")
    images = torch.from_numpy(store.fetch(range(len(rows))).astype(np.float32))
    shape = (1, -1, 1, 1)
    images = (images - torch.tensor(card.mean).reshape(shape)) / torch.tensor(card.std).reshape(shape)
    depth = len(encoder.blocks)
    ways: dict[str, Callable[[], Tensor]] = {
        "float32, whole image": lambda: patch_maps(encoder, images),
        "bfloat16": lambda: low_precision(encoder, images),
        f"block {depth - 1} of {depth}": lambda: from_block(encoder, images, depth - 1),
        f"block {depth - 2} of {depth}": lambda: from_block(encoder, images, depth - 2),
    }
    if all(cells % 2 == 0 for cells in encoder.grid):
        ways["half the side"] = lambda: half_sized(encoder, images)
    exact = ways["float32, whole image"]()
    for name, make in ways.items():
        began = time.perf_counter()
        maps = make()
        took = time.perf_counter() - began
        print(f"{name:24} rank correlation {correlation(maps, exact):.3f}  {len(images) / took:8.0f} images/s")


if __name__ == "__main__":
    main()
