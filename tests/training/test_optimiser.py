"""The optimiser's groups: every trained parameter once, at the rate of its layer, decayed where it is a matrix."""

from __future__ import annotations

import pytest
from torch import nn

from msmae.method.classifier import Classifier
from msmae.method.msmae import MSMAE
from msmae.method.vit import VisionTransformer
from msmae.selection.locator import Glance
from msmae.selection.selectors import Selection
from msmae.training.optimiser import layerwise_groups


def encoder() -> VisionTransformer:
    return VisionTransformer(image_size=(8, 8), patch_size=4, channels=1, width=8, depth=3, heads=2, registers=2)


def of_names(model: nn.Module, *, layer_decay: float = 1.0, encoder: float = 1.0) -> dict[str, tuple[float, float]]:
    """Learning rate (of 1) and weight decay (of 0.05) of each parameter, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = layerwise_groups(model, 1.0, 0.05, layer_decay, encoder=encoder)
    found = [(names[id(p)], (g["lr"], g["weight_decay"])) for g in groups for p in g["params"]]
    assert len({name for name, _ in found}) == len(found), "a parameter is in two groups"
    return dict(found)


def test_rates_fall_towards_the_image_and_matrices_alone_decay():
    found = of_names(Classifier(encoder(), classes=2), layer_decay=0.5)
    expected = {
        "head.weight": (1, 0.05), "head.bias": (1, 0), "encoder.norm.weight": (1, 0),
        "encoder.blocks.2.mlp.fc1.weight": (0.5, 0.05), "encoder.blocks.1.norm1.bias": (0.25, 0),
        "encoder.blocks.0.attn.qkv.weight": (0.125, 0.05), "encoder.patch_embed.proj.weight": (0.0625, 0.05),
        "encoder.cls_token": (0.0625, 0), "encoder.reg_token": (0.0625, 0), "encoder.pos_embed": (0.0625, 0),
    }  # fmt: skip
    for name, (rate, decay) in expected.items():
        assert found[name] == pytest.approx((rate, decay)), name
    assert found.keys() == {name for name, _ in Classifier(encoder(), classes=2).named_parameters()}


def test_a_classifier_within_a_selection_has_the_same_rates():
    classifier = Classifier(encoder(), classes=2)
    alone = of_names(classifier, layer_decay=0.75)
    within = of_names(
        Selection(classifier, selector="grid", glance=Glance(classifier.encoder, (1, 1))), layer_decay=0.75
    )
    assert within.pop("glance.coarse")[0] == 1
    assert within == {f"model.{name}": value for name, value in alone.items()}


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_the_encoders_layers_get_a_share_and_what_stands_above_them_all(layer_decay: float):
    model = Classifier(encoder(), classes=2)
    before, gentle = of_names(model, layer_decay=layer_decay), of_names(model, layer_decay=layer_decay, encoder=0.25)
    for name, (rate, decay) in before.items():
        above = name.startswith(("head.", "encoder.norm."))
        assert gentle[name] == pytest.approx((rate if above else rate / 4, decay)), name


def test_what_is_frozen_is_left_out_and_one_rate_makes_two_groups():
    model = MSMAE(encoder(), classes=2, decoder_width=8, decoder_depth=1, decoder_heads=2)
    assert len(layerwise_groups(model, 1.0, 0.05)) == 2
    found = of_names(model)
    assert not found.keys() & {"encoder.pos_embed", "decoder_pos_embed"}
    assert {rate for rate, _ in found.values()} == {1.0}
    assert found["mask_token"] == (1.0, 0.0)
    assert len(layerwise_groups(nn.Conv2d(1, 2, 3), 1.0, 0.05, 0.75)) == 2
