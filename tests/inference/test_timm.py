"""timm's own models, whole: our encoder reads their weights, theirs reads ours, and the features are the same.

Only where timm is installed (development: it needs torchvision).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from msmae.encoders.spec import build_encoder
from msmae.encoders.weights import load_into, open_weights
from msmae.inference.timm_file import write_timm
from msmae.method.classifier import Classifier
from msmae.runs.cards import ModelCard

try:
    import timm
except (ImportError, RuntimeError):  # RuntimeError: a torchvision that does not fit torch
    pytest.skip("timm is not installed", allow_module_level=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("vit_small_patch14_dinov2", 140), ("vit_small_patch16_224", 224)])
def test_a_model_of_timm_goes_in_and_comes_back(name: str, side: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = timm.create_model(name, pretrained=False, img_size=side, num_classes=0).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    weights = open_weights(tmp_path / "theirs.safetensors", heads=6, image_size=(side, side))
    encoder = build_encoder(weights.spec, (side, side))
    load_into(encoder, weights)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        tokens = theirs.forward_features(images)
        torch.testing.assert_close(encoder.eval()(images), tokens, atol=1e-5, rtol=0)
    spec = weights.spec
    card = ModelCard(
        kind="classifier", method="vit", classes=["a"], multilabel=False, image_size=(side, side),
        patch_size=spec.patch_size, channels=3, width=spec.width, depth=spec.depth, heads=6, pool="cls", mean=[0.0] * 3,
        std=[1.0] * 3, reading={}, calibration={}, numbers="uint8", encoder=spec.parts,
    )  # fmt: skip
    headless = Classifier(encoder, classes=0, pool="cls", head=nn.Identity())
    write_timm(tmp_path / "ours.safetensors", headless, card, metadata={})
    about = safe_open(tmp_path / "ours.safetensors", "pt").metadata()
    assert about["architecture"] == name
    again: Any = timm.create_model(about["architecture"], **json.loads(about["model_args"])).eval()
    again.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(again.forward_features(images), tokens, atol=1e-5, rtol=0)
        print(f"{name}: {(encoder(images) - tokens).abs().max():.1e}")
