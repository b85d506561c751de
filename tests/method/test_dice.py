"""The losses and windows of segmentation are MONAI's, whose code stands beside them here."""

from __future__ import annotations

import warnings

import pytest
import torch

from msmae.inference.sliding import answer_in_windows, starts_of
from msmae.method.dice import dice_loss, make_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's own imports
    losses = pytest.importorskip("monai.losses.dice")
    inferers = pytest.importorskip("monai.inferers.utils")


def test_overlapping_classes_lose_as_in_monai() -> None:
    logits, target = torch.randn(3, 2, 8, 9), (torch.rand(3, 2, 8, 9) > 0.6).float()
    expected = losses.DiceLoss(sigmoid=True, batch=True)(logits, target)
    expected = expected + torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert torch.equal(make_loss(exclusive=False)(logits, target), expected)


def test_classes_that_exclude_each_other_lose_as_in_monai() -> None:
    logits, target = torch.randn(3, 4, 8, 9), torch.randint(0, 4, (3, 1, 8, 9))
    monai = losses.DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
    assert torch.equal(make_loss(exclusive=True)(logits, target), monai(logits, target))


def test_nothing_drawn_and_nothing_found_costs_nothing() -> None:
    nothing = torch.zeros(2, 1, 4, 4)
    assert dice_loss(nothing, nothing) == 0
    assert dice_loss(nothing, nothing + 1) > 0.99


@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (1, 1, 16, 50), (1, 2, 10, 21), (1, 1, 16, 16)])
def test_windows_are_answered_as_in_monai(shape: tuple[int, ...]) -> None:
    images, mix = torch.randn(shape), torch.nn.Conv2d(shape[1], 2, 5, padding=2)

    def answer(pieces: torch.Tensor) -> torch.Tensor:
        assert pieces.shape[2:] == (16, 16)
        return mix(pieces)

    with torch.no_grad():
        ours = answer_in_windows(images, (16, 16), answer, windows=3)
        theirs = inferers.sliding_window_inference(images, (16, 16), 4, answer, overlap=0.5, mode="gaussian")
    torch.testing.assert_close(ours, theirs)


def test_the_last_window_ends_where_the_image_does() -> None:
    assert starts_of(40, 16) == [0, 8, 16, 24]
    assert starts_of(41, 16) == [0, 8, 16, 24, 25]
    assert starts_of(16, 16) == [0]
