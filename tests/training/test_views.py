"""Which patches fine-tuning sees: their number, what draws them, whose maps they follow, and what that costs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from msmae.config import FinetuneSettings
from msmae.errors import UserError
from msmae.method.classifier import Classifier
from msmae.method.cost import classifier_macs
from msmae.runs import progress_lines
from msmae.runs.progress_lines import StageProgress
from msmae.training.finetune import FinetuneModule
from msmae.training.prepare import Prepared
from msmae.training.supervised import disagreement, train_supervised
from msmae.training.views import finetuning_macs, follows_maps, tokens_seen
from spots import PATCH, SIDE, looking_at_bright_patches, of_the_bright, prepared_of, watching, write_spots


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_spots(tmp_path)


def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(looking_at_bright_patches((SIDE, SIDE), PATCH), classes=4)


def trained_on(prepared: Prepared, run: Path) -> list[tuple[Tensor, Tensor | None]]:
    """The images and the positions that the classifier was given in training, step by step."""
    model = classifier()
    with watching(Classifier) as given:
        train_supervised(FinetuneModule(model, prepared), run, save=lambda: None)
    return [call for call in given if len(call) == 2 or len(call[0]) == 8]  # validation is in batches of 32


@pytest.mark.parametrize(("draw", "low", "high"), [("uniform", 0.12, 0.38), ("half", 0.5, 1), ("attention", 0.6, 1)])
def test_a_quarter_is_drawn_from_the_first_step_on_without_any_pretraining(
    draw: str, low: float, high: float, data: Path, tmp_path: Path
):
    """256 images shown, of 64 patches each; the encoder attends to the one bright patch. Bounds: four standard errors
    around a quarter for uniform draws; maps find the bright patch more often than chance by far."""
    settings: dict[str, Any] = {"draw": draw, "epochs": 8, "batch_size": 8, "crop_scale": (1.0, 1.0)}
    prepared = prepared_of(data, "vit", finetune=settings)
    assert follows_maps(prepared) == (draw != "uniform")
    steps = trained_on(prepared, tmp_path / "run")
    assert len(steps) == 32
    assert {tuple(keep.shape) for _, keep in steps if keep is not None} == {(8, 16)}
    found = [of_the_bright(images, keep) for images, keep in steps if keep is not None]
    share = sum(part * count for part, count in found) / sum(count for _, count in found)
    assert low < share <= high


def test_mixed_shares_change_by_batch_and_end_with_all_patches(data: Path, tmp_path: Path):
    settings: dict[str, Any] = {"draw": "half", "share": "mixed", "epochs": 4, "batch_size": 8}
    prepared = prepared_of(data, "vit", finetune=settings)
    assert prepared.settings.finetune.refresh_every == 2
    steps = trained_on(prepared, tmp_path / "run")
    kept = [None if len(step) == 1 or step[1] is None else step[1].shape[1] for step in steps]
    first = [16, 16, 16, 32] * 3 + [16, 16]  # 14 of 16 steps
    assert kept == [*first, None, 16, None, 16]
    model = classifier()
    seen = tokens_seen(prepared, model.encoder)
    assert seen == pytest.approx({16: 7 / 8 * 3 / 4 + 1 / 8, 32: 7 / 8 / 4, None: 1 / 8})
    quarter, half, whole = (classifier_macs(model, count).total for count in (16, 32, None))
    expected = (3 * 7 / 32 + 1 / 8) * quarter + 7 / 32 * half + whole / 8
    assert finetuning_macs(prepared, model) == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.05, 1e-9])
def test_it_is_said_where_the_last_epoch_was_the_best(
    rate: float, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress_lines, "SECONDS_TO_FORETELL", 0.0)
    trained_on(prepared_of(data, "vit", finetune={"epochs": 3, "base_lr": rate, "ema": 0.0}), tmp_path / "run")
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    said = capsys.readouterr().out
    assert ("the last epoch was the best" in said) == (best == 2)
    assert re.search(r"finetune: about \d+\.\d minutes for 3 epochs", said)


@pytest.mark.slow
def test_how_long_it_will_take_is_told_by_the_steps_and_not_by_the_maps_before_the_first(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Eight epochs of nine minutes had been foretold as 288 to 1,158 minutes."""
    monkeypatch.setattr(progress_lines, "SECONDS_TO_FORETELL", 0.0)
    refresh = FinetuneModule.refresh
    monkeypatch.setattr(FinetuneModule, "refresh", lambda self: (time.sleep(2), refresh(self)))
    trained_on(prepared_of(data, "vit", finetune={"draw": "half", "epochs": 20, "batch_size": 8}), tmp_path / "run")
    (minutes,) = re.findall(r"finetune: about (\d+\.\d) minutes for 20 epochs", capsys.readouterr().out)
    assert float(minutes) < 2  # of 80 steps; with the maps before the first, over 2.7


@pytest.mark.parametrize(("draw", "averaged"), [("half", True), ("own", False)])
def test_maps_are_those_of_the_averaged_model_but_for_the_papers_draw(
    draw: str, averaged: bool, data: Path, tmp_path: Path
):
    seen: list[tuple[int, Tensor, Tensor]] = []

    class Watching(FinetuneModule):
        def refresh(self) -> None:
            before = self.model.head.weight.detach().clone()
            super().refresh()
            assert torch.equal(before, self.model.head.weight)
            seen.append((self.current_epoch, before, self.used))

        def maps(self, images: Tensor) -> Tensor:
            self.used = self.model.head.weight.detach().clone()
            return super().maps(images)

    settings = {"draw": draw, "epochs": 4, "refresh_every": 2, "base_lr": 0.1, "ema": 0.9}
    train_supervised(Watching(classifier(), prepared_of(data, finetune=settings)), tmp_path / "run", save=lambda: None)
    assert [epoch for epoch, _, _ in seen] == [0, 2]
    assert torch.equal(*seen[0][1:])  # the start's
    assert torch.equal(*seen[1][1:]) != averaged


def test_the_control_with_another_images_map_keeps_to_it(data: Path):
    prepared = prepared_of(data, "msmae-shuffled", finetune={"draw": "half"})
    assert follows_maps(prepared)
    module = FinetuneModule(classifier(), prepared)
    module.bank.maps[:] = 1e-9
    ids = module.bank.ids
    module.bank.maps.flatten(1)[torch.arange(len(ids)), torch.arange(len(ids))] = 1  # each has a peak of its own
    module.generator = torch.Generator().manual_seed(0)

    class Still:
        def apply_to_maps(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
            return maps

    keep = module.keep(ids, Still(), 0.25)  # type: ignore[arg-type]
    assert keep is not None
    own = (keep == torch.arange(len(ids)).unsqueeze(1)).any(dim=1).float().mean()
    assert own < 0.5  # by chance alone: the map draws 8 of 16


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"share": 0.25}, "the draw all takes no share"),
        ({"draw": "own", "share": "mixed"}, "the draw own takes no share"),
        ({"draw": "half", "share": 1.0}, "finetune.share"),
        ({"draw": "half", "share": 0.0}, "finetune.share"),
    ],
)
def test_a_share_without_effect_or_out_of_range_is_refused(given: dict[str, Any], told: str):
    with pytest.raises(UserError, match=told):
        FinetuneSettings(**given)


def test_disagreement_is_least_where_both_answer_alike_and_softened_by_the_temperature():
    taught = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
    for labels in (torch.zeros(2, dtype=torch.long), torch.zeros(2, 3)):
        answers = taught.clone().requires_grad_()
        disagreement(answers, taught, labels, temperature=2.0).backward()
        assert answers.grad is not None
        assert answers.grad.abs().max() < 1e-6
        assert disagreement(taught + torch.eye(3)[:2], taught, labels) > disagreement(taught, taught, labels)
    soft = (taught / 2).softmax(dim=1)
    entropy = -(soft * soft.log()).sum(dim=1).mean()
    assert disagreement(taught, taught, torch.zeros(2, dtype=torch.long), temperature=2.0) == pytest.approx(4 * entropy)


def test_how_long_many_short_epochs_will_take_is_told_too(capsys: pytest.CaptureFixture[str]):
    """2,500 epochs of a quarter of a second: none lasted until the first line was due."""
    progress: Any = StageProgress("pretrain")
    module = SimpleNamespace(goes_on=(0, 0), log=lambda *_, **__: None)
    trainer = SimpleNamespace(
        is_global_zero=True, current_epoch=0, max_epochs=2500, num_training_batches=1, progress_bar_metrics={}
    )
    progress.on_train_start(trainer, module)
    for epoch in range(30):
        trainer.current_epoch = epoch
        progress.on_train_epoch_start(trainer, module)
        progress.began -= 0.25
        progress.on_train_epoch_end(trainer, module)
    ((minutes, epochs),) = re.findall(r"about (\d+\.\d) minutes for ([\d,]+) epochs", capsys.readouterr().out)
    assert 2470 < int(epochs.replace(",", "")) < 2500
    assert float(minutes) == pytest.approx(2479 / 4 / 60, abs=0.2)
