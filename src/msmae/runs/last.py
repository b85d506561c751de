"""The checkpoint that a training goes on from: at an epoch's end, every few minutes within one, and at a signal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from msmae.runs.resume import LAST, scale_rates

log = logging.getLogger("msmae")

SECONDS_BETWEEN_EPOCHS = 30.0
"""Epochs that end sooner after a checkpoint are not saved."""
SECONDS_TO_SAVE = 20.0
"""What a signal waits for the end of a step; then the process ends without."""
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


class LastCheckpoint(ModelCheckpoint):
    """Keeps RUN/checkpoints/last.ckpt: what a killed run continues from.

    It is written after the first epoch, after the last, and between them after an epoch's end no sooner than half a
    minute since; within an epoch every ``minutes``, before its last step if half a minute is lost otherwise while it is
    validated, and at SIGTERM or Ctrl-C, which then end the process. Only after a step of the optimiser, and never after
    an epoch's last: its validation would be left out.
    """

    def __init__(self, run: Path, minutes: float) -> None:
        super().__init__(dirpath=run / "checkpoints", filename="last", enable_version_counter=False)
        self.path, self.seconds = run / "checkpoints" / LAST, 60 * minutes
        self.kept = ""
        self.saved: float | None = None  # when; None: no epoch yet
        self.began = 0.0
        self.asked = 0
        self.late: threading.Timer | None = None
        self.before: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.before = {number: signal.getsignal(number) for number in ENDING}  # the trainer has its own from here on

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began, self.main = time.monotonic(), trainer.is_global_zero
        if threading.current_thread() is threading.main_thread():
            for number, answer in self.before.items():
                if answer not in (signal.SIG_IGN, None) and (
                    number != getattr(signal, "SIGUSR1", 0) or callable(answer)
                ):
                    signal.signal(number, self.hear)

    def hear(self, number: int, *_: object) -> None:
        """Answer a signal: go on to the end of the step; at the second one, or after 20 s, end without."""
        if self.asked:
            self.leave(number)
            return
        self.asked = number
        self.late = threading.Timer(SECONDS_TO_SAVE, os.kill, (os.getpid(), number))
        self.late.daemon = True
        self.late.start()
        if self.main:
            print("\nmsmae: saving at the end of this step; once more ends at once", file=sys.stderr, flush=True)

    def leave(self, number: int) -> None:
        """Say what is kept, and give the signal to whom it was meant for."""
        if self.main:
            kept = f"kept {self.kept}, in {self.path}" if self.kept else "nothing of this stage is kept yet"
            print(f"msmae: {kept}", file=sys.stderr, flush=True)
        if self.late is not None:
            self.late.cancel()
        for known, answer in self.before.items():
            if answer is not None:
                signal.signal(known, answer)
        signal.raise_signal(number)

    def save(self, trainer: pl.Trainer, where: str, *, due: bool) -> None:
        """Write the checkpoint where it is due or a signal asks for it, in all processes; then end if one did."""
        due, asked = agreed(trainer, due, self.asked)
        if due or asked:
            trainer.save_checkpoint(self.path)
            self.kept, self.saved = where, time.monotonic()
        if asked:
            self.leave(asked)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, total, step = batch_idx + 1, int(trainer.num_training_batches), trainer.accumulate_grad_batches
        if done % step or done >= total:
            return
        passed = time.monotonic() - (self.saved or self.began)
        before_validation = done + step >= total and passed >= SECONDS_BETWEEN_EPOCHS
        where = f"epoch {trainer.current_epoch + 1}, step {done // step} of {-(-total // step)}"
        self.save(trainer, where, due=passed >= self.seconds or before_validation)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        wait = min(self.seconds, SECONDS_BETWEEN_EPOCHS)
        due = last or self.saved is None or time.monotonic() >= self.saved + wait
        self.save(trainer, f"epoch {trainer.current_epoch + 1}", due=due)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: the epoch has not ended."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.asked:
            self.leave(self.asked)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: where the run lies now is known."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["world"] = trainer.world_size

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note where the epoch goes on, by batches of now: the number of processes may be another than it was."""
        before, now = int(checkpoint.get("world", trainer.world_size)), trainer.world_size
        loop = checkpoint["loops"]["fit_loop"]
        epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]["current"]
        within = epochs["started"] > epochs["processed"]
        if before != now:
            told = "begun on %d processes, this training goes on with %d: %g times the images a step and the rate"
            log.warning(told, before, now, now / before)
            for_world(checkpoint, before, now)
            if within:
                step, most = trainer.accumulate_grad_batches, len(pl_module.train_dataloader()) - 1
                done = min(batches["ready"] * before // now, most) // step * step
                batches |= dict.fromkeys(batches, done) | {"completed": max(0, done - 1)}
        pl_module.goes_on = (epochs["processed"], batches["ready"] if within else 0)  # type: ignore[assignment]


def agreed(trainer: pl.Trainer, due: bool, asked: int) -> tuple[bool, int]:
    """Whether a checkpoint is due for one of all processes, and the signal that one was given."""
    if trainer.world_size == 1:
        return due, asked
    said = torch.tensor([int(due), asked], device=trainer.strategy.root_device)
    said = trainer.strategy.reduce(said, reduce_op="max")
    return bool(said[0]), int(said[1])


def for_world(checkpoint: dict[str, Any], before: int, now: int) -> None:
    """Let a checkpoint of ``before`` processes be one of ``now``: its rates, and its steps counted in images."""

    def steps(count: int) -> int:
        return round(count * before / now)

    scale_rates(checkpoint, now / before)
    for scheduler in checkpoint.get("lr_schedulers", []):
        scheduler |= {name: steps(scheduler[name]) for name in ("last_epoch", "_step_count")}
    for state in checkpoint.get("callbacks", {}).values():
        if "latest_update_step" in state:
            state["latest_update_step"] = steps(state["latest_update_step"])
    loop = checkpoint["loops"]["fit_loop"]
    total = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    total |= {name: steps(count) for name, count in total.items()}
