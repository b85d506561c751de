"""Does predict keep up with the slower of its parts?   python benchmarks/predicting.py RUN IMAGES [--number 2000]

In turns, rounds in one process: *decoding* reads the files as predict does and does nothing with them; *model* answers
batches that lie ready; *predict* is the whole of `msmae predict RUN ... --out`, from finding the files to the CSV.
IMAGES is a folder; its files are taken again and again until there are so many. What counts is predict against the
slower of the two, images a second; medians are shown, and the share of each round. Each part alone has all cores;
with --threads 1 the model has one thread, and decoding alone one core, as beside the model on two.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from msmae.inference.bulk import Plan, read_ahead
from msmae.inference.items import Item, find_items
from msmae.inference.model import load
from msmae.inference.unreadable import Unreadable
from msmae.verbs.predict import predict, reader

ROUNDS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("images", type=Path)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores for each part")
    asked = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if asked.threads:
        torch.set_num_threads(asked.threads)
    files = sorted(path for path in asked.images.rglob("*") if path.suffix in (".png", ".jpg", ".dcm"))
    with tempfile.TemporaryDirectory() as folder:
        copies = Path(folder) / "images"
        copies.mkdir()
        for number, path in enumerate(islice(cycle(files), asked.number)):
            shutil.copyfile(path, copies / f"{number:06}{path.suffix}")
        items = find_items([str(copies)], on_error="stop")
        model = load(asked.run)
        plan, read = Plan(items, asked.batch, {}), reader(model)
        ready = read(items[: asked.batch])  # [B, C, H, W]

        def decode() -> None:
            os.sched_setaffinity(0, cores[: asked.threads or None])  # its threads begin with the same
            for _ in batches(plan, read):
                pass
            os.sched_setaffinity(0, cores)

        def answer() -> None:
            for _ in range(len(items) // asked.batch):
                model.predict(ready, batch_size=asked.batch)

        def whole() -> None:
            predict(asked.run, [str(copies)], out=str(Path(folder) / "out"), batch_size=asked.batch, overwrite=True)

        works = {"decoding": decode, "model": answer, "predict": whole}
        rounds = [{name: rate(works[name], len(items)) for name in works} for _ in range(ROUNDS + 1)][1:]
    for name in rounds[0]:
        print(f"{name:10} {statistics.median(one[name] for one in rounds):8.1f} images/s")
    shares = [one["predict"] / min(one["decoding"], one["model"]) for one in rounds]
    print(f"predict against the slower: {statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})")


def batches(plan: Plan, read: Callable[[list[Item]], Tensor]) -> Iterator[object]:
    """All batches of a plan, read as predict reads them."""
    for number in range(plan.parts):
        yield from read_ahead(plan, number, read, Unreadable(skip=False))


def rate(work: Callable[[], None], images: int) -> float:
    """Images a second."""
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
