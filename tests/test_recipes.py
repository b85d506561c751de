"""The paper's six data sets: their recipes hold the paper's settings, and their first steps run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import msmae
from msmae.config import make_settings, presets
from msmae.data.layouts import FOLDER_LAYOUTS
from msmae.evidence.predictions import read_predictions

PAPER = ("messidor2", "btmd", "ham10000", "deeplesion", "chestxray2017", "busi")
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
    assert (model.image_size, model.patch_size, model.width, model.depth, model.heads) == (224, 16, 768, 12, 12)
    assert (model.decoder_width, model.decoder_depth, model.decoder_heads) == (512, 8, 16)
    assert (before.epochs, before.uniform_epochs, before.refresh_every, before.batch_size) == (300, 40, 40, 64)
    assert (before.mask_ratio, before.throw_ratio, before.label_weight) == (0.45, 0.30, 0.1)
    assert (after.draw, after.refresh_every, after.layer_decay, after.drop_path) == ("own", 20, 0.75, 0.1)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_says_what_to_expect(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    header = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert "The paper reports an accuracy of" in header
    assert "Expected with msmae:" in header


def test_the_paper_has_six_recipes_and_no_preset_is_missing_here() -> None:
    assert set(presets()) >= {*PAPER, "cpu", "gpu", "tiny", "demo"}


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
