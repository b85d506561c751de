"""Damaged checkpoints are found, and those before them used; a run that is moved goes on as if it had not been."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

import msmae
from msmae.errors import UserError
from msmae.runs.checkpoint import load_model
from msmae.runs.resume import (
    BEFORE,
    BEST,
    LAST,
    BestCheckpoint,
    StopEarly,
    WholeCheckpoints,
    forget_unless_best,
    is_sound,
    sound_checkpoint,
)


def saved(folder: Path, *names: str) -> list[Path]:
    """Checkpoints that say which they are."""
    for name in names:
        WholeCheckpoints().save_checkpoint({"name": name, "weights": torch.arange(1000.0)}, folder / LAST)
    return [folder / LAST, folder / BEFORE]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 77] ^= 8
    path.write_bytes(content)


def test_the_last_two_are_kept_and_a_flipped_bit_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = saved(tmp_path, "first", "second", "third")
    assert [torch.load(file)["name"] for file in files] == ["third", "second"]
    assert sound_checkpoint(files) == files[0]
    flip(files[0])
    with caplog.at_level(logging.WARNING):
        assert sound_checkpoint(files) == files[1]
    assert str(files[0]) in caplog.text
    files[1].write_bytes(files[1].read_bytes()[:500])
    with pytest.raises(UserError, match=r"damaged.*last\.ckpt"):
        sound_checkpoint(files)
    files[0].unlink()  # the advice of that sentence
    assert sound_checkpoint(files) is None
    assert not list(tmp_path.glob(".*"))


def test_a_new_stage_does_not_take_the_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    files = saved(tmp_path, "first", "second")
    files[0].rename(tmp_path / "pretrain.ckpt")
    saved(tmp_path, "third")
    assert not files[1].exists()


def test_the_best_score_is_known_wherever_the_run_lies(tmp_path: Path) -> None:
    """Lightning forgets it where the folder has another path: a worse epoch would take the place of the best."""
    there, here = (BestCheckpoint(tmp_path / name, monitor="val_loss", mode="min") for name in ("there", "here"))
    path = str(tmp_path / "there" / "checkpoints" / BEST)
    there.best_model_path = there.kth_best_model_path = path
    there.best_model_score = there.kth_value = torch.tensor(0.5)
    there.best_k_models = {path: torch.tensor(0.5)}
    here.load_state_dict(there.state_dict())
    assert here.best_model_score == 0.5
    assert list(here.best_k_models) == [here.best_model_path] == [str(tmp_path / "here" / "checkpoints" / BEST)]
    assert here.state_key == there.state_key
    assert here.state_key.startswith("ModelCheckpoint{")


@pytest.mark.parametrize("kept", [True, False])
def test_a_stage_whose_best_epoch_is_gone_is_trained_again(tmp_path: Path, kept: bool) -> None:
    folder = tmp_path / "checkpoints"
    state = {"callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_path": "best.ckpt" if kept else ""}}}
    WholeCheckpoints().save_checkpoint(state, folder / LAST)
    forget_unless_best(tmp_path)
    assert (folder / LAST).exists() is not kept  # where no epoch was validated yet, nothing is lacking


def test_weights_that_are_not_those_saved_are_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    assert load_model(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"not those that were saved.*model\.safetensors"):
        load_model(tmp_path / "model")


def test_weights_that_are_not_numbers_are_refused(finished: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(finished / "model", tmp_path / "model")
    weights, card = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.json"
    state = load_file(weights)
    state["head.weight"][0, 0] = float("nan")
    save_file(state, weights)
    content = json.loads(card.read_text())
    card.write_text(json.dumps({**content, "sha256": ""}))
    with pytest.raises(UserError, match=r"head\.weight holds values that are not finite"):
        load_model(tmp_path / "model")
    card.write_text(json.dumps({**content, "std": [0.0] * content["channels"]}))
    with pytest.raises(UserError, match="std is missing or wrong"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    "change",
    [{"width": 10**6}, {"depth": 10**9}, {"image_size": [10**6, 10**6]}, {"heads": 0}, {"patch_size": "8"},
     {"classes": None}, {"decoder": []}, {"mean": [float("inf")]}, {"kind": "other"}, {"unknown": 1}, {"depth": True}],
)  # fmt: skip
def test_false_cards_are_refused_before_room_is_made(finished: Path, tmp_path: Path, change: dict[str, object]) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    card = tmp_path / "model" / "config.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(UserError):
        load_model(tmp_path / "model")


@pytest.mark.slow
def test_a_cut_checkpoint_and_a_lost_best_one_come_to_the_same(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    msmae.pretrain(str(data), out=str(run), preset="tiny")
    msmae.finetune(str(run))
    weights = (run / "model" / "model.safetensors").read_bytes()
    for lost in (LAST, BEST):
        file = run / "checkpoints" / lost
        file.write_bytes(file.read_bytes()[:1000])
        (run / "metrics.json").unlink()
        shutil.rmtree(run / "model")
        shutil.move(run, tmp_path / lost)
        run = tmp_path / lost
        assert msmae.finetune(str(run))["splits"]
        assert (run / "model" / "model.safetensors").read_bytes() == weights
        assert is_sound(run / "checkpoints" / LAST)


class Flat(pl.LightningModule):
    """Trains one number, and its validation never becomes better."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight * batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]

    val_dataloader = train_dataloader


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_stopped_early_trains_no_further_when_begun_again(tmp_path: Path) -> None:
    def train(checkpoint: Path | None) -> pl.Trainer:
        trainer = pl.Trainer(
            max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[StopEarly("val_loss", patience=2, verbose=False)],
        )  # fmt: skip
        trainer.fit(Flat(), ckpt_path=checkpoint, weights_only=True)
        return trainer

    first = train(None)
    assert first.current_epoch == 3
    first.save_checkpoint(tmp_path / LAST)
    again = train(tmp_path / LAST)
    assert (again.current_epoch, again.global_step) == (first.current_epoch, first.global_step)
