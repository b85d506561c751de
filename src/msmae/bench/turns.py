"""Timing that a noisy machine cannot fool: what is compared takes turns (A B A B), and a ratio is made of each pair."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from msmae.data.opening import cache_folder
from msmae.machine import bfloat16_gain, cpu_has_bfloat16, finish

BUSY = 0.15
"""Spread of one side's times (the middle half of them over their median) above which the machine is called busy."""


@dataclass(frozen=True)
class Row:
    """One measured line. A ratio above 1 is good for us; ``low`` and ``high`` are its 95 % interval."""

    name: str
    ours: float
    theirs: float | None
    ratio: float | None
    low: float | None
    high: float | None
    unit: str
    device: str
    gmacs: float | None = None
    """10^9 multiply-accumulates a second of ours, where they were counted; printed, and not written to JSON."""

    def to_dict(self) -> dict[str, object]:
        """As it is written to JSON, with four significant digits."""
        written = {k: v for k, v in asdict(self).items() if k != "gmacs"}
        return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in written.items()}

    def line(self) -> str:
        """The row as a line of a table."""
        theirs = "" if self.theirs is None else f"{self.theirs:,.4g}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"
        gmacs = "" if self.gmacs is None else f"{self.gmacs:,.4g}"
        return f"{self.name:64} {self.ours:>9,.4g} {theirs:>9} {self.unit:10} {gmacs:>7} {ratio}"


def device_name(device: torch.device) -> str:
    """The name of a GPU, or the kind of processor with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_kind(torch.get_num_threads())


def processor_kind(threads: int) -> str:
    """A processor's name, the threads in use, and how many times as fast it multiplies bfloat16, to a power of two:
    machines of one name were seen to differ in it.
    """
    kind = f"{processor_name()}, {threads} threads"
    return f"{kind}, bfloat16 {2.0 ** round(math.log2(bfloat16_gain())):g} x" if cpu_has_bfloat16() else kind


def processor_name() -> str:
    """What the system calls its processor."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def clock(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that some work takes; on a GPU until it is really done."""
    finish(device)
    began = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - began


def in_turns(sides: list[Callable[[], float]], *, rounds: int, warm: bool = True) -> list[list[float]]:
    """Seconds of each side, measured A B A B ... ``rounds`` times (after a warm-up each): [sides][rounds]."""
    for side in sides if warm else []:
        side()
    turns = [[side() for side in sides] for _ in range(rounds)]
    return [list(times) for times in zip(*turns, strict=True)]


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median with its 95 % bootstrap interval (2,000 resamples, always the same ones)."""
    draws = np.random.default_rng(0).choice(np.asarray(values), size=(2000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return statistics.median(values), float(low), float(high)


def ratio_row(
    name: str, ours: list[float], theirs: list[float], *, amount: float, unit: str = "images/s", device: str,
    theirs_amount: float | None = None,
) -> Row:  # fmt: skip
    """A row from paired seconds: our rate over theirs, where a turn of ours (theirs) did ``amount``
    (``theirs_amount``) units of work."""
    other = amount if theirs_amount is None else theirs_amount
    ratio = median_interval([(amount / a) / (other / b) for a, b in zip(ours, theirs, strict=True)])
    rates = amount / statistics.median(ours), other / statistics.median(theirs)
    return Row(name, *rates, *ratio, unit, device)


def spread(seconds: list[float]) -> float:
    """The middle half of the times over their median: 0 on a quiet machine."""
    low, middle, high = np.percentile(np.asarray(seconds), [25, 50, 75])
    return float((high - low) / middle)


OWN = "MSMAE_TIMING"
"""Set in the process that measures and in those it starts: they must not wait for themselves."""


def lock() -> FileLock:
    """The lock of this user's cache folder."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "timing.lock")


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock while something is timed: two measurements take turns. It goes with a killed process."""
    if OWN in os.environ:
        yield
        return
    with lock():
        os.environ[OWN] = str(os.getpid())
        try:
            yield
        finally:
            del os.environ[OWN]
