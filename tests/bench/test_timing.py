"""The timing lock: two measurements take turns, and the measuring process does not wait for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msmae.bench.turns import OWN, alone

HOLDER = """
import sys, time
from msmae.bench.turns import alone
with alone():
    print("held", flush=True)
    time.sleep({seconds})
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path))
    monkeypatch.delenv(OWN, raising=False)


@contextmanager
def held(seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Another process that measures for so long, from when it holds the lock."""
    words = [sys.executable, "-c", HOLDER.format(seconds=seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.mark.slow
def test_a_killed_measurement_holds_nobody_up() -> None:
    with held(60) as process:
        process.kill()
    began = time.monotonic()
    with alone():
        assert time.monotonic() - began < 5


def test_the_process_that_measures_does_not_wait_for_itself() -> None:
    with alone(), alone():
        assert OWN in os.environ
    assert OWN not in os.environ


@pytest.mark.slow
def test_two_measurements_take_turns() -> None:
    with held(1.0) as process, alone():
        assert process.wait(5) == 0
