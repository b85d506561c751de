"""Ten million images, simulated: the table, the splits, the order, the store and the bank hold them.

20,000 in the suite; ``MSMAE_LONG=1`` asks for 10,000,000, MSMAE_IMAGES for another number. ``python test_scale.py N``
prints CPU seconds and memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from msmae.data.loader import Batches
from msmae.data.manifest import Manifest, read_manifest
from msmae.data.splits import assign_splits
from msmae.data.store import ImageStore
from msmae.method.attention import MapBank

IMAGES = int(os.environ.get("MSMAE_IMAGES", 10_000_000 if os.environ.get("MSMAE_LONG") else 20_000))
GRID = (4, 4)


def simulate(images: int, folder: Path) -> dict[str, float]:
    """Take so many images of three a patient through all that is kept of each. Returns CPU seconds of every part."""
    took: dict[str, float] = {}
    began = time.process_time()

    def done(part: str) -> None:
        nonlocal began
        took[part], began = time.process_time() - began, time.process_time()

    numbers = range(images)
    table = pd.DataFrame(
        {
            "image_path": [f"images/{number // 1000:05d}/{number:08d}.png" for number in numbers],
            "label": [f"c{number // 3 % 5}" for number in numbers],
            "patient_id": [f"p{number // 3:07d}" for number in numbers],
        }
    )
    manifest = Manifest.from_table(table, root=folder, layout="csv")
    del table
    done("table")
    manifest = assign_splits(manifest, seed=1)
    done("splits")
    manifest.write(folder / "manifest.csv")
    done("manifest written")
    again = read_manifest(folder / "manifest.csv")
    done("manifest read")
    split = again.table["split"].to_numpy()
    assert (split == manifest.table["split"].to_numpy()).all()
    whole = split[: len(split) // 3 * 3].reshape(-1, 3)
    assert (whole == whole[:, :1]).all(), "a patient's images stay together"
    del manifest
    train = again.ids("train")
    assert abs(len(train) / images - 0.68) < 0.01
    pixels = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(images, 1, 8, 8))
    marked = train[:: max(1, len(train) // 1000)]
    pixels[marked] = (marked % 251 + 1).astype(np.uint8)[:, None, None, None]
    store = ImageStore(images=pixels, masks=None)
    for world in (1, 3):
        times = np.zeros(images, np.int64)
        for rank in range(world):
            batches = Batches(
                store, np.zeros(images, np.int64), train, 4096, shuffle=True, seed=3, epoch=5, rank=rank, world=world
            )  # fmt: skip
            for batch in batches:
                times[batch.ids.numpy()] += 1
        assert (times[train] >= 1).all()
        assert times.sum() == -(-len(train) // world) * world, "every training image once, and what makes ranks equal"
    assert (store.fetch(marked)[:, 0, 0, 0] == marked % 251 + 1).all()
    done("an epoch for one and for three")
    bank = MapBank(torch.from_numpy(train), GRID)
    for start in range(0, len(train), 100_000):
        ids = torch.from_numpy(train[start : start + 100_000])
        bank.refresh(ids, ids.float().view(-1, 1, 1).expand(-1, *GRID))
    other = MapBank(torch.from_numpy(train[::-1].copy()), GRID)
    other.load_state_dict(bank.state_dict())
    assert (other[torch.from_numpy(train)][:, 0, 0] == torch.from_numpy(train).float()).all()
    done("bank")
    return took


def test_so_many_images_go_through_all_that_is_kept_of_each(tmp_path: Path) -> None:
    assert sum(simulate(IMAGES, tmp_path).values()) < 30 + IMAGES / 20_000


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    with tempfile.TemporaryDirectory() as place:
        figures = simulate(int(sys.argv[1]), Path(place))
    figures = {part: round(seconds, 2) for part, seconds in figures.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**figures, "all": round(time.process_time(), 1), "peak GiB": round(peak, 2)}))
