"""How much memory a step needs, and which batch fits where one does not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from msmae.bench import work as bench_work
from msmae.bench.work import Case, Place, Work
from msmae.errors import UserError
from msmae.machine import is_out_of_memory, keep_freed_memory


def fitting(case: Case, make: Callable[[Case], Work]) -> Work:
    """The work, after one trial.

    Raises:
        UserError: it does not fit into memory; the error names the largest batch, halved and halved again, that does.
    """
    done = attempt(case, make)
    if done is not None:
        return done
    batch = case.batch // 2
    while batch and attempt(dataclasses.replace(case, batch=batch), make) is None:
        batch //= 2
    mend = f"--batch {batch} fits" if batch else "no batch fits: choose a smaller model, or free memory"
    raise UserError(f"a batch of {case.batch} does not fit into memory", where=case.name, mend=mend)


def attempt(case: Case, make: Callable[[Case], Work]) -> Work | None:
    """The work after it was done once, None where memory is too small for it."""
    try:
        done = make(case)
        done.run()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None
    return done


def peak_megabytes(case: Case, place: Place) -> float:
    """Most memory that three steps of pre-training hold: of the device, or of a process of their own on a CPU."""
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place.device)
        step = bench_work.pretraining(case, place)
        for _ in range(3):
            step.run()
        return torch.cuda.max_memory_allocated(place.device) / 2**20
    words = json.dumps(
        {"case": dataclasses.asdict(case), "dtype": str(place.dtype), "threads": torch.get_num_threads()}
    )
    program = "import sys; from msmae.bench.memory import report; report(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, words], capture_output=True, text=True, check=True)
    return float(done.stdout)


def report(words: str) -> None:
    """Print the megabytes by which three steps of pre-training raise this process's peak."""
    asked: dict[str, Any] = json.loads(words)
    torch.set_num_threads(asked["threads"])
    keep_freed_memory()
    before = most_resident()
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in asked["case"].items()}
    case = Case(**settings)
    dtype = next(d for d in bench_work.DTYPES.values() if str(d) == asked["dtype"])
    step = bench_work.pretraining(case, Place(torch.device("cpu"), dtype))
    for _ in range(3):
        step.run()
    print(most_resident() - before)


def most_resident() -> float:
    """Most megabytes of memory that this program has held so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # the system's other figure begins with what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
