"""How fast each stage is on this machine, and what share of the machine that is: ``msmae bench``."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from msmae.errors import UserError
from msmae.stages import bench_work as work
from msmae.stages.bench_memory import fitting, peak_megabytes
from msmae.stages.bench_work import DTYPES, Case, Place, Work
from msmae.stages.memory import keep_freed_memory
from msmae.stages.timing import alone
from msmae.stages.turns import BUSY, Row, clock, device_name, in_turns, ratio_row, spread

CASES = {
    "cpu": Case("cpu", "micro", side=64, patch=8, batch=128, channels=1),
    "tiny": Case("tiny", "tiny", side=224, patch=16, batch=64),
    "small": Case("small", "small", side=224, patch=16, batch=32),
    "base": Case("base", "base", side=224, patch=16, batch=16),
}
"""By name: the model of the preset ``cpu``, and ViT-T, -S and -B with patches of 16 at 224 px."""

STAGES: dict[str, Callable[[Case, Place], Work]] = {
    "augmentation": work.augmentation,
    "map refresh": work.refresh,
    "pre-training step": work.pretraining,
    "fine-tuning step, all patches": work.finetuning,
    "fine-tuning step, 25 % kept": lambda case, place: work.finetuning(case, place, keep=0.25),
    "inference": work.inference,
}


def bench(
    *,
    cases: list[str] = ["cpu", "tiny"],  # noqa: B006
    dtypes: list[str] = ["fp32", "bf16"],  # noqa: B006
    device: str = "auto",
    batch: int | None = None,
    rounds: int = 5,
    threads: int | None = None,
    json: str | None = None,
) -> list[Row]:
    """Time every stage and hold it against the matrix products and copies that this machine can do.

    Trainings of this user on this machine wait between steps meanwhile. Every stage takes turns with a plain matrix
    product of the same dtype; its ratio is the share of that ceiling which it reaches.

    Args:
        cases: what is trained: cpu (64 px, the preset's model), tiny, small, base (ViT at 224 px).
        dtypes: fp32, bf16, fp16; those that the device lacks are left out.
        device: auto, cpu or cuda.
        batch: images a step; None: each case's own.
        rounds: turns of each pair.
        threads: CPU threads; None: as many as PyTorch takes.
        json: file to write the rows to as well.

    Raises:
        UserError: an unknown case, dtype or device, or a batch that does not fit into memory (the error names one that
            does).
    """
    chosen = [dataclasses.replace(c, batch=batch or c.batch) for c in map(find_case, cases)]
    where = find_device(device)
    if rounds < 2:
        raise UserError(f"{rounds} round", where="--rounds", mend="at least 2, so that there is an interval")
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    with alone():
        rows = measure(chosen, [Place(where, DTYPES[name]) for name in find_dtypes(dtypes, where)], rounds=rounds)
    if json is not None:
        Path(json).write_text(jsonlib.dumps([row.to_dict() for row in rows], indent=1) + "\n", encoding="utf-8")
    return rows


def measure(cases: list[Case], places: list[Place], *, rounds: int) -> list[Row]:
    """All rows, each printed as soon as it is known."""
    rows: list[Row] = []
    busy: list[float] = []
    name = device_name(places[0].device)

    def add(row: Row, seconds: list[float]) -> None:
        rows.append(row)
        busy.append(spread(seconds))
        print(row.line(), flush=True)

    print(f"{name}, torch {torch.__version__}\n")
    print(f"{'stage':64} {'ours':>9} {'ceiling':>9} {'unit':10} share of the ceiling [95 % interval]")
    for row, seconds in ceilings(places, rounds=rounds, device=name):
        add(row, seconds)
    for case in cases:
        for place in places:
            ceiling = matrix_product(place)
            for stage, make in STAGES.items():
                title = f"{case.name}, {stage}, {dtype_name(place)}"
                done = fitting(case, lambda case, make=make, place=place: make(case, place))  # type: ignore[misc]
                ours, limit = take_turns([done, ceiling], place, rounds=rounds)
                possible = ceiling.macs / (done.macs / done.images)  # images in one product's time
                add(ratio_row(title, ours, limit, amount=done.images, theirs_amount=possible, device=name), ours)
            megabytes = peak_megabytes(case, place)
            title = f"{case.name}, peak memory of pre-training, {dtype_name(place)}"
            rows.append(Row(title, megabytes, None, None, None, None, "MB", name))
            print(rows[-1].line(), flush=True)
        for row, seconds in comparisons(case, places, rounds=rounds, device=name):
            add(row, seconds)
        for row, seconds in loading(case, places[-1], rounds=rounds, device=name):
            add(row, seconds)
    if max(busy) > BUSY:
        print(f"\nThe machine is busy: the times of one row spread by {max(busy):.0%}. Ratios are made of pairs and "
              "bear it; rates do not.")  # fmt: skip
    return rows


def take_turns(sides: list[Work], place: Place, *, rounds: int) -> list[list[float]]:
    """Seconds of each piece of work in turns."""
    return in_turns([lambda side=side: clock(side.run, place.device) for side in sides], rounds=rounds)  # type: ignore[misc]


def ceilings(places: list[Place], *, rounds: int, device: str) -> list[tuple[Row, list[float]]]:
    """What the machine can do: matrix products by dtype (GFLOP/s), copying (GB/s)."""
    sides = {f"matrix product, {dtype_name(place)}": (matrix_product(place), 2e-9, "GFLOP/s") for place in places}
    sides["memory copy"] = (work.copying(places[0], 256), 1e-9, "GB/s")
    rows = []
    for name, (side, scale, unit) in sides.items():
        (seconds,) = take_turns([side], places[0], rounds=rounds)
        rate = scale * side.macs / sorted(seconds)[len(seconds) // 2]
        rows.append((Row(name, rate, None, None, None, None, unit, device), seconds))
    return rows


def comparisons(case: Case, places: list[Place], *, rounds: int, device: str) -> list[tuple[Row, list[float]]]:
    """What is gained inside the library: a quarter of the patches over all, a low precision over fp32."""
    rows = []
    for place in places:
        sides = [work.finetuning(case, place, keep=0.25), work.finetuning(case, place)]
        ours, theirs = take_turns(sides, place, rounds=rounds)
        title = f"{case.name}, fine-tuning at 25 % / at 100 % kept, {dtype_name(place)}"
        rows.append((ratio_row(title, ours, theirs, amount=case.batch, device=device), ours))
    for place in places[1:]:
        ours, theirs = take_turns([work.pretraining(case, p) for p in (place, places[0])], place, rounds=rounds)
        title = f"{case.name}, pre-training in {dtype_name(place)} / in {dtype_name(places[0])}"
        rows.append((ratio_row(title, ours, theirs, amount=case.batch, device=device), ours))
    return rows


def loading(case: Case, place: Place, *, rounds: int, device: str) -> list[tuple[Row, list[float]]]:
    """Cold (files -> store) and warm (store -> batches) loading, over the rate at which pre-training wants images."""
    from msmae.data.loader import Batches
    from msmae.data.phantom import make_phantom
    from msmae.data.store import open_store

    step, rows = work.pretraining(case, place), []
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_phantom(Path(folder) / "images", images=max(64, 2 * case.batch), size=case.side)
        caches = iter(range(10**6))
        size = (case.side, case.side)

        def cold() -> object:
            return open_store(manifest, size=size, channels=case.channels, cache=Path(folder) / str(next(caches)))

        store = open_store(manifest, size=size, channels=case.channels, cache=Path(folder) / "warm")
        batches = Batches(store, manifest.targets(), manifest.ids("train"), case.batch, shuffle=True, drop_last=True)
        warm = Work(lambda: [batch.images for batch in batches], len(batches) * case.batch, 0.0)
        for title, side in (("cold", Work(cold, len(manifest), 0.0)), ("warm", warm)):
            ours, theirs = take_turns([side, step], place, rounds=rounds)
            name = f"{case.name}, {title} loading / pre-training step, {dtype_name(place)}"
            row = ratio_row(name, ours, theirs, amount=side.images, theirs_amount=step.images, device=device)
            rows.append((row, ours))
    return rows


def matrix_product(place: Place) -> Work:
    """The ceiling of a dtype: products of a size that takes a moment and no more."""
    return work.product(place, 8192 if place.device.type == "cuda" else 2048)


def dtype_name(place: Place) -> str:
    """fp32, bf16 or fp16."""
    return next(name for name, dtype in DTYPES.items() if dtype == place.dtype)


def find_case(name: str) -> Case:
    """The case of this name. Raises ``UserError`` naming those there are."""
    if name not in CASES:
        raise UserError(f"no case '{name}'", where="--cases", mend=f"choose among {', '.join(CASES)}")
    return CASES[name]


def find_device(name: str) -> torch.device:
    """The device; ``auto`` is a GPU where one is visible."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"no device '{name}'", where="--device", mend="choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU is visible to PyTorch", where="--device", mend="choose cpu")
    return torch.device(name)


def find_dtypes(names: list[str], device: torch.device) -> list[str]:
    """The dtypes that the device multiplies natively; one line says which it lacks."""
    unknown = [name for name in names if name not in DTYPES]
    if unknown:
        raise UserError(f"no dtype '{unknown[0]}'", where="--dtypes", mend=f"choose among {', '.join(DTYPES)}")
    if device.type == "cuda":
        native = {"fp32": True, "bf16": torch.cuda.is_bf16_supported(including_emulation=False), "fp16": True}
    else:
        bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native = {"fp32": True, "bf16": bf16, "fp16": False}
    for name in names:
        if not native[name]:
            print(f"{device.type} does not multiply {name} natively: measured in fp32 instead")
    return list(dict.fromkeys(name if native[name] else "fp32" for name in names))
