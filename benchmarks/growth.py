"""How cost grows: with images (map bank, store, the epoch's order), and with tokens, depth and width (a training step).

    python benchmarks/growth.py [--json FILE]

Images are simulated: a bank of random maps and a sparse file in the store's layout, so no disk is waited for.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from msmae.bench.turns import alone, clock
from msmae.bench.work import Case, Place, Work, pretraining
from msmae.data.loader import Batches
from msmae.data.store import ImageStore
from msmae.machine import keep_freed_memory
from msmae.method.attention import MapBank
from msmae.method.vit import SIZES

CPU = torch.device("cpu")
BATCH = 64


def milliseconds(work: Callable[[], object], rounds: int = 7) -> float:
    """Median time of some work, once warm."""
    work()
    return 1000 * median(clock(work, CPU) for _ in range(rounds))


def with_images(count: int) -> dict[str, float]:
    """Milliseconds a batch of 64 at this many images, and the bank's megabytes."""
    generator = torch.Generator().manual_seed(0)
    bank = MapBank(torch.randperm(count, generator=generator), (14, 14))
    ids = torch.randint(0, count, (BATCH,), generator=generator)
    maps = torch.rand(BATCH, 14, 14, generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        images = np.lib.format.open_memmap(Path(folder) / "images.npy", "w+", np.uint8, (count, 1, 64, 64))
        store = ImageStore(images=images, masks=None)
        epoch = Batches(store, np.zeros(count, np.int64), np.arange(count), BATCH, shuffle=True)
        return {
            "images": count,
            "bank MB": bank.maps.numel() * 4 / 1e6,
            "bank look-up ms": milliseconds(lambda: bank[ids]),
            "bank refresh ms": milliseconds(lambda: bank.refresh(ids, maps)),
            "store fetch ms": milliseconds(lambda: store.fetch(ids.numpy())),
            "epoch's order ms": milliseconds(epoch.order, rounds=3),
        }


def step(case: Case) -> dict[str, float]:
    """Milliseconds and multiply-accumulates of one step, an image."""
    work: Work = pretraining(case, Place(CPU, torch.bfloat16), augment=False)
    took = milliseconds(work.run, rounds=3) / work.images
    return {
        "ms / image": took,
        "GMAC / image": work.macs / work.images / 1e9,
        "GMAC/s": work.macs / work.images / took / 1e6,
    }


def show(title: str, rows: list[dict[str, float]]) -> None:
    """A table."""
    print(f"\n{title}\n" + "".join(f"{name:>18}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:18,.4g}" for value in row.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    base = Case("growth", "micro", side=128, patch=16, batch=16, channels=1)
    tables: dict[str, list[dict[str, float]]] = {}

    def add(title: str, rows: list[dict[str, float]]) -> None:
        tables[title] = rows
        show(title, rows)

    with alone():
        add("images", [with_images(10**power) for power in (3, 4, 5, 6)])
        sides = [(8 * 16, 64), (16 * 16, 16), (32 * 16, 4), (64 * 16, 1)]  # 64 ... 4096 tokens, as many a batch
        cases = [dataclasses.replace(base, side=side, batch=batch) for side, batch in sides]
        add("tokens", [{"tokens": (case.side // 16) ** 2, **step(case)} for case in cases])
        for name, values in (("depth", (3, 6, 12, 24)), ("width", (96, 192, 384, 768))):
            rows = []
            for value in values:
                SIZES["growth"] = {"width": 192, "depth": 6, "heads": 6} | {name: value}
                rows.append({name: value, **step(dataclasses.replace(base, size="growth", batch=64))})
            add(name, rows)
    if options.json:
        options.json.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
