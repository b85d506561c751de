"""In which numbers to train: bfloat16 where it is faster on this machine, which its flags alone do not tell."""

from __future__ import annotations

import time
from functools import cache

import torch

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
