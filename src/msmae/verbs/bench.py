"""How fast each stage is on this machine, and what share of the machine that is: ``msmae bench``."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path

import torch

from msmae.bench.rows import ceilings, comparisons, loading, stages
from msmae.bench.turns import BUSY, Row, alone, device_name, spread
from msmae.bench.work import DTYPES, Case, Place
from msmae.errors import UserError
from msmae.machine import cpu_has_bfloat16, keep_freed_memory
from msmae.runs.folder import check_output

CASES = {
    "cpu": Case("cpu", "micro", side=64, patch=8, batch=128, channels=1),
    "tiny": Case("tiny", "tiny", side=224, patch=16, batch=64),
    "small": Case("small", "small", side=224, patch=16, batch=32),
    "base": Case("base", "base", side=224, patch=16, batch=16),
}
"""By name: the model of the preset ``cpu``, and ViT-T, -S and -B with patches of 16 at 224 px."""


def bench(
    *,
    cases: list[str] = ["cpu", "tiny"],  # noqa: B006
    dtypes: list[str] = ["fp32", "bf16"],  # noqa: B006
    device: str = "auto",
    batch: int | None = None,
    only: str = "",
    rounds: int = 5,
    threads: int | None = None,
    json: str | None = None,
    overwrite: bool = False,
) -> list[Row]:
    """Time every stage and hold it against the matrix products and copies that this machine can do.

    Let nothing else run meanwhile; another `msmae bench` waits. Every stage takes turns with a plain matrix
    product of the same dtype; its ratio is the share of that ceiling which it reaches.

    Args:
        cases: what is trained: cpu (64 px, the preset's model), tiny, small, base (ViT at 224 px).
        dtypes: fp32, bf16, fp16; those that the device lacks are left out.
        device: auto, cpu or cuda.
        batch: images a step. Unless given: each case's own.
        only: words that a row's name must hold to be measured, for instance "step"; empty: all rows.
        rounds: turns of each pair.
        threads: CPU threads. Unless given: as many as PyTorch takes.
        json: file to write the rows to as well.
        overwrite: replace that file if it is there.

    Raises:
        UserError: an unknown case, dtype or device, or a batch that does not fit into memory (the error names one that
            does).
    """
    chosen = [dataclasses.replace(c, batch=batch or c.batch) for c in map(find_case, cases)]
    where = find_device(device)
    if rounds < 2:
        raise UserError(f"{rounds} round", where="--rounds", mend="at least 2, so that there is an interval")
    if json is not None:
        check_output(Path(json), overwrite=overwrite, flag="--json")
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    with alone():
        places = [Place(where, DTYPES[name]) for name in find_dtypes(dtypes, where)]
        rows = measure(chosen, places, rounds=rounds, only=only)
    if json is not None:
        Path(json).write_text(jsonlib.dumps([row.to_dict() for row in rows], indent=1) + "\n", encoding="utf-8")
    return rows


def measure(cases: list[Case], places: list[Place], *, rounds: int, only: str = "") -> list[Row]:
    """All rows whose names hold ``only``, each printed as soon as it is known."""
    rows: list[Row] = []
    busy: list[float] = [0.0]
    device = device_name(places[0].device)
    print(f"{device}, torch {torch.__version__}\n")
    heads = f"{'stage':64} {'ours':>9} {'ceiling':>9} {'unit':10} {'GMAC/s':>7}"
    print(f"{heads} ratio to the ceiling, or as the name says [95 % interval]")
    plan = [*ceilings(places)]
    for case in cases:
        plan += [*stages(case, places), *comparisons(case, places), *loading(case, places[-1])]
    for title, take in plan:
        if only in title:
            row, seconds = take(title, rounds, device)
            rows.append(row)
            busy.append(spread(seconds))
            print(row.line(), flush=True)
    if max(busy) > BUSY:
        print(
            f"\nThe machine is busy: the times of one row spread by {100 * max(busy):.0f} %. Ratios are made of "
            "pairs and bear "
            "it; rates do not."
        )
    return rows


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
        native = {"fp32": True, "bf16": cpu_has_bfloat16(), "fp16": False}
    for name in names:
        if not native[name]:
            print(f"{device.type} does not multiply {name} natively: measured in fp32 instead")
    return list(dict.fromkeys(name if native[name] else "fp32" for name in names))
