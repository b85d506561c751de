"""Whole pre-trainings on real images: what surrounds the model, and what the attention-driven masks cost.

    python benchmarks/epoch.py DATA --case tiny [--images 256] [--epochs 70] [--json FILE]

*Epochs / steps alone*: epochs of ``msmae pretrain`` with loading, geometry, bank, logging and checkpoints, against the
model's steps on images that lie ready in memory as the crops would hand them over. All these epochs mask as the steps
do: a uniform warm-up epoch throws nothing away and costs more. *Attention-driven / random*: a whole run of ``msmae``
with warm-up, refreshes and guided epochs, against as many epochs of ``supmae`` (the same ratios) and of ``mae`` (75 %
masked). Images are decoded before; each side is a whole training, and they take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from msmae.bench.turns import Row, alone, clock, device_name, in_turns, ratio_row
from msmae.bench.work import DTYPES, SIZES, Case, Place, pretraining
from msmae.config import make_settings
from msmae.data.manifest import Manifest
from msmae.data.tables.layouts import open_dataset
from msmae.machine import keep_freed_memory
from msmae.training.prepare import Prepared, prepare
from msmae.training.pretrain import pretrain_model
from msmae.verbs.bench import CASES

HERE = {**CASES, "28px": Case("28 px", "micro", side=28, patch=4, batch=128, channels=1)}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
CPU = torch.device("cpu")
Clock = Callable[[Callable[[], object]], float]


def prepared_for(
    manifest: Manifest, case: Case, *, method: str, dtype: str, epochs: int, uniform: int | None = None
) -> Prepared:
    """The images, decoded at the case's size, and the settings of a training of the case's model."""
    settings = make_settings("cpu", None, {
        "model": {"image_size": case.side, "patch_size": case.patch, "channels": case.channels, **SIZES[case.size]},
        "pretrain": {"epochs": epochs, "uniform_epochs": uniform, "batch_size": case.batch},
        "trainer": {"precision": PRECISIONS[dtype], "threads": torch.get_num_threads(), "accelerator": "cpu"},
    })  # fmt: skip
    return prepare(manifest, settings=settings, method=method, seed=0, pretrain_only=True)


def wall_clock(work: Callable[[], object]) -> float:
    """Seconds until some work is done."""
    return clock(work, CPU)


def processor_clock(work: Callable[[], object]) -> float:
    """Seconds that all threads computed for it: other processes do not count, nor does waiting for a disk."""
    began = time.process_time()
    work()
    return time.process_time() - began


CLOCKS = {"wall": wall_clock, "processor": processor_clock}


def seconds_of(prepared: Prepared, take: Clock = wall_clock) -> float:
    """One whole pre-training."""
    with tempfile.TemporaryDirectory() as folder:
        return take(lambda: pretrain_model(prepared, Path(folder)))


def around_the_model(manifest: Manifest, case: Case, *, dtype: str, rounds: int, by: str = "wall") -> Row:
    """The model's share of the time of training epochs: 1 - ratio is what everything else takes."""
    epochs, take = 3, CLOCKS[by]
    prepared = prepared_for(manifest, case, method="supmae", dtype=dtype, epochs=epochs, uniform=0)
    steps = epochs * max(1, len(prepared.ids("train")) // case.batch)
    one = pretraining(case, Place(CPU, DTYPES[dtype]), augment=False, held=DTYPES[dtype])
    seconds = in_turns(
        [lambda: seconds_of(prepared, take), lambda: take(lambda: [one.run() for _ in range(steps)])], rounds=rounds
    )
    title = f"pre-training epochs / the model's steps alone, {case.name}, {dtype}, {len(manifest):,} images"
    title += "" if by == "wall" else f", {by} time"
    return ratio_row(title, *seconds, amount=steps * case.batch, device=device_name(CPU))


def guided(manifest: Manifest, case: Case, *, dtype: str, epochs: int, rounds: int, by: str = "wall") -> list[Row]:
    """Whole runs of msmae beside supmae and mae."""
    arms, take = ("msmae", "supmae", "mae"), CLOCKS[by]
    runs = [prepared_for(manifest, case, method=arm, dtype=dtype, epochs=epochs) for arm in arms]
    seconds = in_turns([lambda run=run: seconds_of(run, take) for run in runs], rounds=rounds, warm=False)
    images = epochs * len(runs[0].ids("train"))
    return [
        ratio_row(
            f"attention-driven / random-masked ({arm}) pre-training, {epochs} epochs, {case.name}, {dtype}"
            + ("" if by == "wall" else f", {by} time"),
            seconds[0], times, amount=images, device=device_name(CPU),
        )
        for arm, times in zip(arms[1:], seconds[1:], strict=True)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--case", choices=[*HERE], default="tiny")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=70, help="of the whole runs; 0 leaves them out")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=[*PRECISIONS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=[*CLOCKS], default="wall", help="processor: for a busy machine; one thread")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    whole = open_dataset(options.data)
    count = min(options.images, len(whole))
    chosen = whole.select(np.linspace(0, len(whole) - 1, count).astype(int))
    manifest = chosen.with_columns({"split": ["train"] * count, "mask_path": [""] * count})
    case = dataclasses.replace(HERE[options.case])
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(row.line(), flush=True)
        if options.json:
            options.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1) + "\n", encoding="utf-8")

    with alone() if options.clock == "wall" else nullcontext():  # processor time is not lost to others
        for dtype in options.dtypes:
            add(around_the_model(manifest, case, dtype=dtype, rounds=options.rounds, by=options.clock))
        if options.epochs:
            dtype, rounds = options.dtypes[-1], options.rounds
            for row in guided(manifest, case, dtype=dtype, epochs=options.epochs, rounds=rounds, by=options.clock):
                add(row)


if __name__ == "__main__":
    main()
