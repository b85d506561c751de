"""A prediction of 50,000 files that is killed five times (kill -9) ends with the bytes of one that was not, and memory
stays flat.

Only in ``make long`` (MSMAE_LONG=1); MSMAE_PREDICT asks for another number of files.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import served_run
from pydicom.uid import generate_uid

FILES = int(os.environ.get("MSMAE_PREDICT", 50_000 if os.environ.get("MSMAE_LONG") else 0))
KILLS = 5
FLAT = 1.05
"""Most memory of a process, against its least once the first tenth of the files is done."""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FILES, reason="minutes: MSMAE_LONG=1 or MSMAE_PREDICT=N")]


def write_files(folder: Path, kind: str) -> Path:
    """So many files of 64 different phantoms."""
    folder.mkdir()
    if kind == "png":
        contents = [served_run.png(seed) for seed in range(64)]
    else:
        study = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
        contents = [served_run.dicom(seed, **study) for seed in range(64)]
    for number in range(FILES):
        (folder / f"{number:06}.{kind}").write_bytes(contents[number % 64])
    return folder


def begin(run: Path, images: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command, as a user gives it."""
    words = [sys.executable, "-m", "msmae", "predict", str(run), str(images), "--out", str(out), "--device", "cpu"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL)


def parts(out: Path) -> int:
    """How many parts are done."""
    return len(list((out / "parts").glob("0*.csv")))


def memory(process: subprocess.Popen[bytes]) -> float:
    """Memory of a process that runs, MB."""
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if len(pages) > 1 else 0.0


@pytest.mark.parametrize("kind", ["png", "dcm"])
def test_killed_five_times_it_ends_with_the_same_bytes_and_memory_stays_flat(kind: str, tmp_path: Path) -> None:
    run = served_run.write_run(tmp_path / "run", numbers="uint8" if kind == "png" else "float32")
    images, whole, killed = write_files(tmp_path / "images", kind), tmp_path / "whole", tmp_path / "killed"
    taken, began = [], time.monotonic()
    undisturbed = begin(run, images, whole)
    while undisturbed.poll() is None:
        if parts(whole) > FILES // 1024 // 10 and (now := memory(undisturbed)):
            taken.append(now)
        time.sleep(0.2)
    assert undisturbed.returncode == 0
    print(f"{kind}: {FILES:,} files in {time.monotonic() - began:.0f} s, {min(taken):.0f} to {max(taken):.0f} MB")
    chance = random.Random(0)
    for _ in range(KILLS):
        before, process = parts(killed), begin(run, images, killed)
        while parts(killed) < before + max(1, FILES // 1024 // (KILLS + 1)):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2))  # anywhere within a part
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        print(f"killed with {parts(killed)} parts")
    assert begin(run, images, killed).wait() == 0
    assert (killed / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert (whole / "predictions.csv").read_bytes().count(b"\n") == FILES + 1
    assert max(taken) <= FLAT * min(taken)
