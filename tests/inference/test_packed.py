"""Weights packed for prediction: the same answers, no second set of parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msmae.inference.packed import Packed, can_pack, packed
from msmae.method.classifier import Classifier
from msmae.method.vit import VisionTransformer
from msmae.selection.locator import Glance, Locator
from msmae.selection.selectors import SELECTORS, Selection

IMAGES = torch.randn(3, 2, 24, 32, generator=torch.Generator().manual_seed(1))


def look_of(selector: str) -> Selection:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(24, 32), patch_size=4, channels=2, width=24, depth=4, heads=3)
    model = Classifier(encoder, classes=3).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name == "head.weight":
            nn.init.normal_(parameter)
    if selector != "locator":
        return Selection(model, selector=selector).eval()
    return Selection(model, selector=selector, locator=Locator(encoder, width=8), glance=Glance(encoder, (2, 2))).eval()


needs_packing = pytest.mark.skipif(not can_pack(look_of("all")), reason="nothing can be packed on this processor")


@pytest.mark.parametrize("selector", SELECTORS)
def test_packed_it_says_the_same(selector: str):
    selection = look_of(selector)
    with torch.inference_mode():
        found, expected = (
            each(IMAGES, 12, torch.Generator().manual_seed(0)) for each in (packed(selection), selection)
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@needs_packing
def test_every_linear_layer_is_packed_and_no_parameter_is_copied():
    selection = look_of("locator")
    quick = packed(selection)
    assert not any(isinstance(part, nn.Linear) for part in quick.modules())
    assert sum(isinstance(part, Packed) for part in quick.modules()) == 4 * 4 + 1 + 3  # blocks, head, locator
    assert {p.data_ptr() for p in quick.parameters()} == {p.data_ptr() for p in selection.parameters()}
    assert isinstance(selection.model.head, nn.Linear)  # what was packed stays as it was


@needs_packing
def test_in_bfloat16_it_says_the_same():
    selection = look_of("all").to(torch.bfloat16)
    if not can_pack(selection):
        pytest.skip("no products of bfloat16 on this processor")
    with torch.inference_mode():
        found, expected = (each(IMAGES.bfloat16(), 48).float() for each in (packed(selection), selection))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_weights_made_in_inference_mode_are_packed_too():
    """They have no version, by which other weights tell that they changed."""
    with torch.inference_mode():
        selection = look_of("all").to(torch.float64).to(torch.float32)
        assert selection.model.head.weight.is_inference()
        torch.testing.assert_close(packed(selection)(IMAGES, 48), selection(IMAGES, 48), atol=1e-5, rtol=1e-4)


def test_other_numbers_are_not_packed():
    selection = look_of("all").double()
    assert packed(selection) is selection


@needs_packing
def test_weights_that_change_after_a_prediction_are_laid_out_anew():
    selection = look_of("all")
    quick = packed(selection)
    with torch.no_grad():
        quick(IMAGES, 48)
        for parameter in selection.parameters():
            parameter.add_(0.05 * torch.ones_like(parameter))
        torch.testing.assert_close(quick(IMAGES, 48), selection(IMAGES, 48), atol=1e-5, rtol=1e-4)


@needs_packing
def test_under_autocast_it_answers_as_the_plain_network_does():
    selection = look_of("all")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(packed(selection)(IMAGES, 48), selection(IMAGES, 48))
