"""An image larger than the model, answered piece by piece: overlapping windows, weighted towards their centres."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

OVERLAP = 0.5
"""Share of a window that the next one sees again."""
SPREAD = 0.125
"""Standard deviation of the weights, as a share of the window's side."""
LEAST = 1e-3
"""No pixel weighs less."""


def answer_in_windows(
    images: Tensor, size: tuple[int, int], answer: Callable[[Tensor], Tensor], *, windows: int = 16
) -> Tensor:
    """What a model of fixed size says of larger images.

    Args:
        images: [B, channels, H, W]; where a side is smaller than the window's it is filled up with zeros.
        size: (height, width) of a window.
        answer: [n, channels, h, w] -> [n, classes, h, w].
        windows: how many are answered at a time.

    Returns:
        [B, classes, H, W]: the weighted mean of all windows that see a pixel.
    """
    height, width = images.shape[2:]
    more = [max(side - own, 0) for side, own in zip(size, (height, width), strict=True)]
    top, left = more[0] // 2, more[1] // 2
    padded = F.pad(images, (left, more[1] - left, top, more[0] - top))
    weight = centre_weights(size).to(images)  # [h, w]
    starts = [starts_of(side, window) for side, window in zip(padded.shape[2:], size, strict=True)]
    places = [(i, y, x) for i in range(len(images)) for y, x in product(*starts)]
    total, weights = None, torch.zeros(1, 1, *padded.shape[2:]).to(images)
    for first in range(0, len(places), windows):
        some = places[first : first + windows]
        found = answer(torch.stack([padded[i, :, y : y + size[0], x : x + size[1]] for i, y, x in some]))
        if total is None:
            total = found.new_zeros(len(images), found.shape[1], *padded.shape[2:])
        for (i, y, x), said in zip(some, found, strict=True):
            total[i, :, y : y + size[0], x : x + size[1]] += said * weight
    for y, x in product(*starts):
        weights[:, :, y : y + size[0], x : x + size[1]] += weight
    assert total is not None
    return (total / weights)[:, :, top : top + height, left : left + width]


def starts_of(side: int, window: int) -> list[int]:
    """Where windows begin along a side: half a window apart, the last one at the end."""
    step = max(1, int(window * (1 - OVERLAP)))
    starts = list(range(0, max(side - window, 0), step))
    return [*starts, side - window]


def centre_weights(size: tuple[int, int]) -> Tensor:
    """A Gaussian [h, w] with its top at the centre."""
    rows, columns = (
        torch.exp((torch.arange(side, dtype=torch.float) - (side - 1) / 2) ** 2 / (-2 * (SPREAD * side) ** 2))
        for side in size
    )
    weights = rows[:, None] * columns
    return weights.clamp(min=max(float(weights.min()), LEAST))
