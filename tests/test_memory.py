"""Freed memory stays with the process: the same allocation again costs no page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from msmae.machine import is_out_of_memory

PROGRAM = """
import resource, torch
from msmae.machine import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def fill():
    return torch.ones(4_000_000).sum()  # 16 MB, freed at once
for _ in range(10):
    fill()  # the heap grows to what is needed
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these options")
@pytest.mark.slow
def test_freed_memory_is_used_again() -> None:
    def faults(keep: bool) -> int:
        words = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=fixed)
        return int(done.stdout)

    # glibc adapts its threshold to what it sees: held here, so that the default does not depend on what came before
    fixed = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}

    kept, given_back = faults(keep=True), faults(keep=False)
    assert given_back > 2000  # what the option saves: if this fails, it is not needed any more
    assert kept < given_back / 4  # the heap may still grow once


def test_want_of_memory_is_told_from_other_failures() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
