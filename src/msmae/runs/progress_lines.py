"""What a training tells while it runs: one line on a terminal, plain lines in a log."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from msmae.errors import count

LOG_EVERY = 10
"""Steps between two that are logged."""
NUMBER = (int, float, Tensor)
SHORT = {"val_balanced_accuracy": "val_bal_acc"}
SECONDS_BETWEEN_LINES = 20.0
SECONDS_TO_FORETELL = 5.0


class EveryEpochLogged(Callback):
    """Where an epoch has fewer steps than Lightning waits between two logged ones, its last is logged."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        trainer.log_every_n_steps = min(LOG_EVERY, max(1, steps))  # type: ignore[attr-defined]


class StageProgress(Callback):
    """One line for the whole stage: epoch, bar, images/s, current losses, time gone and left.

    Where the output is not a terminal, plain lines instead: after some seconds how long it will take, then one at the
    end of an epoch or half a minute after the last.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.task: TaskID | None = None
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=16), TimeRemainingColumn(), TextColumn("left"),
            TextColumn("{task.fields[figures]}"), redirect_stderr=sys.stderr.isatty(),
        )  # fmt: skip
        self.seconds = 0.0  # spent in training epochs so far, those before an interruption included
        self.images = 0
        self.due = 0.0  # when the next line is printed, where there is no terminal to draw a bar on
        self.foretold = False
        self.first_step: float | None = None  # when the epoch's first step began: its maps are fresh by then

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first, self.images, self.began = pl_module.goes_on[1], 0, time.perf_counter()  # type: ignore[index]
        if trainer.is_global_zero and (trainer.current_epoch or self.first):
            within = f", batch {self.first + 1} of {trainer.num_training_batches}" if self.first else ""
            epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            print(f"{self.stage}: continued from {epoch}{within}", flush=True)
        if trainer.is_global_zero and self.progress.console.is_terminal:
            total = int(trainer.max_epochs or 1) * int(trainer.num_training_batches)
            self.task = self.progress.add_task(self.stage, total=total, figures="")
            self.progress.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first, self.images, self.began, self.first_step = 0, 0, time.perf_counter(), None

    def on_train_batch_start(self, *_: Any) -> None:
        self.first_step = self.first_step or time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch.ids) * trainer.world_size
        if trainer.is_global_zero and not self.progress.console.is_terminal:
            self.say_within(trainer, batch_idx + 1)
        if self.task is None or (batch_idx % 5 and batch_idx + 1 < int(trainer.num_training_batches)):
            return
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        epoch, figures = self.status(trainer)
        self.progress.update(self.task, completed=done, description=epoch, figures=figures)

    def say_within(self, trainer: pl.Trainer, batches: int) -> None:
        """Within an epoch: how long the stage will take, and where it is."""
        passed, of_epoch = time.perf_counter() - (self.first_step or self.began), int(trainer.num_training_batches)
        if not self.foretold and passed > SECONDS_TO_FORETELL:
            left = int(trainer.max_epochs or 1) - trainer.current_epoch
            self.foretell(float(passed / (batches - self.first) * left * of_epoch), left, ", without validation")
        elif passed > SECONDS_BETWEEN_LINES and time.monotonic() > self.due + 10 and batches < of_epoch:
            self.due = time.monotonic() + SECONDS_BETWEEN_LINES
            epoch, figures = self.status(trainer)
            print(f"{epoch} ({100 * batches // of_epoch} %)  {figures}", flush=True)

    def foretell(self, seconds: float, epochs: int, but: str) -> None:
        """Say how long so many further epochs will take, once."""
        print(f"{self.stage}: about {seconds / 60:.1f} minutes for {count(epochs, 'epoch')}{but}", flush=True)
        self.foretold, self.due = True, time.monotonic() + SECONDS_BETWEEN_LINES

    def status(self, trainer: pl.Trainer) -> tuple[str, str]:
        """Which epoch this is, and images/s with the current losses."""
        rate = self.images / (time.perf_counter() - self.began)
        shown = {SHORT.get(k, k): float(v) for k, v in trainer.progress_bar_metrics.items() if isinstance(v, NUMBER)}
        figures = " ".join([f"{rate:.0f} images/s", *(f"{name} {value:.3f}" for name, value in shown.items())])
        return f"{self.stage} {trainer.current_epoch + 1}/{trainer.max_epochs}", figures

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        passed = time.perf_counter() - self.began
        self.seconds += passed
        pl_module.log("images_per_s", self.images / passed, rank_zero_only=True)
        last = trainer.current_epoch + 1 == trainer.max_epochs
        told = trainer.is_global_zero and not self.progress.console.is_terminal
        if told and not self.foretold and self.seconds > SECONDS_TO_FORETELL and not last:  # of short epochs
            left = int(trainer.max_epochs or 1) - trainer.current_epoch - 1
            self.foretell(passed * left, left, "")
        elif told and (last or time.monotonic() > self.due):
            self.due = time.monotonic() + SECONDS_BETWEEN_LINES
            print("  ".join(self.status(trainer)), flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = float(state_dict["seconds"])

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.task is not None:
            self.progress.stop()
