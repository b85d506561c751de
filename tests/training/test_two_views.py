"""The arms that learn the label from a view of its own: what the view is drawn from, and what learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msmae.config import make_settings
from msmae.data.phantom import make_phantom
from msmae.method.masking import draw_order, plan_patches
from msmae.method.msmae import MSMAE, msmae_loss
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import build_model
from msmae.training.prepare import divide, prepare
from msmae.training.pretrain import PretrainModule, pretrained_card
from msmae.training.second_view import see_twice


@pytest.fixture(scope="module")
def model() -> MSMAE:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(16, 16), patch_size=4, channels=1, width=16, depth=2, heads=2)
    return MSMAE(encoder, classes=3, decoder_width=16, decoder_depth=1, decoder_heads=2).eval()


def test_the_class_is_named_from_the_second_view_and_pixels_from_the_first(model: MSMAE) -> None:
    images, generator = torch.randn(5, 1, 16, 16), torch.Generator().manual_seed(1)
    plan = plan_patches(torch.ones(5, 16), generator=generator)
    view = draw_order(torch.ones(5, 16), generator)[:, :4]
    one, two = model(images, plan), see_twice(model, images, plan, view)
    assert torch.equal(one.pixels, two.pixels)
    assert torch.equal(two.logits, model.head(model.encoder(images, view)[:, 0]))
    assert not torch.allclose(one.logits, two.logits)


def test_the_labels_gradient_reaches_the_encoder_through_the_second_view_alone(model: MSMAE) -> None:
    """Positions are learned here to see which patches the label's gradient touches."""
    model.encoder.pos_embed.requires_grad_(True)
    plan = plan_patches(torch.ones(2, 16))
    view = torch.tensor([[0, 3], [3, 5]])
    output = see_twice(model, torch.randn(2, 1, 16, 16), plan, view)
    labels = torch.tensor([0, 2])
    losses = msmae_loss(torch.randn(2, 1, 16, 16), output, plan, labels, patch_size=4)
    gradient = torch.autograd.grad(losses.label, model.encoder.pos_embed)[0][0, 1:].abs().sum(dim=1)
    assert gradient.nonzero().flatten().tolist() == [0, 3, 5]
    model.encoder.pos_embed.requires_grad_(False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, images=60, size=32)
    return folder / "manifest.csv"


def drawn(data: Path, arm: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> np.ndarray:
    """How often each patch is in the second view when one patch of 64 is all that is attended: [64]; after warm-up."""
    monkeypatch.setenv("MSMAE_CACHE", str(cache))
    settings = make_settings("tiny", None, {"model": {"patch_size": 4}, "pretrain": {"uniform_epochs": 0}})
    prepared = prepare(divide(str(data), settings=settings), settings=settings, method=arm)
    built = build_model(pretrained_card(prepared))
    assert isinstance(built, MSMAE)
    module = PretrainModule(built, prepared)
    module.generator = torch.Generator().manual_seed(0)
    weights = torch.full((400, 8, 8), 1e-3)
    weights[:, 2, 3] = 1.0
    encoded: list[torch.Tensor] = []
    built.encoder.register_forward_pre_hook(lambda _, given: encoded.append(given[1]))
    plan = module.draw(weights)
    module.see(torch.zeros(400, prepared.channels, *prepared.image_size), plan, weights)
    first, second = encoded
    assert torch.equal(first, plan.keep)
    assert second.shape == plan.keep.shape
    return np.bincount(second.flatten().numpy(), minlength=64) / 400


def test_attended_patches_are_looked_at_or_any_patch(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attended = drawn(data, "msmae-twoview", monkeypatch, tmp_path)
    uniform = drawn(data, "supmae-twoview", monkeypatch, tmp_path)
    assert attended[2 * 8 + 3] > 0.99
    assert uniform[2 * 8 + 3] == pytest.approx(0.25, abs=0.09)  # four standard errors of 400 draws
    assert attended.sum() == pytest.approx(16)
