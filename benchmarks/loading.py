"""Is loading ever what training waits for? Batches from the warm store against the rate at which the model trains.

    python benchmarks/loading.py DATA [--images 2000] [--steps 24] [--out FILE.json]

For two sizes: the default model of a machine without GPU at 64 px (the preset ``cpu``), and ViT-T/16 at 224 px. *Cold*
is the one pass that reads and decodes every file into the store, in as many threads as there are cores; *warm* is whole
shuffled epochs of batches from the store, as float32 and ready for the device, in the one thread that training has for
it; *training* is steps of pre-training (crop, masks from maps, forward, backward, AdamW), in the precision the library
chooses, on a batch that lies ready. The medians of ``ROUNDS`` turns are shown; what counts is warm / training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from msmae.data.geometry import random_geometry
from msmae.data.loader import Batch, Batches
from msmae.data.manifest import Manifest
from msmae.data.store import ImageStore, open_store
from msmae.data.tables.layouts import open_dataset
from msmae.machine import choose_precision
from msmae.method.masking import plan_patches
from msmae.method.msmae import MSMAE, msmae_loss
from msmae.method.vit import VisionTransformer

ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """An encoder and the images it sees."""

    name: str
    side: int
    patch: int
    width: int
    depth: int
    heads: int
    batch: int


CASES = (
    Case("preset cpu", side=64, patch=8, width=192, depth=6, heads=6, batch=128),
    Case("ViT-T/16", side=224, patch=16, width=192, depth=12, heads=3, batch=64),
)


def make_step(case: Case, batch: Batch, classes: int) -> Callable[[], None]:
    """One step of pre-training on this batch."""
    encoder = VisionTransformer(
        image_size=(case.side, case.side), patch_size=case.patch, channels=batch.images.shape[1],
        width=case.width, depth=case.depth, heads=case.heads,
    )  # fmt: skip
    model = MSMAE(encoder, classes=classes, decoder_width=128, decoder_depth=1, decoder_heads=4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(len(batch.ids), *encoder.grid, generator=generator)
    low = choose_precision("auto") == "bf16-mixed"

    def step() -> None:
        geometry = random_geometry(len(batch.ids), scale=(0.5, 1.0), flip=0.5, generator=generator)
        images = geometry.apply((batch.images.float() - 128) / 64, (case.side, case.side))
        plan = plan_patches(geometry.apply_to_maps(maps, encoder.grid), 0.45, 0.30, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = msmae_loss(images, model(images, plan), plan, batch.labels, patch_size=case.patch).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def rate(images: int, work: Callable[[], object]) -> float:
    """Images a second."""
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)


def measure(case: Case, manifest: Manifest, *, steps: int) -> dict[str, float | str | int]:
    """Cold, warm and training rates of one case, in images a second."""
    number, stores = len(manifest), []

    def decode() -> None:
        stores.append(open_store(manifest, size=(case.side, case.side), cache=Path(folder)))

    with tempfile.TemporaryDirectory() as folder:
        cold = rate(number, decode)
        store: ImageStore = stores.pop()

        def epoch(number: int) -> Batches:
            return Batches(
                store=store, targets=manifest.targets(), ids=np.arange(len(manifest)), batch_size=case.batch,
                shuffle=True, drop_last=True, epoch=number,
            )  # fmt: skip

        step = make_step(case, next(iter(epoch(0))), max(1, len(manifest.classes)))
        for _ in range(3):  # the first steps pay for what every later one finds ready
            step()
        list(map(len, epoch(0)))
        warm, training = [], []
        for turn in range(ROUNDS):
            batches = epoch(turn)
            warm.append(rate(len(batches) * case.batch, lambda batches=batches: [len(batch.ids) for batch in batches]))
            training.append(rate(steps * case.batch, lambda: [step() for _ in range(steps)]))
    return {
        "model": case.name,
        "side": case.side,
        "cold": round(cold),
        "warm": round(statistics.median(warm)),
        "training": round(statistics.median(training)),
        "ratio": round(statistics.median(w / t for w, t in zip(warm, training, strict=True)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    whole = open_dataset(options.data)
    spread = np.linspace(0, len(whole) - 1, min(options.images, len(whole))).astype(int)
    manifest = whole.select(spread).with_columns({"mask_path": [""] * len(spread)})
    print(f"{len(manifest):,} images, {os.cpu_count()} cores, {torch.get_num_threads()} threads, images a second")
    print(f"{'model':12} {'px':>4} {'cold':>8} {'warm':>8} {'training':>9} {'warm / training':>16}")
    rows = []
    for case in CASES:
        row = measure(case, manifest, steps=options.steps)
        rows.append(row)
        print(f"{row['model']:12} {row['side']:>4} {row['cold']:>8,} {row['warm']:>8,} {row['training']:>9,} "
              f"{row['ratio']:>16}")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
