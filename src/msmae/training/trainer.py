"""What both training stages share: the trainer, the schedule, the optimiser, progress, and stopping at a NaN."""

from __future__ import annotations

import logging
import math
import pickle  # nosec B403 # for the error of a file that holds code, which is not run
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from msmae.config import FinetuneSettings, PretrainSettings, SegmentSettings, TrainerSettings, require
from msmae.data.loader import Batch, Batches
from msmae.data.tables.listing import count, some
from msmae.errors import UserError
from msmae.machine import choose_precision, compile_network, is_out_of_memory, keep_freed_memory
from msmae.runs.checkpoint import unreadable_checkpoint
from msmae.runs.folder import precision_of
from msmae.runs.last import LastCheckpoint
from msmae.runs.loggers import check_logger, loggers_of
from msmae.runs.resume import Halved, WholeCheckpoints, sound_checkpoint
from msmae.training.prepare import Prepared

log = logging.getLogger("msmae")

LOG_EVERY = 10
"""Steps between two that are logged."""


def make_trainer(
    run: Path,
    stage: str,
    *,
    epochs: int,
    settings: TrainerSettings,
    callbacks: list[Callback],
    accumulate: int = 1,
    validate_every: int = 1,
) -> pl.Trainer:
    """A Lightning trainer that logs to RUN/logs (``runs/loggers.py``) and shows one line of progress."""
    quiet_lightning()
    keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return pl.Trainer(
        max_epochs=epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=settings.strategy,
        num_nodes=settings.num_nodes,
        precision=precision_of(run, settings),  # type: ignore[arg-type]
        callbacks=[
            *callbacks,
            LastCheckpoint(run, settings.checkpoint_minutes),
            Halved(),
            StageProgress(stage),
            EveryEpochLogged(),
        ],
        logger=loggers_of(settings.logger, run, stage, {"stage": stage, "epochs": epochs, **asdict(settings)}),
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=validate_every,
        plugins=[WholeCheckpoints()],
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def quiet_lightning() -> None:
    """No advertisements and no hints of Lightning's; its errors stay."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("pytorch_lightning", "lightning_fabric"):
        warnings.filterwarnings("ignore", module=module)


def is_main_process() -> bool:
    """Whether this process is the one that evaluates and writes: the only one, or rank 0 of several."""
    return not (torch.distributed.is_available() and torch.distributed.is_initialized()) or (
        torch.distributed.get_rank() == 0
    )


def check_trainer(settings: TrainerSettings) -> None:
    """Raise ``UserError`` for settings that Lightning, or this machine, refuses."""
    quiet_lightning()
    require(settings.threads is None or settings.threads >= 1, "too few", where="trainer.threads", mend="at least 1")
    check_logger(settings.logger)
    known = ("auto", "32-true", "bf16-mixed", "16-mixed")
    told = {"where": f"trainer.precision {settings.precision}", "mend": f"choose one of {', '.join(known)}"}
    require(settings.precision in known, "not trained in", **told)
    halves = settings.precision == "16-mixed" and settings.accelerator in ("auto", "cpu")
    gpu = settings.accelerator != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
    require(not halves or gpu, "a processor does not train in float16", **{**told, "mend": "bf16-mixed, or a GPU"})
    try:
        pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            precision=choose_precision(settings.precision, settings.accelerator),  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, RuntimeError, TypeError, MisconfigurationException) as error:
        raise UserError(
            f"the training cannot be set up: {str(error).splitlines()[0]}", where="trainer", mend="change --trainer.*"
        ) from error


def fit(trainer: pl.Trainer, module: StageModule, *, checkpoints: Sequence[Path]) -> None:
    """Train, going on from the first of these checkpoints that is there and sound. Where a loss is not finite, training
    goes back to the last checkpoint and on at half the rate, ``Halved.MOST`` times at most; this is told.

    Raises:
        Diverged: a loss is not finite still, or no epoch was finished before.
        UserError: all are damaged, the one holds more than tensors and plain values, a batch does not fit into memory,
            or the network cannot be compiled here.
    """
    if module.prepared.settings.trainer.compile:
        assert isinstance(module.model, nn.Module)
        compile_network(module.model, trainer.strategy.root_device)
    halved = next((c for c in getattr(trainer, "callbacks", ()) if isinstance(c, Halved)), None)
    while True:
        try:
            fit_once(trainer, module, checkpoints)
            return
        except Diverged as error:
            kept = sound_checkpoint(checkpoints)
            if halved is None or halved.times >= Halved.MOST or kept is None or trainer.world_size > 1:
                raise
            halved.times += 1
            words = "%s (%s): training goes back to %s and on at half the rate (%d of at most %d times)"
            log.warning(words, error.what, error.where, kept.name, halved.times, Halved.MOST)


def fit_once(trainer: pl.Trainer, module: StageModule, checkpoints: Sequence[Path]) -> None:
    """Train once; raises as :func:`fit`."""
    checkpoint = sound_checkpoint(checkpoints)
    try:
        trainer.fit(module, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    except pickle.UnpicklingError as error:
        raise unreadable_checkpoint(checkpoint or checkpoints[0]) from error
    except ValueError as error:
        if "parameter group" not in str(error):
            raise
        raise UserError(
            "another version of msmae began this training",
            where=str(checkpoint),
            mend="delete it, and the same command begins this stage again",
        ) from error
    except RuntimeError as error:
        if trainer.world_size > 1 and is_lost_peer(error):
            mend = "the same command goes on from the last checkpoint"
            raise Lost("another process of this training has ended, and this one with it", mend=mend) from error
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"a batch of {module.batch_size} images does not fit into memory",
            where="batch_size",
            mend=smaller_batch(module.batch_size, module.accumulate),
        ) from error


class Diverged(UserError):
    """A loss or a gradient is not finite."""


class Lost(UserError):
    """Another process of a distributed training has ended; exit code 1, for the input is not wrong."""

    exit_code = 1


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that a process does not answer; gloo's have no class of their own."""
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "TCPStore")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)


def smaller_batch(batch_size: int, accumulate: int) -> str:
    """What to do where a batch does not fit into memory."""
    if batch_size == 1:
        return "smaller images (model.image_size), larger patches, or a smaller model"
    return (
        f"{batch_size // 2} with accumulate {2 * accumulate} takes about as many images a step in half the memory; "
        "`msmae bench --only step --batch N` finds the batch that fits"
    )


class StageModule(pl.LightningModule):
    """A training stage over prepared data: loaders by epoch, normalisation, seeding, and the NaN guard."""

    def __init__(
        self,
        prepared: Prepared,
        settings: PretrainSettings | FinetuneSettings | SegmentSettings,
        *,
        ids: np.ndarray,
    ) -> None:
        super().__init__()
        self.prepared, self.train_ids, self.warmup = prepared, ids, settings.lr_warmup
        self.batch_size, self.accumulate, self.base_lr = settings.batch_size, settings.accumulate, settings.base_lr
        self.goes_on = (0, 0)  # the epoch in which a checkpoint lies, and how many of its batches are done
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(prepared.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(prepared.std).reshape(shape), persistent=False)

    def train_dataloader(self) -> Batches:
        """This epoch's batches, without those before the checkpoint that training goes on from. The order depends on
        seed and epoch alone, so a resumed run sees the same."""
        epoch, batches = self.goes_on
        return self.prepared.batches(
            self.train_ids, self.batch_size, epoch=self.current_epoch, rank=self.global_rank,
            world=self.trainer.world_size, first=batches if epoch == self.current_epoch else 0,
        )  # fmt: skip

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed all randomness from (seed, epoch, batch, rank): a resumed run draws the same."""
        place = (self.prepared.seed, self.current_epoch, batch_idx, self.global_rank)
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def rate(self) -> float:
        """Learning rate for the images that all devices see in one step together."""
        return self.base_lr * self.batch_size * self.accumulate * self.trainer.world_size / 256

    def normalise(self, images: Tensor) -> Tensor:
        """Images in the file's own numbers -> new float32 ones: mean 0 and deviation 1 over the training split."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        if self.device.type == "cuda" and not images.is_cuda:
            images = images.pin_memory()  # so that the copy does not wait
        own = images.to(self.device, non_blocking=True).to(torch.float32, copy=True)
        return own.sub_(self.mean).div_(self.std)

    def forward_precision(self) -> Any:
        """The trainer's precision, for forward passes outside a step."""
        return self.trainer.precision_plugin.forward_context()

    def guard(self, loss: Tensor, ids: Tensor) -> Tensor:
        """Stop at a loss that is not a number, naming the step and the images of the batch."""
        self.batch_ids = ids
        if not torch.isfinite(loss):
            raise self.diverged(f"the loss is {float(loss.detach())}")
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient's norm to 1 (Lightning's own switch refuses fused optimisers); stop if it is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        if not torch.isfinite(norm) and self.trainer.precision != "16-mixed":  # there the scaler skips such steps
            raise self.diverged(f"the gradient's norm is {float(norm)}")

    def diverged(self, what: str) -> UserError:
        """The error that names the step, the batch's images and the checkpoint to go on from."""
        paths = [str(self.prepared.manifest.path(int(i))) for i in self.batch_ids]
        last = self.trainer.checkpoint_callbacks[-1]
        kept = last.path if isinstance(last, LastCheckpoint) and last.path.is_file() else None
        return Diverged(
            f"{what} at step {self.global_step} (epoch {self.current_epoch + 1})",
            where=f"{count(len(paths), 'image')} in the batch: {some(paths)}",
            mend=(f"the last good checkpoint is kept in {kept}; " if kept else "no epoch was finished yet; ")
            + "lower base_lr, set --trainer.precision 32-true, or check these images",
        )

    def with_schedule(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> Any:
        """AdamW with a linear rise and a half-cosine fall of the learning rate, step by step."""
        scaled = self.trainer.precision == "16-mixed"  # its gradients are unscaled between backward and step
        optimiser = torch.optim.AdamW(groups, betas=betas, fused=not scaled)
        total = int(self.trainer.estimated_stepping_batches)
        rise = max(1, round(self.warmup * total))

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


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

    def on_train_start(self, trainer: pl.Trainer, pl_module: StageModule) -> None:  # type: ignore[override]
        self.first, self.images, self.began = pl_module.goes_on[1], 0, time.perf_counter()
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
            minutes = passed / (batches - self.first) * left * of_epoch / 60
            print(f"{self.stage}: about {minutes:.1f} minutes for {left} epochs, validation apart", flush=True)
            self.foretold, self.due = True, time.monotonic() + SECONDS_BETWEEN_LINES
        elif passed > SECONDS_BETWEEN_LINES and time.monotonic() > self.due + 10 and batches < of_epoch:
            self.due = time.monotonic() + SECONDS_BETWEEN_LINES
            epoch, figures = self.status(trainer)
            print(f"{epoch} ({100 * batches // of_epoch} %)  {figures}", flush=True)

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
        if trainer.is_global_zero and not self.progress.console.is_terminal and (last or time.monotonic() > self.due):
            self.due = time.monotonic() + SECONDS_BETWEEN_LINES
            print("  ".join(self.status(trainer)), flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = float(state_dict["seconds"])

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.task is not None:
            self.progress.stop()
