"""The checkpoint that a killed run continues from: when it is written, and that going on from it changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

import msmae
from msmae.config import make_settings
from msmae.errors import UserError
from msmae.runs import resume as training
from msmae.runs.resume import LastCheckpoint
from msmae.training import pretrain


class Killed(Exception):
    """Stands for the end of the process."""


def saved_epochs(ends: list[float], monkeypatch: pytest.MonkeyPatch, *, stops: int | None = None) -> list[int]:
    """After which epochs a checkpoint is written, where epoch i ends at second ``ends[i]``; ``stops``: early, there."""
    saved: list[int] = []
    monkeypatch.setattr(
        ModelCheckpoint, "on_train_epoch_end", lambda self, trainer, _: saved.append(trainer.current_epoch)
    )
    callback = LastCheckpoint(Path("nowhere"))
    for epoch, end in enumerate(ends):
        monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda end=end: end))
        trainer: Any = SimpleNamespace(
            current_epoch=epoch, max_epochs=len(ends), should_stop=epoch == stops,
            strategy=SimpleNamespace(broadcast=lambda said: said),
        )  # fmt: skip
        callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        if epoch == stops:
            break
    return saved


def test_epochs_of_seconds_are_saved_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_epochs([100, 110, 120, 130, 140, 165, 166], monkeypatch) == [0, 3, 5, 6]


def test_long_epochs_are_all_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_epochs([100, 131, 170], monkeypatch) == [0, 1, 2]


def test_the_epoch_that_a_training_stops_at_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_epochs([1, 2, 3, 4, 5], monkeypatch, stops=2) == [0, 2]


def test_all_processes_do_as_the_first_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their clocks differ, and a process that writes waits for the others."""
    saved: list[int] = []
    monkeypatch.setattr(ModelCheckpoint, "on_train_epoch_end", lambda *_: saved.append(1))
    for said in (True, False):
        trainer: Any = SimpleNamespace(
            current_epoch=1, max_epochs=9, should_stop=False, strategy=SimpleNamespace(broadcast=lambda _, s=said: s)
        )
        LastCheckpoint(Path("nowhere")).on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert len(saved) == 1


def test_a_run_killed_epochs_after_its_checkpoint_ends_as_if_it_had_not_been(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third epoch, seconds after the first was saved: the second and third are learned again."""

    class Mortal(pretrain.PretrainModule):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if self.current_epoch == 2:
                raise Killed

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "PretrainModule", Mortal)
        with pytest.raises(Killed):
            msmae.pretrain(str(data), out=str(out), preset="tiny")
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=False)["epoch"] == 0
    msmae.pretrain(str(data), out=str(out), preset="tiny")
    weights = [(run / "pretrained" / "model.safetensors").read_bytes() for run in (out, pretrained)]
    assert weights[0] == weights[1]


class Mine:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


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
