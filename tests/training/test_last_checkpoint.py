"""The checkpoint that a killed run continues from: when it is written, and that going on from it changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import msmae
from msmae.config import make_settings
from msmae.errors import UserError
from msmae.runs import last as training
from msmae.runs.last import LastCheckpoint
from msmae.training import finetune, pretrain


class Killed(Exception):
    """Stands for the end of the process."""


def fake_trainer(epoch: int, epochs: int, saved: list[str], *, stops: bool = False, batches: int = 1) -> Any:
    """What the callback asks a trainer; it notes in ``saved`` what is saved."""
    return SimpleNamespace(
        current_epoch=epoch, max_epochs=epochs, should_stop=stops, world_size=1, num_training_batches=batches,
        accumulate_grad_batches=2, save_checkpoint=saved.append,
    )  # fmt: skip


def at(second: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: second))


def saved_epochs(ends: list[float], monkeypatch: pytest.MonkeyPatch, *, stops: int | None = None) -> list[int]:
    """After which epochs a checkpoint is written, where epoch i ends at second ``ends[i]``; ``stops``: early, there."""
    found = []
    callback = LastCheckpoint(Path("nowhere"), 10)
    for epoch, end in enumerate(ends):
        at(end, monkeypatch)
        saved: list[str] = []
        callback.on_train_epoch_end(fake_trainer(epoch, len(ends), saved, stops=epoch == stops), None)  # type: ignore[arg-type]
        found += [epoch] * len(saved)
        if epoch == stops:
            break
    return found


def test_epochs_of_seconds_are_saved_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_epochs([100, 110, 120, 130, 140, 165, 166], monkeypatch) == [0, 3, 5, 6]


def test_long_epochs_are_all_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_epochs([100, 131, 170], monkeypatch) == [0, 1, 2]


def test_the_epoch_that_a_training_stops_at_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_epochs([1, 2, 3, 4, 5], monkeypatch, stops=2) == [0, 2]


def test_a_long_epoch_is_saved_within_and_before_its_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten batches, two a step, a minute each; checkpoints every three minutes. After the last nothing is: it is
    validated first."""
    callback, saved = LastCheckpoint(Path("nowhere"), 3), []
    callback.began = 1.0
    for batch in range(10):
        at(1.0 + 60 * (batch + 1), monkeypatch)
        kept: list[str] = []
        callback.on_train_batch_end(fake_trainer(0, 1, kept, batches=10), None, None, None, batch)  # type: ignore[arg-type]
        saved += [batch] * len(kept)
    assert saved == [3, 7]
    assert callback.kept == "epoch 1, step 4 of 5"


def test_all_processes_do_as_one_of_them_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their clocks differ, one alone may be told to end, and a process that writes waits for the others."""
    trainer = fake_trainer(1, 9, [])
    trainer.world_size = 2
    for others in ([0, 0], [1, 0], [0, 15]):
        trainer.strategy = SimpleNamespace(
            root_device=torch.device("cpu"),
            reduce=lambda mine, reduce_op, o=others: torch.maximum(mine, torch.tensor(o)),
        )
        assert training.agreed(trainer, False, 0) == (bool(others[0]), others[1])


@pytest.fixture
def kept(pretrained: Path) -> dict[str, Any]:
    return torch.load(pretrained / "checkpoints" / "pretrain.ckpt", weights_only=True)


OFTEN = {"checkpoint_minutes": 1e-6}


@pytest.mark.slow
@pytest.mark.parametrize(("often", "epoch"), [({}, 0), (OFTEN, 2)])
def test_a_killed_run_ends_as_if_it_had_not_been(
    often: dict[str, float], epoch: int, data: Path, pretrained: Path, kept: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Killed within the third epoch, seconds after the first was saved, or a step after a checkpoint within it."""

    class Mortal(pretrain.PretrainModule):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if (self.current_epoch, batch_idx) == (2, 1):
                raise Killed
            super().on_train_batch_start(batch, batch_idx)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "PretrainModule", Mortal)
        with pytest.raises(Killed):
            msmae.pretrain(str(data), out=str(out), preset="tiny", trainer=often)
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == epoch
    msmae.pretrain(str(data), out=str(out), preset="tiny", trainer=often)
    weights = [(run / "pretrained" / "model.safetensors").read_bytes() for run in (out, pretrained)]
    assert weights[0] == weights[1]
    bank = torch.load(out / "checkpoints" / "pretrain.ckpt", weights_only=True)["map_bank"]
    assert torch.equal(bank["maps"], kept["map_bank"]["maps"])


@pytest.mark.slow
def test_a_signal_saves_at_the_end_of_the_step(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fine-tuning is told to end within the first step of its second epoch, and goes on with the second."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for name in ("model", "checkpoints"):
        shutil.rmtree(run / name)
    predictions = (run / "predictions.csv").read_bytes()
    for name in ("metrics.json", "predictions.csv"):
        (run / name).unlink()

    class Told(finetune.FinetuneModule):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(batch, batch_idx)
            if self.current_epoch == 1:
                signal.raise_signal(signal.SIGTERM)

    def end(*_: object) -> None:
        raise Killed

    before = signal.signal(signal.SIGTERM, end)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(finetune, "FinetuneModule", Told)
            with pytest.raises(Killed):
                msmae.run(str(data), out=str(run), preset="tiny")
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    assert f"kept epoch 2, step 1 of 2, in {run / 'checkpoints' / 'last.ckpt'}" in capsys.readouterr().err
    msmae.run(str(data), out=str(run), preset="tiny")
    assert "finetune: continued from epoch 2 of 2, batch 2 of 2" in capsys.readouterr().out
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, finished)]
    assert weights[0] == weights[1]
    assert (run / "predictions.csv").read_bytes() == predictions


def figures(run: Path) -> dict[str, Any]:
    """What a run came to, without what it took."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    del metrics["cost"]
    return metrics


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_a_killed_run_goes_on_with_the_same_command(
    number: signal.Signals, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C, and by SLURM before its limit of time: the job is queued again."""
    out = tmp_path / "killed"
    if number == signal.SIGUSR1:
        names = {"JOB_ID": "7", "JOB_NAME": "mine", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
        for name, value in names.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command = [sys.executable, "-m", "msmae", "run", str(data), "--out", str(out), "--preset", "tiny"]
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a shell's background job does not
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert "the same command goes on" in error
    assert re.search(r"msmae: kept epoch \d", error), error
    assert "Traceback" not in error
    assert number != signal.SIGUSR1 or (tmp_path / "asked").read_text() == "requeue 7\n"
    assert not list(Path().glob("hpc_ckpt*")), "the training library's own checkpoint of a SLURM job"
    assert not (out / "metrics.json").exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    assert re.search(r"(pretrain|finetune): continued from epoch \d+ of \d", again.stdout), again.stdout
    assert figures(out) == figures(finished)


def test_another_number_of_processes_goes_on_where_the_images_end(kept: dict[str, Any]) -> None:
    """Two processes become one: half the images a step, so twice the steps, at half the rate."""
    loop = kept["loops"]["fit_loop"]
    kept["world"] = 2
    loop["epoch_progress"]["current"] |= {"started": 4, "processed": 3}
    loop["epoch_loop.batch_progress"]["current"] |= {"ready": 3, "started": 3, "processed": 3, "completed": 2}
    rate, steps = kept["lr_schedulers"][0]["base_lrs"][0], kept["global_step"]
    trainer = fake_trainer(3, 4, [])
    module: Any = SimpleNamespace(train_dataloader=lambda: range(20))
    LastCheckpoint(Path("nowhere"), 10).on_load_checkpoint(trainer, module, kept)
    assert module.goes_on == (3, 6)
    assert loop["epoch_loop.batch_progress"]["current"]["completed"] == 5
    assert kept["lr_schedulers"][0]["base_lrs"][0] == rate / 2
    assert kept["lr_schedulers"][0]["last_epoch"] == 2 * steps
    assert kept["optimizer_states"][0]["param_groups"][0]["initial_lr"] == rate / 2


class Mine:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.slow
def test_code_in_a_checkpoint_is_not_run(data: Path, finished: Path, tmp_path: Path) -> None:
    """Of a stranger's run: by evaluating it, and by going on with its training."""
    planted, run = tmp_path / "planted", tmp_path / "run"
    shutil.copytree(finished, run)
    torch.save({"callbacks": {}, "state_dict": {}, "mine": Mine(planted)}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="holds code"):
        msmae.evaluate(str(run))
    shutil.rmtree(run / "model")
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="holds code"):
        msmae.run(str(data), out=str(run), preset="tiny")
    assert not planted.exists()


def test_a_loss_that_is_not_finite_goes_back_to_the_last_checkpoint_at_half_the_rate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice it is none, in the second epoch; then training ends as usual, at a quarter of the rate."""
    poison = [True, True]

    class Poisoned(pretrain.PretrainModule):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            if self.current_epoch == 1 and poison:
                poison.pop()
                return self.guard(loss * float("nan"), batch.ids)
            return loss

    monkeypatch.setattr(pretrain, "PretrainModule", Poisoned)
    msmae.pretrain(str(data), out=str(tmp_path / "run"), preset="tiny")
    assert not poison
    assert caplog.text.count("on at half the rate") == 2
    schedule = torch.load(tmp_path / "run" / "checkpoints" / "pretrain.ckpt", weights_only=True)["lr_schedulers"][0]
    rate = make_settings("tiny").pretrain.base_lr * make_settings("tiny").pretrain.batch_size / 256
    assert max(schedule["base_lrs"]) == pytest.approx(rate / 4)
