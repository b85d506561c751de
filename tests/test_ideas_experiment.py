"""What the ideas of experiments/ideas.py do differently, and that nothing else of a stage changes."""

from __future__ import annotations

import runpy
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from msmae.config import make_settings
from msmae.data.geometry import random_geometry
from msmae.data.opening import divide
from msmae.data.phantom import make_phantom
from msmae.method.classifier import Classifier
from msmae.method.masking import KEPT
from msmae.method.msmae import MSMAE
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import build_model
from msmae.training.finetune import classifier_card
from msmae.training.prepare import Prepared, prepare
from msmae.training.pretrain import pretrained_card

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


@pytest.fixture(scope="module")
def ideas() -> dict[str, Any]:
    """The names in experiments/ideas.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        return runpy.run_path(str(EXPERIMENTS / "ideas.py"), run_name="ideas")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder / "phantom", images=60, size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSMAE_CACHE", str(folder / "cache"))
        schedule = {"epochs": 9, "uniform_epochs": 2, "refresh_every": 3}
        settings = make_settings("tiny", overrides={"pretrain": schedule, "finetune": {"epochs": 25}})
        manifest = divide(str(folder / "phantom" / "manifest.csv"), settings=settings)
        return prepare(manifest, settings=settings, method="msmae")


def module_at(ideas: dict[str, Any], name: str, prepared: Prepared, epoch: int) -> Any:
    """The pre-training of an idea in one epoch (from 0)."""
    model = build_model(pretrained_card(prepared))
    module = ideas["MODULES"][name].pretrain(model, prepared)
    module.generator = torch.Generator().manual_seed(epoch)
    module._trainer = SimpleNamespace(current_epoch=epoch, is_global_zero=True, global_rank=0, world_size=1)
    return module


def masked_at(module: Any, patch: int, *, draws: int = 4000) -> float:
    """How often a patch is masked that weighs nine times what each other does."""
    weights = torch.ones(draws, *module.bank.grid)
    weights.flatten(1)[:, patch] = 9.0
    return float((module.plan(weights).mask == patch).any(dim=1).float().mean())


def test_every_idea_has_words_modules_and_a_study_that_only_ideas_run(ideas: dict[str, Any]) -> None:
    names = list(ideas["IDEA_STUDIES"])
    known = runpy.run_path(str(EXPERIMENTS / "studies.py"))
    assert names == [*(f"phantom-small+{name}" for name in known["IDEAS"]), "ham10000+rare-classes"]
    assert {name.partition("+")[2] for name in names} == set(ideas["MODULES"])
    studies = known["STUDIES"]
    assert not [name for name in names if name in studies], "arms.py would train plain msmae under this name"
    longer = ideas["IDEA_STUDIES"]["phantom-small+quarter-then-all"]
    assert longer.finetune / 2100 > ideas["QUARTER_EPOCHS"] + 1, "some epochs see all patches"


def test_easy_to_hard_is_even_at_first_and_the_maps_own_at_last(ideas: dict[str, Any], prepared: Prepared) -> None:
    shares = [module_at(ideas, "easy-to-hard", prepared, epoch).even_share() for epoch in range(2, 9)]
    assert shares == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])
    often = [masked_at(module_at(ideas, "easy-to-hard", prepared, epoch), 5) for epoch in (2, 5, 8)]
    assert often[0] == pytest.approx(0.45, abs=0.05)  # four standard errors of 4,000 draws, and rounding to patches
    assert often[0] + 0.1 < often[1] < often[2] - 0.02
    assert often[2] > 0.95


def test_blocks_are_drawn_whole_and_by_their_mean(ideas: dict[str, Any]) -> None:
    weights = torch.ones(3000, 8, 8)
    weights[:, 2:4, 4:6] = torch.tensor([[36.0, 0.0], [0.0, 0.0]])  # mean 9
    plan = ideas["plan_blocks"](weights, 0.45, 0.30, torch.Generator().manual_seed(0))
    assert (plan.mask.shape[1], plan.throw.shape[1], plan.keep.shape[1]) == (28, 20, 16)
    roles = plan.roles().reshape(-1, 4, 2, 4, 2).transpose(2, 3).flatten(3)  # [B, 4, 4, 4]: the patches of each block
    assert torch.equal(roles, roles[..., :1].expand_as(roles))
    kept = (roles[..., 0] == KEPT).float().mean(dim=0)
    assert float(kept[1, 2]) < 0.02
    others = kept.flatten()[torch.arange(16) != 6]
    assert others.numpy() == pytest.approx(np.full(15, (4 - float(kept[1, 2])) / 15), abs=0.04)  # five standard errors


def test_blocks_wait_for_the_uniform_epochs(ideas: dict[str, Any], prepared: Prepared) -> None:
    plans = [module_at(ideas, "blocks", prepared, epoch).plan(torch.ones(200, 8, 8)) for epoch in (1, 2)]
    assert [plan.mask.shape[1] for plan in plans] == [48, 28]


def test_what_is_told_badly_is_hard(ideas: dict[str, Any]) -> None:
    """A model whose every answer is zero tells a bright patch worst, and a blank one well."""
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(16, 16), patch_size=4, channels=1, width=16, depth=1, heads=2)
    model = MSMAE(encoder, classes=3, decoder_width=16, decoder_depth=1, decoder_heads=2).eval()
    torch.nn.init.zeros_(model.decoder_pred.weight)
    images = torch.zeros(3, 1, 16, 16)
    images[:, :, 4:8, 8:12], images[:, :, 12:, :4] = 2.0, 1.0
    maps = ideas["difficulty"](model, images, torch.Generator().manual_seed(0))
    expected = torch.zeros(3, 4, 4)
    expected[:, 1, 2], expected[:, 3, 0] = 1.0, 0.25
    assert torch.allclose(maps, expected, atol=1e-6)
    seen: list[int] = []
    model.encoder.register_forward_pre_hook(lambda encoder, given: seen.append(given[1].shape[1]))
    assert torch.equal(
        ideas["HardPatches"].maps(SimpleNamespace(model=model, generator=torch.Generator()), images), maps
    )
    assert seen == [4, 4, 4, 4], "each patch is told from quarters of the image"


def test_steady_maps_are_means_from_the_second_refresh_on(
    ideas: dict[str, Any], prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_at(ideas, "steady-maps", prepared, 2)
    values = iter([1.0, 0.5, 0.25])

    def refresh(self: Any) -> None:
        if self.refresh_due():
            self.bank.refresh(self.bank.ids, torch.full_like(self.bank.maps, next(values)))

    monkeypatch.setattr(ideas["pretrain"].PretrainModule, "on_train_epoch_start", refresh)
    held = []
    for epoch in (2, 3, 5, 6, 8):
        module._trainer.current_epoch = epoch
        module.on_train_epoch_start()
        held.append(float(module.bank.maps.mean()))
    assert held == [1.0, 1.0, 0.75, 0.75, 0.5]


def test_maps_of_rarer_classes_are_made_anew_before_every_guided_epoch(
    ideas: dict[str, Any], prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = np.array([-1, 1, 0, 1, 2, 1, 0, -1])
    assert ideas["rarer"](np.array([0, 1, 2, 4, 5, 6]), targets).tolist() == [1, 4, 5]  # two of class 0
    ids = prepared.ids("train", labelled=False)
    module = module_at(ideas, "rare-classes", prepared, 0)
    refreshed: list[tuple[int, list[int]]] = []
    usual = ideas["pretrain"].PretrainModule
    monkeypatch.setattr(usual, "refresh", lambda self, some: refreshed.append((self.current_epoch, some.tolist())))
    monkeypatch.setattr(ideas["pretrain"].StageModule, "on_train_epoch_start", lambda self: None)
    for epoch in range(7):
        module._trainer.current_epoch = epoch
        module.on_train_epoch_start()
    commonest = np.bincount(prepared.targets[ids]).argmax()
    every, some = ids.tolist(), ids[prepared.targets[ids] != commonest].tolist()
    assert refreshed == [(2, every), (3, some), (4, some), (5, every), (6, some)]


def test_a_quarter_is_seen_first_and_then_all(
    ideas: dict[str, Any], prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(classifier_card(prepared))
    assert isinstance(model, Classifier)
    module = ideas["MODULES"]["quarter-then-all"].finetune(model, prepared)
    module.generator = torch.Generator().manual_seed(0)
    seen: list[int | None] = []
    monkeypatch.setattr(model, "forward", lambda images, keep: seen.append(None if keep is None else keep.shape[1]))
    geometry = random_geometry(2, scale=(1, 1), flip=0, generator=module.generator)
    for epoch in (0, 19, 20, 24):
        module._trainer = SimpleNamespace(current_epoch=epoch)
        module.classify(torch.zeros(2, 1, 32, 32), torch.arange(2), geometry, 0)
    assert seen == [16, 16, None, None]


@pytest.mark.parametrize(
    ("idea", "data", "pretrain", "finetune"),
    [
        ("blocks", "phantom-small", "Blocks", ""),
        ("quarter-then-all", "phantom-small", "", "QuarterThenAll"),
        ("rare-classes", "ham10000", "RareClasses", ""),
    ],
)
def test_an_idea_takes_the_place_of_the_librarys_module(
    ideas: dict[str, Any], monkeypatch: pytest.MonkeyPatch, idea: str, data: str, pretrain: str, finetune: str
) -> None:
    placed: dict[str, Any] = {}
    usual = {"PretrainModule": ideas["pretrain"].PretrainModule, "FinetuneModule": ideas["finetune"].FinetuneModule}

    def compare(study: Any, asked: Any) -> None:
        modules = ideas["pretrain"].PretrainModule, ideas["finetune"].FinetuneModule
        placed.update(modules=modules, data=asked.data, budget=study.budget, scale=asked.scale)

    monkeypatch.setattr(ideas["pretrain"], "PretrainModule", usual["PretrainModule"])  # put back afterwards
    monkeypatch.setattr(ideas["finetune"], "FinetuneModule", usual["FinetuneModule"])
    monkeypatch.setitem(ideas["main"].__globals__, "compare_arms", compare)
    monkeypatch.setattr("sys.argv", ["ideas.py", idea, "--seeds", "1"])
    ideas["main"]()
    expected = ideas.get(pretrain, usual["PretrainModule"]), ideas.get(finetune, usual["FinetuneModule"])
    assert placed == {"modules": expected, "data": f"{data}+{idea}", "budget": "epochs", "scale": "cpu"}


def test_pretraining_asks_its_module_for_maps(ideas: dict[str, Any], prepared: Prepared) -> None:
    """What HardPatches changes is what the bank is refreshed with."""
    module = module_at(ideas, "hard-patches", prepared, 2)
    module._trainer.strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module._trainer.precision_plugin = SimpleNamespace(forward_context=nullcontext)
    module.maps = lambda images: torch.full((len(images), *module.bank.grid), 0.25)
    module.log_dict = lambda figures, **_: None
    module.on_train_epoch_start()
    assert torch.equal(module.bank.maps, torch.full_like(module.bank.maps, 0.25))
