"""A default that many functions repeat has one value, and it is that of the settings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest
import torch

from msmae.config.settings import DatasetSettings, EvaluateSettings, SegmentSettings
from msmae.method.segmenter import LightDecoder, Segmenter
from msmae.method.vit import SIZES, VisionTransformer

SHARED = {
    **{"seed": 0, "repeats": 1, "level": 0.95, "coverage": 0.9, "val_fraction": 0.15, "test_fraction": 0.2},
    **{"resamples": 2000, "areas": True, "ordinal": False, "tested": False, "deep_supervision": False},
    **{"layer_scale": False, "qkv_bias": True, "norm_eps": 1e-6, "mlp_ratio": 4.0, "drop_path": 0.0},
}


def defaults(package: str) -> Iterator[tuple[str, str, object]]:
    """Function, parameter, default: of all that a package defines."""
    folder = importlib.import_module(f"msmae.{package}").__path__
    for found in pkgutil.walk_packages(folder, f"msmae.{package}."):
        for part in vars(importlib.import_module(found.name)).values():
            if getattr(part, "__module__", None) != found.name:
                continue
            for function in [part, *vars(part).values()] if inspect.isclass(part) else [part]:
                if inspect.isfunction(function):
                    for name, parameter in inspect.signature(function).parameters.items():
                        if parameter.default is not parameter.empty:
                            yield f"{found.name}.{function.__qualname__}", name, parameter.default


@pytest.mark.parametrize("package", ["data", "method", "statistics"])
def test_a_default_is_the_same_wherever_it_stands(package: str) -> None:
    shared = [one for one in defaults(package) if one[1] in SHARED]
    assert len(shared) > 8
    assert [one for one in shared if one[2] != SHARED[one[1]]] == []


def test_and_it_is_that_of_the_settings() -> None:
    assert EvaluateSettings().resamples == SHARED["resamples"]
    settings = DatasetSettings()
    assert (settings.val_fraction, settings.test_fraction) == (SHARED["val_fraction"], SHARED["test_fraction"])


@pytest.mark.parametrize(
    ("size", "weights", "head"),
    [("tiny", 5_524_416, 64), ("small", 21_665_664, 64), ("base", 85_798_656, 64), ("large", 303_301_632, 64),
     ("nano", 917_120, 32), ("micro", 2_855_232, 32)],
)  # fmt: skip
def test_the_named_sizes_are_the_published_ones(size: str, weights: int, head: int) -> None:
    with torch.device("meta"):
        model = VisionTransformer(**SIZES[size])
    assert sum(p.numel() for p in model.parameters()) == weights
    assert model.width // model.blocks[0].attn.heads == head


def test_linear_layers_begin_as_xaviers_without_bias() -> None:
    model = VisionTransformer(image_size=(16, 16), patch_size=8, channels=1, width=64, depth=1, heads=2)
    for layer, fans in ((model.blocks[0].attn.qkv, 4 * 64), (model.patch_embed.proj, 64 + 64)):
        assert 0.9 * (6 / fans) ** 0.5 < layer.weight.abs().max() <= (6 / fans) ** 0.5
        assert not layer.bias.any()
    assert 0.01 < model.cls_token.std() < 0.03


def test_without_a_size_the_encoder_is_a_vit_b() -> None:
    chosen = {name: p.default for name, p in inspect.signature(VisionTransformer.__init__).parameters.items()}
    assert {name: chosen[name] for name in SIZES["base"]} == SIZES["base"]
    assert (chosen["image_size"], chosen["patch_size"], chosen["channels"]) == ((224, 224), 16, 3)


def test_a_segmenter_has_the_decoder_that_its_settings_ask_for() -> None:
    chosen, own = (inspect.signature(kind.__init__).parameters for kind in (Segmenter, LightDecoder))
    assert chosen["decoder"].default == SegmentSettings().decoder
    assert chosen["width"].default == own["width"].default
