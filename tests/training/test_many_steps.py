"""Many steps of a tiny model: memory and open files stay as they are.

400 steps in the suite; ``MSMAE_LONG=1`` asks for 100,000, MSMAE_STEPS for another number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = int(os.environ.get("MSMAE_STEPS", 100_000 if os.environ.get("MSMAE_LONG") else 400))
SCRIPT = """
import gc, json, os, sys, threading
import msmae
from msmae.training import pretrain

steps, every = int(sys.argv[3]), int(sys.argv[3]) // 10
seen = []

class Watched(pretrain.PretrainModule):
    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        if self.global_step % every == 0:
            gc.collect()
            pages = int(open("/proc/self/statm").read().split()[1])
            memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            seen.append([self.global_step, memory, len(os.listdir("/proc/self/fd")), threading.active_count()])

pretrain.PretrainModule = Watched
msmae.pretrain(
    sys.argv[1], out=sys.argv[2], preset="tiny", model={"width": 8, "depth": 1, "decoder_width": 8},
    pretrain={"batch_size": 4, "epochs": steps // 19 + 1, "refresh_every": 50},
    trainer={"precision": "32-true", "accelerator": "cpu"},
)
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="no /proc")
def test_memory_and_handles_stay_flat(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(data), str(tmp_path / "run"), str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen) >= 9
    _, memory, handles, threads = zip(*seen[2:], strict=True)  # the first tenths fill the allocator's pools
    assert max(memory) - memory[0] < 30, seen
    assert set(handles) == {handles[0]}, seen
    assert set(threads) == {threads[0]}, seen
