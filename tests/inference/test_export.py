"""ONNX: onnxruntime says what we say, for every way of looking, whatever the number of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from msmae.errors import UserError
from msmae.inference.onnx_file import STATIC, Exported, write_onnx
from msmae.method.classifier import Classifier
from msmae.method.vit import VisionTransformer
from msmae.selection.locator import Glance, Locator
from msmae.selection.selectors import Selection


def look_of(selector: str) -> Selection:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(16, 24), patch_size=4, channels=1, width=24, depth=4, heads=3)
    model = Classifier(encoder, classes=3)
    torch.nn.init.normal_(model.head.weight)
    if selector != "locator":
        return Selection(model, selector=selector).eval()
    return Selection(model, selector=selector, locator=Locator(encoder, width=8), glance=Glance(encoder, (1, 2))).eval()


@pytest.mark.slow
@pytest.mark.parametrize("selector", STATIC)
def test_the_file_says_what_the_model_says(selector: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    kept = 24 if selector == "all" else 10
    model = Exported(look_of(selector), kept=kept, mean=[100.0], std=[50.0], multilabel=False)
    write_onnx(tmp_path / "model.onnx", model, image_shape=(1, 16, 24), metadata={"classes": ["a", "b", "c"]})
    assert [record for record in caplog.records if record.name.startswith("torch.onnx")] == []
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for images in (torch.rand(1, 1, 16, 24) * 255, torch.rand(5, 1, 16, 24) * 255):
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, model(images).numpy(), atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["a", "b", "c"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx"]


def test_random_patches_are_not_exported(tmp_path: Path):
    model = Exported(look_of("random"), kept=10, mean=[0.0], std=[1.0], multilabel=False)
    with pytest.raises(UserError, match="'random' cannot be exported"):
        write_onnx(tmp_path / "model.onnx", model, image_shape=(1, 16, 24), metadata={})
    assert not list(tmp_path.iterdir())
