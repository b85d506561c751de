"""Coarse and fine: a run that looks that way keeps doing so, everywhere a model is used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import msmae
from budgeted import SHORT
from msmae.config import FinetuneSettings, check_method, make_settings
from msmae.errors import UserError
from msmae.inference.model import own_way
from msmae.method.classifier import Classifier
from msmae.method.cost import classifier_macs
from msmae.method.vit import VisionTransformer
from msmae.selection.cost import selection_macs
from msmae.selection.locator import glance_of, tokens_for
from msmae.statistics.predictions import read_predictions
from msmae.training.selecting.coarse import half_by, selection_for
from spots import write_spots


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that sees coarse and fine: 8 x 8 patches, 4 x 4 coarse tokens, 8 patches close up."""
    folder = tmp_path_factory.mktemp("coarse")
    short = {**SHORT, "finetune": {**SHORT["finetune"], "draw": "coarse"}}
    msmae.run(str(write_spots(folder)), out=str(folder / "run"), preset="tiny", **short)
    return folder / "run"


@pytest.mark.slow
def test_a_run_looks_as_it_was_fine_tuned_unless_told_otherwise(coarse: Path) -> None:
    model = msmae.load(coarse)
    patches = model.network.encoder.patches
    kept = tokens_for(model.network.encoder, None)
    assert own_way(model.card) == (kept / patches, "locator")
    frame = read_predictions(coarse / "predictions.csv")
    paths = [str(coarse.parent / path) for path in frame["image_path"].tolist()[:20]]
    found = model.predict(paths)
    told = frame[[f"prob_{name}" for name in model.classes]].to_numpy()[:20]
    np.testing.assert_allclose(found.numpy(), told, atol=1e-6)
    torch.testing.assert_close(found, model.predict(paths, kept / patches, selector="locator"))
    assert not torch.equal(found, model.predict(paths, selector="all"))
    assert model.looked_at(paths, 1.0).shape == (20, 8)  # without the sixteen coarse tokens


@pytest.mark.slow
def test_its_cost_is_that_of_what_it_looks_at(coarse: Path) -> None:
    cost = json.loads((coarse / "metrics.json").read_text())["cost"]
    assert cost["gmacs_train"] == cost["gmacs_predict"]
    encoder = VisionTransformer(image_size=(336, 336), patch_size=14, width=192, depth=12, heads=3)
    selection = selection_for(Classifier(encoder, classes=2))
    whole = classifier_macs(selection.model).total
    assert 1 / 7 < selection_macs(selection, 96).total / whole < 1 / 5, "96 of 576 tokens, locator and glance"


@pytest.mark.slow
def test_its_budget_is_measured_against_its_own_share(coarse: Path) -> None:
    found = msmae.budget(str(coarse), ratios=["0.5"], selectors=["locator", "smaller"])
    first = found["rows"][0]
    assert (first["selector"], first["loss"]) == ("locator", 0.0)
    assert {(row["selector"], row["keep"]) for row in found["rows"][1:]} == {("locator", 0.5), ("smaller", 0.5)}
    assert own_way(msmae.load(coarse).card)[1] == "locator", "measuring takes nothing away"
    with pytest.raises(UserError, match="coarse and fine already"):
        msmae.budget(str(coarse), presentations=100, overwrite=True)


def test_the_glance_is_the_whole_image_at_112_px() -> None:
    def encoder(size: int, patch: int) -> VisionTransformer:
        return VisionTransformer(image_size=(size, size), patch_size=patch, width=16, depth=1, heads=2)

    assert glance_of(encoder(336, 14)) == (8, 8)
    assert glance_of(encoder(112, 14)) == (4, 4)
    assert tokens_for(encoder(336, 14), None) == 96
    assert tokens_for(encoder(336, 14), 0.25) == 144


def test_half_of_the_patches_are_the_locators_and_none_twice() -> None:
    scores = torch.arange(50.0).expand(8, -1)
    positions = half_by(scores, 10, torch.Generator().manual_seed(0))
    assert all(set(range(45, 50)) <= set(row) for row in positions.tolist())
    assert all(len(set(row)) == 10 for row in positions.tolist())
    assert len({tuple(sorted(row)) for row in positions.tolist()}) > 1


def test_the_locator_learns_from_the_attention_and_the_encoder_from_the_label_alone() -> None:
    encoder = VisionTransformer(image_size=(32, 32), patch_size=8, channels=1, width=16, depth=2, heads=2)
    selection = selection_for(Classifier(encoder, classes=2))
    names = {name.split(".")[0] for name, _ in selection.named_parameters()}
    assert names == {"model", "locator", "glance"}
    assert selection.locator is not None
    assert selection.locator.textures


@pytest.mark.parametrize(
    ("finetune", "said"),
    [
        ({"share": "mixed"}, "as many tokens in every step"),
        ({"share": 0.25}, "16 of 64 tokens, and the whole image takes 16"),
    ],
)
def test_shares_that_leave_nothing_close_up_are_refused_before_training(
    finetune: dict[str, object], said: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        msmae.run(
            str(data), out=str(tmp_path / "x"), preset="tiny", method="vit", finetune={"draw": "coarse", **finetune}
        )
    assert not (tmp_path / "x" / "logs").exists()


def test_a_probe_takes_no_draw() -> None:
    settings = make_settings("tiny", None, {"finetune": {"draw": "coarse"}})
    check_method(settings, "vit", started=True)
    with pytest.raises(UserError, match="whole images"):
        check_method(settings, "probe", started=True)


def test_coarse_is_a_draw_of_its_own() -> None:
    assert FinetuneSettings(draw="coarse", share=0.3).share == 0.3
