"""The checkpoints of a training: written whole beside one another, the last two kept, a damaged one never believed."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

from msmae.files import Steady, own_folder, whole
from msmae.runs.checkpoint import read_checkpoint, unreadable_checkpoint

log = logging.getLogger("msmae")

LAST, BEFORE, BEST = "last.ckpt", "before.ckpt", "best.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the one it replaces, never in another place first; the last but one stays."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        own_folder(path.parent)
        if path.name == LAST:
            keep_before(path)
        with whole(path) as unfinished, Steady(unfinished) as stream:
            torch.save(checkpoint, stream)  # type: ignore[arg-type]  # it needs no more than write and flush


def keep_before(last: Path) -> None:
    """Let ``before.ckpt`` be what ``last.ckpt`` is so far; nothing where there is none."""
    before = last.with_name(BEFORE)
    before.unlink(missing_ok=True)
    if last.is_file():
        try:
            os.link(last, before)
        except OSError:  # a file system without links
            shutil.copyfile(last, before)


class BestCheckpoint(ModelCheckpoint):
    """Keeps RUN/checkpoints/best.ckpt: the epoch that scored best so far, wherever the run lies now."""

    def __init__(self, run: Path, *, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=run / "checkpoints", filename="best", monitor=monitor, mode=mode, enable_version_counter=False
        )

    @property
    def state_key(self) -> str:
        """As that of the class it is made of, which wrote the checkpoints of version 0.1."""
        return super().state_key.replace(type(self).__name__, "ModelCheckpoint", 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(lying_in(self.dirpath, state_dict))


class StopEarly(EarlyStopping):
    """Ends a training that has not become better for long; one that ended so and is begun again trains no further."""

    @property
    def state_key(self) -> str:
        """As that of the class it is made of, which wrote checkpoints before."""
        return super().state_key.replace(type(self).__name__, "EarlyStopping", 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class Halved(Callback):
    """How often the learning rate was halved because a loss was not finite: a training that goes on keeps to it."""

    MOST = 3

    def __init__(self) -> None:
        self.times = 0

    def state_dict(self) -> dict[str, Any]:
        return {"times": self.times}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.times = max(self.times, int(state_dict["times"]))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Give the state that is loaded the rate of now."""
        before = int(checkpoint.get("callbacks", {}).get(self.state_key, {}).get("times", 0))
        scale_rates(checkpoint, 0.5 ** max(0, self.times - before))


def scale_rates(checkpoint: dict[str, Any], share: float) -> None:
    """Let a checkpoint go on at this share of its learning rates."""
    for scheduler in checkpoint.get("lr_schedulers", []):
        scheduler["base_lrs"] = [share * rate for rate in scheduler["base_lrs"]]
    for optimiser in checkpoint.get("optimizer_states", []):
        for group in optimiser["param_groups"]:
            group |= {name: share * group[name] for name in ("lr", "initial_lr") if name in group}


def lying_in(folder: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint callback with its files in this folder: Lightning forgets the best score otherwise."""

    def here(path: Any) -> Any:
        return str(Path(folder) / Path(path).name) if path else path

    moved = {**state, "dirpath": folder}
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        if name in state:
            moved[name] = here(state[name])
    if "best_k_models" in state:
        moved["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}
    return moved


def is_sound(path: Path) -> bool:
    """Whether a checkpoint is there and all of it has its check sums: PyTorch's are zip archives."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile raises many kinds for a damaged archive
        return False


def sound_checkpoint(candidates: Sequence[Path]) -> Path | None:
    """The first that is there and sound, saying which were damaged; None where the first is not there at all.

    Raises:
        UserError: all that are there are damaged.
    """
    there = [path for path in candidates if path.is_file()]
    if not there or there[0].name == BEFORE:  # what came before the last is of use only where the last is damaged
        return None
    for path in there:
        if is_sound(path):
            if path != there[0]:
                log.warning("%s is damaged; training goes on from %s, which was written before", there[0], path.name)
            return path
    raise unreadable_checkpoint(there[0])


def forget_unless_best(run: Path) -> None:
    """Remove the last checkpoints where the best one, which they speak of, is gone or damaged: the stage is trained
    again then, and comes to the same.
    """
    folder = run / "checkpoints"
    if is_sound(folder / BEST):
        return
    last = sound_checkpoint([folder / LAST, folder / BEFORE])
    if last is None:
        return
    states = read_checkpoint(last).get("callbacks", {})
    if any(key.startswith("ModelCheckpoint") and state.get("best_model_path") for key, state in states.items()):
        log.warning("%s is gone or damaged; this stage is trained again from its beginning", folder / BEST)
        for name in (LAST, BEFORE, BEST):
            (folder / name).unlink(missing_ok=True)
