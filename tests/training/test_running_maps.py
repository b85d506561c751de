"""Maps that training makes by itself: where crops' patches lie, what is remembered, and what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import msmae
from msmae.comparison.budgets import Price, finetuning_epochs
from msmae.config import Settings
from msmae.data.geometry import random_geometry, whole_image
from msmae.method.attention import MapBank
from msmae.method.classifier import Classifier
from msmae.method.vit import VisionTransformer
from msmae.selection.sensitivity import token_lengths
from msmae.training.running_maps import FLOOR, RunningMaps, answer
from spots import write_spots

GRID = (4, 6)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=50)
def test_a_patch_lies_where_the_crop_took_its_middle_from(seed: int) -> None:
    geometry = random_geometry(3, scale=(0.3, 1.0), generator=torch.Generator().manual_seed(seed))
    numbered = torch.arange(24).reshape(1, *GRID).expand(3, -1, -1)
    seen = geometry.apply_to_masks(numbered, GRID).flatten(1)  # nearest cell of every patch of the crop
    positions = torch.arange(24).expand(3, -1)
    cells = geometry.cells(positions, GRID)
    apart = (cells // 6 - seen // 6).abs() + (cells % 6 - seen % 6).abs()  # a middle on an edge may fall to either side
    assert float((apart == 0).float().mean()) > 0.95
    assert int(apart.max()) <= 1


def test_a_whole_image_has_every_patch_in_its_own_cell() -> None:
    positions = torch.arange(24).expand(2, -1)
    assert torch.equal(whole_image(2).cells(positions, GRID), positions)
    mirrored = dataclasses.replace(whole_image(2), flip=torch.tensor([True, False]))
    assert torch.equal(mirrored.cells(positions, GRID)[0].reshape(GRID), positions[0].reshape(GRID).flip(1))


@pytest.fixture
def running() -> RunningMaps:
    return RunningMaps(MapBank(torch.tensor([7, 8, 9]), GRID))


def test_an_image_never_seen_weighs_the_same_everywhere(running: RunningMaps) -> None:
    assert torch.allclose(running.weights(torch.tensor([8])), torch.tensor(1 + FLOOR))


def test_what_a_patch_has_shown_is_averaged_from_visit_to_visit(running: RunningMaps) -> None:
    ids, cells = torch.tensor([9, 7]), torch.tensor([[0, 23], [5, 6]])
    running.record(ids, cells, torch.tensor([[4.0, 1.0], [2.0, 0.0]]))
    assert running.bank[ids].flatten(1).gather(1, cells).tolist() == [[4.0, 1.0], [2.0, 0.0]]
    running.record(ids[:1], cells[:1], torch.tensor([[2.0, 1.0]]))
    assert running.bank[ids].flatten(1).gather(1, cells).tolist() == [[3.0, 1.0], [2.0, 0.0]]
    assert running.bank[torch.tensor([8])].isnan().all()


def test_a_place_shown_twice_in_one_step_remembers_the_mean(running: RunningMaps) -> None:
    ids, cells = torch.tensor([7, 9, 7]), torch.tensor([[0, 1], [4, 4], [2, 0]])
    running.record(ids, cells, torch.tensor([[1.0, 2.0], [5.0, 7.0], [3.0, 9.0]]))
    assert running.bank[torch.tensor([7])].flatten()[:3].tolist() == [5.0, 2.0, 3.0]
    assert running.bank[torch.tensor([9])].flatten()[4] == 6.0
    assert int(running.bank.maps.isnan().sum()) == 3 * 24 - 4


def test_the_most_telling_patch_and_its_neighbours_weigh_most(running: RunningMaps) -> None:
    cells = torch.arange(24).unsqueeze(0)
    lengths = torch.zeros(1, 24)
    lengths[0, 8] = 5.0  # row 1, column 2
    running.record(torch.tensor([7]), cells, lengths)
    weights = running.weights(torch.tensor([7]))[0]
    near = torch.zeros(GRID, dtype=torch.bool)
    near[0:3, 1:4] = True
    assert float(weights[near].max()) == pytest.approx(1 + FLOOR)
    assert float(weights[near].min()) > 0.5
    assert torch.allclose(weights[~near], torch.tensor(FLOOR))


def test_patches_not_yet_seen_weigh_as_the_images_mean(running: RunningMaps) -> None:
    running.record(torch.tensor([7]), torch.tensor([[0, 23]]), torch.tensor([[1.0, 3.0]]))
    filled = torch.full((24,), 2.0)
    filled[0], filled[23] = 1.0, 3.0
    whole = RunningMaps(MapBank(torch.tensor([7, 8, 9]), GRID))
    whole.record(torch.tensor([7]), torch.arange(24).unsqueeze(0), filled.unsqueeze(0))
    assert torch.allclose(running.weights(torch.tensor([7])), whole.weights(torch.tensor([7])))


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(32, 32), patch_size=8, channels=1, width=32, depth=2, heads=2)
    return Classifier(encoder, classes=3)


def test_asking_what_an_answer_hangs_on_changes_neither_the_answer_nor_what_is_learned(classifier: Classifier) -> None:
    images, keep = torch.randn(5, 1, 32, 32), torch.arange(16).expand(5, -1)[:, ::3]
    gradients = []
    for logits in (classifier(images, keep), answer(classifier, images, keep)[0]):
        classifier.zero_grad()
        torch.autograd.backward(logits.square().mean())
        gradients.append([p.grad.clone() for p in classifier.parameters() if p.grad is not None])
    assert torch.equal(classifier(images, keep), answer(classifier, images, keep)[0])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_lengths_are_those_of_finite_differences(classifier: Classifier) -> None:
    classifier.double()
    images = torch.randn(1, 1, 32, 32, dtype=torch.double)
    tokens = classifier.encoder.embed(images).detach().requires_grad_()

    def margin(x: torch.Tensor) -> torch.Tensor:
        logits = classifier.head(classifier.encoder.encode(x)[:, 0])
        return (logits.amax(dim=1) - logits.mean(dim=1)).sum()

    lengths = token_lengths(classifier.head(classifier.encoder.encode(tokens)[:, 0]), tokens)
    patch, tiny = 5, 1e-5
    slopes = []
    for feature in range(tokens.shape[2]):
        step = torch.zeros_like(tokens)
        step[0, 1 + patch, feature] = tiny
        with torch.no_grad():
            slopes.append(float((margin(tokens + step) - margin(tokens - step)) / (2 * tiny)))
    assert float(lengths[0, patch]) == pytest.approx(torch.tensor(slopes).norm().item(), rel=1e-4)


def own_draw(**finetune: object) -> Settings:
    plain = Settings()
    return dataclasses.replace(plain, finetune=dataclasses.replace(plain.finetune, draw="own", **finetune))  # type: ignore[arg-type]


def test_an_arm_that_pays_for_its_gradients_gets_fewer_epochs() -> None:
    given = own_draw(epochs=30, refresh_every=6)
    paper = Price(pretrain=4.0, supervised=1.0, map=0.0)
    assert finetuning_epochs(given, "supmae", paper, Price(4.0, 1.0, 0.0)) == 30
    assert finetuning_epochs(given, "msmae-evidence", paper, Price(4.0, 1.5, 0.0)) == 20
    dear = Price(4.0, 1.0, 1.2)  # five refreshes in thirty epochs: 36 in all
    assert finetuning_epochs(given, "msmae", dear, dear) == 30
    assert finetuning_epochs(given, "supmae", dear, Price(4.0, 1.0, 0.0)) == 36


def test_fine_tuning_on_all_patches_costs_every_arm_the_same() -> None:
    given = dataclasses.replace(own_draw(epochs=30, refresh_every=6), finetune=dataclasses.replace(
        Settings().finetune, epochs=30, refresh_every=6))  # fmt: skip
    dear = Price(4.0, 1.0, 1.2)
    assert finetuning_epochs(given, "supmae", dear, Price(4.0, 1.0, 0.0)) == 30


@pytest.mark.slow
def test_a_run_fine_tunes_on_what_its_own_answers_hung_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "pretrain": {"epochs": 1, "uniform_epochs": 1}, "finetune": {"epochs": 12, "draw": "own", "base_lr": 1e-2},
    }  # fmt: skip
    msmae.run(str(write_spots(tmp_path)), out=str(tmp_path / "run"), method="msmae-evidence", preset="tiny", **settings)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    maps = last["map_bank"]["maps"]  # what a killed run goes on from
    assert float(maps.isnan().float().mean()) < 0.5
    assert float(maps.nanmean()) > 0
