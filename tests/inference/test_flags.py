"""What is unusual is so beside the training images, whatever an encoder was trained on before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import save_file
from served_run import write_run

from encoders.families import HEADS, LAYOUTS, state_of
from msmae.data.manifest import Manifest
from msmae.encoders.start import settings_with_start
from msmae.inference.model import load
from msmae.inference.rows import Rows
from msmae.training.prepare import prepare


@pytest.mark.parametrize("pretrained", [False, True])
def test_brightness_is_held_against_the_training_images(pretrained: bool, tmp_path: Path) -> None:
    model = load(write_run(tmp_path / "run"))
    own = {"mean": [100.0], "std": [10.0]}
    imagenet = {"mean": [116.0], "std": [58.0], "start": {"sha256": "0", "seen": [own["mean"], own["std"]]}}
    model.card = dataclasses.replace(model.card, **(imagenet if pretrained else own))
    noise = np.random.default_rng(0).normal(0, 5, (4, 1, 32, 32))
    images = noise + np.array([100, 124, 126, 74])[:, None, None, None]
    images[1] /= 1000  # flat, and dark
    flags = Rows(model, 1.0, None, "plain", flags=True).flags_of(images, np.ones((4, 2)), None, np.zeros(4, bool))
    assert flags == ["", "flat;unusual_brightness", "unusual_brightness", "unusual_brightness"]


def test_a_constant_channel_is_no_obstacle_where_the_encoder_brings_its_own_scale(tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (28, 28, 3), dtype=np.uint8)
        pixels[..., 2] = 0
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append({"image_path": f"{number}.png", "label": "ab"[number % 2], "split": "train"})
    manifest = Manifest.from_table(pd.DataFrame(rows, dtype=object), root=tmp_path, layout="csv")
    folder = tmp_path / "encoder"
    folder.mkdir()
    save_file(state_of(LAYOUTS["Hugging Face DINOv2"]), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    settings, start = settings_with_start(str(folder), "cpu", None, {"model": {"image_size": 28}})
    prepared = prepare(manifest, settings=settings, method="vit", start=start)
    assert "seen" not in prepared.origin
    assert prepared.mean[0] == pytest.approx(0.485 * 255, rel=0.02)
