"""Features of a frozen encoder: whether they depend on the other images is told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from msmae.data.store import ImageStore
from msmae.training.frozen import Found

DEEP = np.random.default_rng(0).integers(0, 4000, (6, 1, 8, 8))


@pytest.mark.parametrize(
    ("images", "mean", "said"),
    [
        (DEEP.astype(np.uint16), [0.5], "taken for 0 to 1"),
        (DEEP.astype(np.uint16), None, "mean and deviation"),
        ((DEEP / 16).astype(np.uint8), None, "mean and deviation"),
        ((DEEP / 16).astype(np.uint8), [0.5], ""),
        ((DEEP / 4000).astype(np.float32), [0.5], ""),
    ],
)
def test_what_follows_from_the_images_themselves_is_told(images: np.ndarray, mean: list[float] | None, said: str):
    weights = SimpleNamespace(spec=SimpleNamespace(mean=mean, std=mean))
    found = Found((8, 8), 4, 1, None, weights=weights)  # type: ignore[arg-type]
    told = found.by_these(ImageStore(images, None), np.arange(6))
    assert said in told
    assert bool(said) == bool(told)


def test_a_runs_encoder_keeps_its_own_numbers() -> None:
    assert Found((8, 8), 4, 1, None).by_these(ImageStore(DEEP.astype(np.uint16), None), np.arange(6)) == ""
