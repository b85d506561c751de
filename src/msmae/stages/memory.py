"""Memory: what a training step frees is kept for the next one; the errors of too little of it are told apart."""

from __future__ import annotations

import ctypes
import sys

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
