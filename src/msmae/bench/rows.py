"""The rows of ``msmae bench``: what is held against what, each by a title and a way to measure it."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from msmae.bench import work
from msmae.bench.memory import fitting, peak_megabytes
from msmae.bench.turns import Row, clock, in_turns, ratio_row
from msmae.bench.work import DTYPES, Case, Place, Work

if TYPE_CHECKING:
    from msmae.data.store import ImageStore

STAGES: dict[str, Callable[[Case, Place], Work]] = {
    "augmentation": work.augmentation,
    "map refresh": work.refresh,
    "pre-training step": work.pretraining,
    "fine-tuning step, all patches": work.finetuning,
    "fine-tuning step, 25 % kept": lambda case, place: work.finetuning(case, place, keep=0.25),
    "inference": work.inference,
}

Take = Callable[[str, int, str], tuple[Row, list[float]]]
"""Measure a row, given its title, the rounds and the device's name: the row, and our seconds."""


def take_turns(sides: list[Work], place: Place, *, rounds: int) -> list[list[float]]:
    """Seconds of each piece of work in turns."""
    return in_turns([lambda side=side: clock(side.run, place.device) for side in sides], rounds=rounds)  # type: ignore[misc]


def ceilings(places: list[Place]) -> Iterator[tuple[str, Take]]:
    """What the machine can do: matrix products by dtype (GFLOP/s), copying (GB/s)."""

    def rate(side: Callable[[], Work], place: Place, scale: float, unit: str) -> Take:
        def take(title: str, rounds: int, device: str) -> tuple[Row, list[float]]:
            done = side()
            (seconds,) = take_turns([done], place, rounds=rounds)
            return Row(title, scale * done.macs / median(seconds), None, None, None, None, unit, device), seconds

        return take

    for place in places:
        yield f"matrix product, {dtype_name(place)}", rate(partial(matrix_product, place), place, 2e-9, "GFLOP/s")
    yield "memory copy", rate(lambda: work.copying(places[0], 256), places[0], 1e-9, "GB/s")


def stages(case: Case, places: list[Place]) -> Iterator[tuple[str, Take]]:
    """Each stage against the matrix product of its dtype, and the memory that pre-training needs."""

    def share(make: Callable[[Case, Place], Work], place: Place) -> Take:
        def take(title: str, rounds: int, device: str) -> tuple[Row, list[float]]:
            done, ceiling = fitting(case, lambda c: make(c, place)), matrix_product(place)
            ours, limit = take_turns([done, ceiling], place, rounds=rounds)
            possible = ceiling.macs / (done.macs / done.images)  # images in one product's time
            row = ratio_row(title, ours, limit, amount=done.images, theirs_amount=possible, device=device)
            return dataclasses.replace(row, gmacs=done.macs / median(ours) / 1e9), ours

        return take

    def memory(place: Place) -> Take:
        def take(title: str, rounds: int, device: str) -> tuple[Row, list[float]]:
            return Row(title, peak_megabytes(case, place), None, None, None, None, "MB", device), [1.0]

        return take

    for place in places:
        for stage, make in STAGES.items():
            yield f"{case.name}, {stage}, {dtype_name(place)}", share(make, place)
        yield f"{case.name}, peak memory of pre-training, {dtype_name(place)}", memory(place)


def comparisons(case: Case, places: list[Place]) -> Iterator[tuple[str, Take]]:
    """What is gained inside the library: a quarter of the patches over all, a low precision over the first dtype."""

    def pair(ours: Callable[[], Work], theirs: Callable[[], Work], place: Place) -> Take:
        def take(title: str, rounds: int, device: str) -> tuple[Row, list[float]]:
            seconds = take_turns([ours(), theirs()], place, rounds=rounds)
            return ratio_row(title, *seconds, amount=case.batch, device=device), seconds[0]

        return take

    for place in places:
        quarter, full = partial(work.finetuning, case, place, keep=0.25), partial(work.finetuning, case, place)
        yield f"{case.name}, fine-tuning at 25 % / at 100 % kept, {dtype_name(place)}", pair(quarter, full, place)
    for place in places[1:]:
        title = f"{case.name}, pre-training in {dtype_name(place)} / in {dtype_name(places[0])}"
        low, first = (partial(work.pretraining, case, p) for p in (place, places[0]))
        yield title, pair(low, first, place)


def loading(case: Case, place: Place) -> Iterator[tuple[str, Take]]:
    """Cold (files -> store) and warm (store -> batches) loading, over the rate at which pre-training wants images."""
    from msmae.data.loader import Batches
    from msmae.data.phantom import make_phantom
    from msmae.data.store import open_store

    size = (case.side, case.side)

    def load(cold: bool) -> Take:
        def take(title: str, rounds: int, device: str) -> tuple[Row, list[float]]:
            step = work.pretraining(case, place)
            with tempfile.TemporaryDirectory() as folder:
                manifest = make_phantom(Path(folder) / "images", images=max(64, 2 * case.batch), size=case.side)
                names = itertools.count()

                def decode() -> ImageStore:
                    return open_store(manifest, size=size, channels=case.channels, cache=Path(folder, f"{next(names)}"))

                ids = manifest.ids("train")
                epoch = Batches(decode(), manifest.targets(), ids, case.batch, shuffle=True, drop_last=True)
                warm = Work(lambda: [batch.images for batch in epoch], len(epoch) * case.batch, 0.0)
                side = Work(decode, len(manifest), 0.0) if cold else warm
                ours, theirs = take_turns([side, step], place, rounds=rounds)
            row = ratio_row(title, ours, theirs, amount=side.images, theirs_amount=step.images, device=device)
            return row, ours

        return take

    for cold in (True, False):
        title = f"{case.name}, {'cold' if cold else 'warm'} loading / pre-training step, {dtype_name(place)}"
        yield title, load(cold)


def matrix_product(place: Place) -> Work:
    """The ceiling of a dtype: products of a size that takes a moment and no more."""
    return work.product(place, 8192 if place.device.type == "cuda" else 2048)


def dtype_name(place: Place) -> str:
    """fp32, bf16 or fp16."""
    return next(name for name, dtype in DTYPES.items() if dtype == place.dtype)
