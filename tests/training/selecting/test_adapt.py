"""Preparing a model for dropping patches: the locator, the glance, the copy that learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import msmae
from budgeted import SHORT
from msmae.inference.model import load
from msmae.method.vit import VisionTransformer
from msmae.training.prepare import prepare_again
from msmae.training.selecting.adapt import disagreement, fit_locator, glances, wanted_patches
from msmae.verbs.budget import budget
from spots import SPLITS, looking_at_bright_patches, of_the_bright, prepared_of, write_spots


def test_the_glance_that_answers_better_on_validation_goes_on(budgeted: Path):
    model, prepared = load(budgeted), prepare_again(budgeted)
    found = model.card.keep["glances"]
    assert set(found) == {"2x2", "3x3"}
    rows, columns = model.card.keep["glance"]
    assert found[f"{rows}x{columns}"] == min(found.values())
    ids = prepared.ids("val")
    answers = model.selection("locator")(model.to_scale(torch.from_numpy(prepared.store.fetch(ids)).float()), 16)
    own = torch.nn.functional.cross_entropy(answers, torch.from_numpy(prepared.targets[ids]))
    assert own.item() == pytest.approx(model.card.keep["loss"], abs=1e-3)
    tried = {folder.name for folder in (budgeted / "keep").iterdir()}
    assert tried == {"2x2-1", "3x3-1", f"{rows}x{columns}-1-2"}  # epochs of each try, then of the one that goes on


@pytest.mark.slow
def test_preparing_is_twice_as_long_as_fine_tuning_unless_told(tmp_path: Path):
    msmae.run(str(write_spots(tmp_path)), out=str(tmp_path / "run"), preset="tiny", **SHORT)
    budget(str(tmp_path / "run"), ratios=["0.25"], selectors=["grid"])
    assert load(tmp_path / "run").card.keep["presentations"] == 2 * SHORT["finetune"]["epochs"] * SPLITS.count("train")


@pytest.mark.parametrize(
    ("side", "expected"), [(224, [(4, 4), (5, 5)]), (128, [(2, 2), (3, 3)]), (64, [(1, 1)]), (32, [(1, 1)])]
)
def test_a_glance_leaves_patches_of_a_quarter(side: int, expected: list[tuple[int, int]]):
    encoder = VisionTransformer(image_size=(side, side), patch_size=16, channels=1, width=4, depth=1, heads=1)
    assert glances(encoder) == expected


def test_the_locator_learns_what_the_answers_hang_on(tmp_path: Path):
    """The classifier of these images reads the brightest patch; so the locator must find it, on images it never saw."""
    prepared = prepared_of(write_spots(tmp_path), finetune={"batch_size": 8})
    from msmae.method.classifier import Classifier
    from msmae.selection.locator import Locator

    torch.manual_seed(0)
    encoder = looking_at_bright_patches((32, 32), 4)
    with torch.no_grad():
        encoder.blocks[0].attn.qkv.weight[8, 0] = 1
        encoder.blocks[0].attn.proj.weight.copy_(torch.eye(4))
        encoder.norm.weight.fill_(1)
    classifier = Classifier(encoder, classes=4).eval()
    torch.nn.init.normal_(classifier.head.weight)
    locator = Locator(encoder, width=16)
    images = torch.from_numpy(prepared.store.fetch(prepared.ids("test")).astype(np.float32))
    scaled = (images - prepared.mean[0]) / prepared.std[0]
    before = of_the_bright(images, locator(scaled).topk(16, dim=1).indices)[0]
    foreseen = fit_locator(locator, classifier, prepared, presentations=60)  # few: a rate too small shows
    after = of_the_bright(images, locator(scaled).topk(16, dim=1).indices)[0]
    assert after > 0.9 > before
    assert foreseen > 0.9


def test_what_is_wanted_is_the_same_for_a_mirror_image():
    encoder = looking_at_bright_patches((32, 32), 4)
    from msmae.method.classifier import Classifier

    classifier, images = Classifier(encoder, classes=2), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(wanted_patches(classifier, images), wanted_patches(classifier, images.flip(-1)).flip(-1))


def test_to_agree_with_the_teacher_is_best():
    taught, labels = torch.randn(5, 3), torch.zeros(5, dtype=torch.long)
    same = disagreement(taught, taught, labels)
    assert all(same < disagreement(taught + torch.randn(5, 3), taught, labels) for _ in range(10))
    several = torch.zeros(5, 3)
    assert disagreement(taught, taught, several) < disagreement(-taught, taught, several)
