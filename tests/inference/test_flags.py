"""What is unusual is so beside the training images, whatever an encoder was trained on before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from served_run import write_run

from msmae.inference.model import load
from msmae.inference.rows import Rows


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
