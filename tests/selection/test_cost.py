"""Cost: the paper's figures for ViT-B/16, and our count against PyTorch's own counter of executed operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from msmae.method.attention import patch_maps
from msmae.method.classifier import Classifier
from msmae.method.cost import Macs, classifier_macs, encoder_macs, map_macs, msmae_macs
from msmae.method.masking import patch_counts, plan_patches
from msmae.method.msmae import MSMAE
from msmae.method.vit import SIZES, VisionTransformer

SHAPES = [((16, 24), 4, 1), ((28, 14), 7, 3)]  # image size, patch size, channels


def executed(function: Callable[[], object]) -> float:
    """MACs of every product that PyTorch executes (two FLOPs each); attention unfused, so that its counter sees it."""
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 2


class Products(TorchDispatchMode):
    """Counts like the above, gradients too: PyTorch's counter cannot follow a gradient that ends at a leaf."""

    flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        self.flops += formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        return result


def encoder_of(size: tuple[int, int], patch: int, channels: int) -> VisionTransformer:
    return VisionTransformer(image_size=size, patch_size=patch, channels=channels, width=24, depth=3, heads=2)


# --- the paper's figures


@pytest.fixture(scope="module")
def vit_b() -> VisionTransformer:
    """ViT-B/16 at 224, its twelve blocks being one block twelve times: all that is counted is shapes."""
    encoder = VisionTransformer(image_size=(224, 224), patch_size=16, **(SIZES["base"] | {"depth": 1}))
    encoder.blocks.extend([encoder.blocks[0]] * (SIZES["base"]["depth"] - 1))
    return encoder


def test_a_quarter_of_vit_b_costs_what_the_paper_says(vit_b: VisionTransformer):
    """Linear and convolution layers: 16.85 GMAC for all 196 patches, 4.36 for 49 of them; 74.1 % fewer."""
    kept = patch_counts(196, 0.45, 0.30)[2]
    whole, quarter = encoder_macs(vit_b, embed_all=True), encoder_macs(vit_b, kept, embed_all=True)
    assert kept == 49
    assert whole.linear / 1e9 == pytest.approx(16.85, abs=0.005)
    assert quarter.linear / 1e9 == pytest.approx(4.36, abs=0.005)
    assert 1 - quarter.linear / whole.linear == pytest.approx(0.741, abs=0.0005)


def test_with_the_attention_products_it_saves_a_little_more(vit_b: VisionTransformer):
    whole, quarter = encoder_macs(vit_b, embed_all=True), encoder_macs(vit_b, 49, embed_all=True)
    assert whole.total / 1e9 == pytest.approx(17.56, abs=0.005)
    assert quarter.total / 1e9 == pytest.approx(4.41, abs=0.005)
    assert 1 - quarter.total / whole.total == pytest.approx(0.749, abs=0.0005)


def test_by_hand(vit_b: VisionTransformer):
    """A block of width D spends 12 D^2 on a token (3 + 1 + 4 + 4) and 2 T D on its attention over T tokens."""
    linear = 12 * 197 * 12 * 768**2 + 196 * 768 * (3 * 16**2)
    assert encoder_macs(vit_b) == Macs(linear, 12 * 2 * 197**2 * 768)
    ours, theirs = encoder_macs(vit_b, 49), encoder_macs(vit_b, 49, embed_all=True)
    assert theirs.linear - ours.linear == 147 * 768 * 768  # the patches that only they embed
    assert theirs.attention == ours.attention


def test_a_head_of_seven_classes_adds_seven_widths(vit_b: VisionTransformer):
    model = Classifier(vit_b, classes=7)
    assert classifier_macs(model).linear - encoder_macs(vit_b).linear == 7 * 768


# --- against a counter of what is executed


@pytest.mark.parametrize(("size", "patch", "channels"), SHAPES)
@pytest.mark.parametrize("kept", [None, 5])
def test_a_prediction(size: tuple[int, int], patch: int, channels: int, kept: int | None):
    model = Classifier(encoder_of(size, patch, channels), classes=4)
    images = torch.randn(3, channels, *size)
    keep = None if kept is None else torch.stack([torch.randperm(model.encoder.patches)[:kept] for _ in range(3)])
    assert executed(lambda: model(images, keep)) == 3 * classifier_macs(model, kept).total


@pytest.mark.parametrize(("size", "patch", "channels"), SHAPES)
@pytest.mark.parametrize(("mask", "throw"), [(0.45, 0.30), (0.75, 0.0)])
def test_a_pretraining_step(size: tuple[int, int], patch: int, channels: int, mask: float, throw: float):
    encoder = encoder_of(size, patch, channels)
    model = MSMAE(encoder, classes=4, decoder_width=16, decoder_depth=2, decoder_heads=2)
    images, plan = torch.randn(2, channels, *size), plan_patches(torch.ones(2, encoder.patches), mask, throw)
    counted = msmae_macs(model, plan.keep.shape[1], plan.mask.shape[1])
    assert executed(lambda: model(images, plan)) == 2 * counted.total


@pytest.mark.parametrize(("size", "patch", "channels"), SHAPES)
def test_a_map_needs_no_more_than_one_row_of_the_last_block(size: tuple[int, int], patch: int, channels: int):
    encoder = encoder_of(size, patch, channels)
    images = torch.randn(2, channels, *size)
    assert executed(lambda: patch_maps(encoder, images)) == 2 * map_macs(encoder).total
    assert map_macs(encoder).total < 0.8 * encoder_macs(encoder).total


def test_the_two_parts_of_a_count_are_what_they_are_called():
    """The two attention products are the only batched matrix products that are executed; the rest is linear layers."""
    encoder = encoder_of((16, 24), 4, 1)
    images = torch.randn(1, 1, 16, 24)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(images)
    kinds = {str(kind): flops / 2 for kind, flops in counter.get_flop_counts()["Global"].items()}
    products = sum(macs for kind, macs in kinds.items() if "bmm" in kind and "addbmm" not in kind)
    assert products == encoder_macs(encoder).attention
    assert sum(kinds.values()) - products == encoder_macs(encoder).linear
