"""What both training stages share: the trainer, the schedule, the optimiser, progress, and stopping at a NaN."""

from __future__ import annotations

import logging
import math
import os
import pickle  # nosec B403 # for the error of a file that holds code, which is not run
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
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn

from msmae.config import FinetuneSettings, PretrainSettings, SegmentSettings, TrainerSettings, require
from msmae.data.geometry import Geometry, random_geometry
from msmae.data.loader import Batch, Batches
from msmae.data.tables.listing import count, some
from msmae.errors import UserError
from msmae.machine import choose_precision, compile_network, is_out_of_memory, keep_freed_memory
from msmae.runs.checkpoint import unreadable_checkpoint
from msmae.runs.folder import precision_of
from msmae.runs.last import LastCheckpoint
from msmae.runs.loggers import check_logger, loggers_of
from msmae.runs.progress_lines import LOG_EVERY, EveryEpochLogged, StageProgress
from msmae.runs.resume import Halved, WholeCheckpoints, sound_checkpoint
from msmae.training.prepare import Prepared

log = logging.getLogger("msmae")


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
        **processes(settings.devices),
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
        **in_precision(precision_of(run, settings), settings.accelerator, WholeCheckpoints()),
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def processes(devices: int | str) -> dict[str, Any]:
    """A Lightning trainer's devices and machines: as torchrun or srun tells every process that it starts, unless given.

    Several processes train by DDP, each with the whole model: a ViT-L with its optimiser takes about 5 GB.
    """
    known, nodes, here = os.environ, 1, 0
    if "LOCAL_WORLD_SIZE" in known:
        here, nodes = int(known["LOCAL_WORLD_SIZE"]), int(known.get("GROUP_WORLD_SIZE", 1))
    elif "SLURM_PROCID" in known and "SLURM_STEP_NUM_TASKS" in known:  # of a step, not of the script around it
        nodes = int(known.get("SLURM_STEP_NUM_NODES", 1))
        here = int(known["SLURM_STEP_NUM_TASKS"]) // nodes
    return {"devices": here if here and devices == "auto" else devices, "num_nodes": nodes}


def in_precision(precision: str, accelerator: str, *plugins: Any) -> dict[str, Any]:
    """A Lightning trainer's arguments for a precision, and its plugins. Asked by name for float16 on a processor,
    Lightning takes bfloat16; the plugin trains in what it says."""
    gpu = accelerator != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
    if precision == "16-mixed" and not gpu:
        return {"plugins": [MixedPrecision("16-mixed", "cpu"), *plugins]}
    return {"precision": precision, "plugins": [*plugins]}


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
    try:
        pl.Trainer(
            accelerator=settings.accelerator,
            **processes(settings.devices),
            **in_precision(choose_precision(settings.precision, settings.accelerator), settings.accelerator),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, RuntimeError, TypeError, ImportError, MisconfigurationException) as error:
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
            f"a batch of {count(module.batch_size, 'image')} does not fit into memory",
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
        """Seed all randomness from (seed, epoch, batch): a resumed run draws the same. ``generator`` is alike on all
        processes, which draw for the images of all of them and take their `own`; torch's is each process's."""
        place = (self.prepared.seed, self.current_epoch, batch_idx)
        alike, torchs = (
            int(np.random.SeedSequence((*place, rank)).generate_state(1)[0]) for rank in (0, self.global_rank)
        )
        torch.manual_seed(torchs)
        self.generator = torch.Generator().manual_seed(alike)

    @property
    def world(self) -> int:
        """Processes that train together; 1 outside a training, where Lightning's ``global_rank`` is 0."""
        return 1 if self._trainer is None else self.trainer.world_size

    @property
    def own(self) -> slice:
        """Of what is drawn for the images of all processes, the rows of this one's (``Batches``)."""
        return slice(self.global_rank, None, self.world)

    def for_all(self, rows: Tensor) -> Tensor:
        """Rows [B, ...] as if each of W processes had the same [W*B, ...]: what is drawn for them is drawn for all."""
        return rows.repeat_interleave(self.world, dim=0)

    def draw_geometry(self, images: int, **limits: Any) -> Geometry:
        """Crop, flip and rotation of each of this process's images."""
        return random_geometry(images * self.world, **limits, generator=self.generator)[self.own]

    def jittered(self, images: Tensor, strength: float) -> Tensor:
        """Normalised images [B, C, H, W] with random contrast and brightness, each with this standard deviation."""
        if strength == 0:
            return images
        draws = torch.randn(2, len(images) * self.world, 1, 1, 1, generator=self.generator)
        contrast, brightness = (strength * draws[:, self.own]).to(images.device)
        changed: Tensor = images * (1 + contrast) + brightness
        return changed

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
