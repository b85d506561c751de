"""In which numbers to train and to predict: training takes bfloat16 where it is faster on this machine, which its flags
alone do not tell; prediction takes it where it is asked for.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from msmae.errors import UserError

log = logging.getLogger("msmae")
PREDICTION = {"fp32": torch.float32, "bf16": torch.bfloat16}

WORTH = 1.2
"""How much faster the products must be for mixed precision to pay its casts."""


def choose_precision(precision: str, accelerator: str = "auto") -> str:
    """Lightning's name of a precision; ``auto`` is bf16-mixed where it is faster here, else 32-true.

    On a GPU without bfloat16 ``auto`` is 16-mixed.
    """
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if cpu_has_bfloat16() and bfloat16_gain() >= WORTH else "32-true"


def prediction_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The numbers of a precision, ``fp32`` or ``bf16``; float32, with one line that says so, where the device has no
    bfloat16. Raises ``UserError`` for any other.
    """
    if precision not in PREDICTION:
        raise UserError(f"no precision '{precision}'", where="precision", mend=f"choose {' or '.join(PREDICTION)}")
    if precision == "bf16" and not has_bfloat16(device):
        log.warning("this %s has no bfloat16: predicting in float32", "processor" if device.type == "cpu" else "device")
        return torch.float32
    return PREDICTION[precision]


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type != "cpu" or cpu_has_bfloat16()


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16 (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@cache
def bfloat16_gain(rounds: int = 5) -> float:
    """How many times as fast as float32 this CPU multiplies bfloat16: the best of a few products each, some ms.

    CPUs that have the instructions differ: seen were 4 times as fast (AMD EPYC) and half as fast (an Intel Xeon whose
    matrix unit the virtual machine hides).
    """
    factors = {kind: torch.ones(512, 512, dtype=kind) for kind in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(factors, float("inf"))
    for _ in range(1 + rounds):  # in turns; the first of each prepares its kernel and is hardly ever the best
        for kind, factor in factors.items():
            start = time.perf_counter()
            for _ in range(4):
                factor @ factor
            best[kind] = min(best[kind], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Compile the forward pass of a network in place, for fixed numbers of tokens; its weights keep their names.

    Args:
        network: what the stage trains.
        device: where it will be trained; whether anything can be compiled is tried there.

    Raises:
        UserError: nothing can be compiled on this machine, said before the training begins.
    """
    try:
        torch.compile(_smallest)(torch.ones(2, device=device))
    except RuntimeError as error:
        raise UserError(
            f"nothing can be compiled here: {str(error).strip().splitlines()[0]}",
            where="--trainer.compile",
            mend="install a C++ compiler (Debian, Ubuntu: apt-get install g++), or leave it out",
        ) from error
    network.compile(dynamic=False)


def _smallest(x: torch.Tensor) -> torch.Tensor:
    return x + 1


# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Ask the C library not to hand freed memory back to the system; whether it obeys.

    Each step on a CPU allocates and frees the same gigabyte. By default glibc maps every large tensor anew, and the
    system clears it page by page: a fifth of a ViT-T step (docs/performance.md). The most memory a process needs is
    unchanged; it is held until the process ends. Only glibc knows these options; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too small: on a GPU a ``torch.OutOfMemoryError``, on a CPU a plain ``RuntimeError``."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def finish(device: torch.device) -> None:
    """Wait for what a GPU has been told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The middle of a few runs, after one that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return sorted(spent)[repeats // 2]
