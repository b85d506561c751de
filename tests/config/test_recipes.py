"""The paper's recipes hold its settings, extend one another as they say, and their first steps run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import msmae
from msmae.config import layers, make_settings, presets
from msmae.data.tables.layouts import FOLDER_LAYOUTS
from msmae.errors import UserError
from msmae.statistics.predictions import read_predictions

PAPER = ("messidor2", "btmd", "ham10000", "deeplesion", "chestxray2017", "busi")
MEASURED = ("pneumoniamnist", "brain-tumor-mri", "ham10000")
RECIPES = Path(msmae.__file__).parent / "recipes"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four noisy colour images of two classes: bright, and dark."""
    folder, noise = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(24):
        name = ("bright", "dark")[number % 2]
        (folder / name).mkdir(exist_ok=True)
        pixels = noise.integers(0, 120, size=(64, 64, 3)) + (120 if name == "bright" else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_of_the_paper_holds_its_settings(name: str) -> None:
    settings = make_settings(name)
    model, before, after = settings.model, settings.pretrain, settings.finetune
    assert settings.dataset.layout in FOLDER_LAYOUTS
    assert settings == dataclasses.replace(make_settings("paper"), dataset=settings.dataset)
    assert (model.image_size, model.patch_size, model.width, model.depth, model.heads) == (224, 16, 768, 12, 12)
    assert (model.decoder_width, model.decoder_depth, model.decoder_heads) == (512, 8, 16)
    assert (before.epochs, before.uniform_epochs, before.refresh_every, before.batch_size) == (300, 40, 40, 64)
    assert (before.mask_ratio, before.throw_ratio, before.label_weight) == (0.45, 0.30, 0.1)
    assert (before.base_lr, before.weight_decay, before.lr_warmup, before.crop_scale) == (1e-3, 0.05, 0.133, (0.2, 1.0))
    assert (after.draw, after.refresh_every, after.layer_decay, after.drop_path) == ("own", 20, 0.75, 0.1)
    assert (after.epochs, after.batch_size, after.base_lr, after.weight_decay) == (100, 64, 1e-3, 0.05)
    assert (after.label_smoothing, after.ema, after.balance, model.channels) == (0.1, 0.0, "none", 3)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_says_what_to_expect(name: str) -> None:
    header = header_of(name)
    assert "The paper reports an accuracy of" in header
    assert "Expected with msmae:" in header


def header_of(name: str) -> str:
    """The comment above a recipe's settings, on one line."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("extends:")[0]
    return " ".join(line.removeprefix("# ") for line in text.splitlines())


def test_the_paper_has_six_recipes_and_no_preset_is_missing_here() -> None:
    measured = {f"{name}-cpu" for name in MEASURED}
    assert set(presets()) == {*PAPER, *measured, "paper", "cpu", "gpu", "tiny", "demo"}


def recipes(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    """Ship these recipes instead."""
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(layers, "RECIPES", folder)


def test_a_chain_of_recipes_is_laid_one_over_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes(
        tmp_path, monkeypatch,
        a="model: {width: 24, heads: 3}\npretrain: {epochs: 7}\n",
        b="extends: a\nmodel: {width: 48}\nfinetune: {epochs: 5}\n",
        c="extends: b\nfinetune: {epochs: 6}\n",
    )  # fmt: skip
    settings = make_settings("c")
    assert (settings.model.width, settings.model.heads) == (48, 3)
    assert (settings.pretrain.epochs, settings.finetune.epochs) == (7, 6)


def test_a_file_of_ones_own_settings_may_extend_a_recipe(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: paper\npretrain: {epochs: 30, uniform_epochs: 4, refresh_every: 4}\n")
    paper, settings = make_settings("paper"), make_settings("paper", mine)
    shorter = dataclasses.replace(paper.pretrain, epochs=30, uniform_epochs=4, refresh_every=4)
    assert settings == dataclasses.replace(paper, pretrain=shorter)
    assert make_settings("tiny", mine).model.width == 768


def test_a_recipe_that_is_not_there_or_leads_back_to_itself_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: papre\n")
    with pytest.raises(UserError, match=r"extends 'papre'.*no such recipe.*mine\.yaml.*did you mean .paper."):
        make_settings("tiny", mine)
    mine.write_text("extends: [paper, tiny]\n")
    with pytest.raises(UserError, match=r"there is no such recipe.*mine\.yaml"):
        make_settings("tiny", mine)
    recipes(tmp_path, monkeypatch, a="extends: b\n", b="extends: c\n", c="extends: b\n")
    with pytest.raises(UserError, match=r"in a circle \(b -> c -> b\).*c\.yaml.*take `extends` out"):
        make_settings("a")


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_the_first_steps_of_a_measured_recipe_run(name: str, photographs: Path, tmp_path: Path) -> None:
    few = {"presentations": 24, "batch_size": 8}
    msmae.run(
        str(photographs), out=str(tmp_path / "run"), preset=f"{name}-cpu",
        pretrain=few, finetune=few, evaluate={"resamples": 100}, trainer={"threads": 1},
    )  # fmt: skip
    predictions = read_predictions(tmp_path / "run" / "predictions.csv")
    assert np.isfinite(predictions[["prob_bright", "prob_dark"]].to_numpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_the_first_steps_of_a_recipe_run(name: str, photographs: Path, tmp_path: Path) -> None:
    """At full width and size; one block a network instead of 12 and 8, and one epoch of each training."""
    shorter = {"epochs": 1, "batch_size": 8}
    msmae.run(
        str(photographs), out=str(tmp_path / "run"), preset=name,
        dataset={"layout": "folder"}, model={"depth": 1, "decoder_depth": 1, "heads": 12},
        pretrain={**shorter, "uniform_epochs": 0, "refresh_every": 1}, finetune={**shorter, "refresh_every": 1},
        evaluate={"resamples": 100}, trainer={"threads": 1},
    )  # fmt: skip
    predictions = read_predictions(tmp_path / "run" / "predictions.csv")
    assert set(predictions["split"]) == {"val", "test"}
    assert np.isfinite(predictions[["prob_bright", "prob_dark"]].to_numpy()).all()
