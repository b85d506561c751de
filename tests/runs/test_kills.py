"""kill -9 at any moment, the same command again: the same weights, maps, predictions and figures, bit for bit.

``MSMAE_LONG=1`` asks for 100 runs, MSMAE_KILLS for another number, MSMAE_KILLS_SEED for other moments.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

KILLS = int(os.environ.get("MSMAE_KILLS", 100 if os.environ.get("MSMAE_LONG") else 3))
SEED = os.environ.get("MSMAE_KILLS_SEED", "0")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_killed_runs_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(KILLS), SEED], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) == KILLS
    assert [run for run in runs if run["other"]] == [], done.stderr
    killed = Counter(run["phase"] for run in runs if run["ended"][0] == -signal.SIGKILL)
    assert killed.total() >= KILLS / 2
    assert KILLS < 100 or min(killed.values()) >= 5, killed
