"""Two processes: the maps of all ranks end up in one bank (the released code failed exactly here)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

from msmae.data.loader import Batch
from msmae.data.phantom import make_phantom
from msmae.method.attention import MapBank, patch_maps
from msmae.method.vit import VisionTransformer
from msmae.training.maps import refresh_bank


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def small_encoder() -> VisionTransformer:
    torch.manual_seed(3)
    return VisionTransformer(image_size=(16, 24), patch_size=8, channels=1, width=16, depth=2, heads=2)


def some_images() -> torch.Tensor:
    return torch.randn(11, 1, 16, 24, generator=torch.Generator().manual_seed(5))


def refresh_on_one_rank(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    ids = torch.arange(100, 111)
    mine = slice(rank, None, world)
    batch = Batch(ids[mine], some_images()[mine], torch.zeros(len(ids[mine])))
    bank = MapBank(ids, (2, 3))
    encoder = small_encoder()
    refresh_bank(bank, encoder, [batch], lambda images: images, partial(patch_maps, encoder))
    torch.save(bank.state_dict(), Path(folder) / f"bank-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_rank_holds_the_maps_of_all(tmp_path: Path) -> None:
    mp.spawn(refresh_on_one_rank, args=(2, free_port(), str(tmp_path)), nprocs=2)
    banks = [torch.load(tmp_path / f"bank-{rank}.pt")["maps"] for rank in (0, 1)]
    expected = patch_maps(small_encoder(), some_images())
    for bank in banks:
        assert torch.allclose(bank, expected, atol=1e-6)
        assert not torch.equal(bank, torch.ones_like(bank)), "the released code's bank"


@pytest.mark.slow
def test_a_whole_run_on_two_processes(tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", images=90, size=32)
    command = [
        sys.executable, "-m", "msmae", "run", str(tmp_path / "data" / "manifest.csv"), "--out", str(tmp_path / "run"),
        "--preset", "tiny", "--trainer.accelerator", "cpu", "--trainer.devices", "2",
        "--pretrain.batch_size", "16", "--finetune.batch_size", "16",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
    environment["MSMAE_CACHE"] = str(tmp_path / "cache")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["splits"]["test"]["n"] > 0
    bank = torch.load(tmp_path / "run" / "checkpoints" / "pretrain.ckpt", weights_only=False)["map_bank"]
    assert bank["refreshes"] == 3
    assert (bank["maps"].flatten(1).std(dim=1) > 0).all(), "every image's map was refreshed, whichever rank made it"


FINE_TUNED = ["--method", "vit", "--finetune.drop_path", "0", "--finetune.draw", "half", "--finetune.rotate", "20"]
PRETRAINED = ["--method", "msmae-shuffled", "--pretrain.epochs", "3", "--pretrain.uniform_epochs", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "stage", "loss", "asked"),
    [
        ("run", "finetune", "val_loss", FINE_TUNED),
        ("pretrain", "pretrain", "reconstruction", PRETRAINED),
    ],
)
def test_one_two_and_three_processes_come_to_the_same(
    verb: str, stage: str, loss: str, asked: list[str], tmp_path: Path
) -> None:
    """Twelve images a step in all: whoever has an image, its crop, its jitter and its mask are the same. Dropped blocks
    are each process's own, and left out."""
    make_phantom(tmp_path / "data", images=90, size=32)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MSMAE_CACHE": str(tmp_path / "cache")}
    found = []
    for world in (1, 2, 3):
        run = tmp_path / str(world)
        command = [
            sys.executable, "-m", "msmae", verb, str(tmp_path / "data" / "manifest.csv"), "--out", str(run),
            "--preset", "tiny", "--trainer.accelerator", "cpu", "--trainer.devices", str(world),
            "--trainer.precision", "32-true", f"--{stage}.batch_size", str(12 // world), *asked,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, env={**environment, "MASTER_PORT": str(free_port())}, timeout=400
        )
        assert done.returncode == 0, done.stderr
        log = pd.read_csv(next((run / "logs" / stage).glob("**/metrics.csv")))
        weights = load_file(run / ("model" if verb == "run" else "pretrained") / "model.safetensors")
        found.append((run, log[loss].dropna().tolist(), weights))
    (one, losses, weights), *others = found
    assert len(losses) >= 2
    for run, other_losses, other_weights in others:
        if loss == "val_loss":  # what is logged of a step is the first process's share of it
            assert other_losses == pytest.approx(losses, abs=1e-5)
            mine, theirs = (pd.read_csv(folder / "predictions.csv")["image_path"] for folder in (one, run))
            assert list(theirs) == list(mine), "each once, by one process"
        assert all(torch.allclose(other_weights[name], weights[name], atol=1e-4) for name in weights)


@pytest.mark.slow
def test_two_launches_of_torchrun_train_one_model(tmp_path: Path) -> None:
    """As on two machines that see one disk: only the first evaluates and writes."""
    make_phantom(tmp_path / "data", images=90, size=32)
    run, port = tmp_path / "run", str(free_port())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MSMAE_CACHE": str(tmp_path / "cache")}
    launches = []
    for node in ("0", "1"):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", node, "--nproc-per-node",
            "1", "--master-addr", "127.0.0.1", "--master-port", port, "-m", "msmae", "run",
            str(tmp_path / "data" / "manifest.csv"), "--out", str(run), "--preset", "tiny", "--trainer.accelerator",
            "cpu", "--pretrain.batch_size", "16", "--finetune.batch_size", "16",
        ]  # fmt: skip
        pipe = subprocess.PIPE
        launches.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
    (first, error), (second, other) = (launch.communicate(timeout=400) for launch in launches)
    assert [launch.returncode for launch in launches] == [0, 0], error + other
    assert "report.html" in first
    assert "report.html" not in second
    assert json.loads((run / "metrics.json").read_text())["splits"]["test"]["n"] > 0


def processes_of(parent: int) -> list[int]:
    """The children of a process."""
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc")
def test_a_dead_process_ends_all_in_a_sentence_and_one_goes_on(tmp_path: Path) -> None:
    """Of two one is killed: the other says so and ends. The same command with one process goes on from there."""
    make_phantom(tmp_path / "data", images=90, size=32)
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "msmae", "pretrain", str(tmp_path / "data" / "manifest.csv"), "--out", str(run),
        "--preset", "tiny", "--trainer.accelerator", "cpu", "--pretrain.batch_size", "6", "--pretrain.epochs", "40",
        "--trainer.checkpoint_minutes", "0.001", "--trainer.devices",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
    environment["MSMAE_CACHE"] = str(tmp_path / "cache")
    both = subprocess.Popen([*command, "2"], stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 240
    while not (run / "checkpoints" / "before.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(processes_of(both.pid)[0], signal.SIGKILL)
    killed = time.monotonic()
    _, error = both.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert both.returncode
    assert "Traceback" not in error
    assert error.count("another process of this training has ended") == 1, error
    done = subprocess.run([*command, "1"], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "begun on 2 processes, this training goes on with 1" in done.stdout + done.stderr
    assert "continued from epoch" in done.stdout
    assert (run / "pretrained" / "model.safetensors").is_file()
