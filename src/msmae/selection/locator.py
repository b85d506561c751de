"""A glance before the look: a very small network on a shrunken image says which patches are worth encoding.

What it costs is under one percent of the encoder. It is taught by the model itself: see ``training/selecting``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from msmae.method.vit import VisionTransformer, patchify

GLANCE = 112
"""Side in pixels of the image that the glance shows, of the longer side; at most half of the image's own."""
CLOSE = 1 / 2
"""Patches seen close up, over the tokens of the glance."""


def averaging(length: int, cells: int) -> Tensor:
    """The matrix [length, cells] that averages a line of pixels over equal stretches, cut where they end."""
    edges = torch.linspace(0, length, cells + 1, dtype=torch.float64)
    pixel = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    covered = (torch.minimum(pixel + 1, edges[1:]) - torch.maximum(pixel, edges[:-1])).clamp(min=0)
    return (covered / covered.sum(dim=0)).float()


class Shrink(nn.Module):
    """Images [B, C, H, W] -> area averages [B, C, *size], for any two sizes, by two matrix products."""

    def __init__(self, before: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", averaging(before[0], size[0]).T.contiguous(), persistent=False)
        self.register_buffer("columns", averaging(before[1], size[1]), persistent=False)
        self.after_and_before = (size[0], before[0]), (before[1], size[1])  # the matrices' shapes

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self.rows, Tensor)
        assert isinstance(self.columns, Tensor)
        narrow = images @ self.columns.to(images.dtype)  # [B, C, H, w']
        small: Tensor = self.rows.to(images.dtype) @ narrow  # [B, C, h', w']
        return small


class Locator(nn.Module):
    """A score for every patch, from an image in which a patch is ``cell`` pixels wide.

    Each shrunken patch is embedded; two convolutions let it see its neighbours, and the mean of all patches tells it
    what kind of image this is.

    Args:
        encoder: gives image size, patch grid and channels.
        width: features a patch.
        cell: pixels to which a patch's side is shrunk.
        textures: convolutions and a maximum read each patch, which find what is small wherever it lies in it; else one
            linear layer does. ``cell`` is even then.
    """

    def __init__(self, encoder: VisionTransformer, *, width: int, cell: int = 4, textures: bool = False) -> None:
        super().__init__()
        self.textures = textures
        rows, columns = self.grid = encoder.grid
        self.cell = min(cell, encoder.patch_size)
        size = (rows * encoder.patch_size, columns * encoder.patch_size)
        self.shrink = Shrink(size, (rows * self.cell, columns * self.cell))
        self.embed = (
            textures_of(encoder.channels, width, self.cell)
            if textures
            else nn.Linear(encoder.channels * self.cell**2, width)
        )
        self.position = nn.Parameter(torch.zeros(1, width, rows, columns))
        self.near = nn.Conv2d(width, width, 3, padding=1)
        self.far = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.whole = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    @property
    def described(self) -> dict[str, Any]:
        """What it is made anew from, beside the encoder."""
        about = {"width": self.position.shape[1], "cell": self.cell}
        return {**about, "textures": True} if self.textures else about

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] -> scores [B, N], larger = keep first."""
        small = self.shrink(images)  # [B, C, h*cell, w*cell]
        if self.textures:
            x = self.embed(small)  # [B, width, h, w]
        else:
            x = self.embed(patchify(small, self.cell)).transpose(1, 2).reshape(images.shape[0], -1, *self.grid)
        x = x + self.position
        x = x + self.near(x.relu())
        x = x + self.far(x.relu())
        x = x.flatten(2).transpose(1, 2)  # [B, N, width]
        x = x + self.whole(x.mean(dim=1, keepdim=True).relu())
        scores: Tensor = self.score(x.relu()).squeeze(2)
        return scores


def textures_of(channels: int, width: int, cell: int) -> nn.Sequential:
    """Images [B, C, h*cell, w*cell] -> features of their patches [B, width, h, w]."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, width, 1),
        nn.MaxPool2d(cell // 2),
    )


class Glance(nn.Module):
    """The whole image in a few coarse tokens: what is not looked at closely is still seen from afar.

    The encoder's own patch embedding reads the shrunken image; positions are the means of the patches that a coarse
    one covers, and a learned vector says that it is coarse.
    """

    def __init__(self, encoder: VisionTransformer, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.patch_size = grid, encoder.patch_size
        whole = (encoder.grid[0] * encoder.patch_size, encoder.grid[1] * encoder.patch_size)
        self.shrink = Shrink(whole, (grid[0] * encoder.patch_size, grid[1] * encoder.patch_size))
        rows, columns = (
            averaging(before, after).T.contiguous() for before, after in zip(encoder.grid, grid, strict=True)
        )
        self.register_buffer("cover", torch.kron(rows, columns), persistent=False)  # [G, N]
        self.coarse = nn.Parameter(torch.zeros(1, 1, encoder.width))

    def forward(self, images: Tensor, encoder: VisionTransformer) -> Tensor:
        """Images [B, C, H, W] -> tokens [B, G, D]."""
        assert isinstance(self.cover, Tensor)
        positions = self.cover.to(images.dtype) @ encoder.patch_positions[0]  # [G, D]
        tokens: Tensor = encoder.patch_embed(patchify(self.shrink(images), self.patch_size))
        placed: Tensor = tokens + positions + self.coarse
        return placed


def locator_width(encoder: VisionTransformer) -> int:
    """A sixth of the encoder's."""
    return max(16, encoder.width // 6)


def glance_of(encoder: VisionTransformer) -> tuple[int, int]:
    """The glance's tokens (rows, columns)."""
    share = min(1 / 2, GLANCE / (encoder.patch_size * max(encoder.grid)))
    rows, columns = (max(1, round(share * side)) for side in encoder.grid)
    return rows, columns


def tokens_for(encoder: VisionTransformer, share: float | str | None) -> int:
    """How many tokens are encoded, the glance's among them: as many as a share says, or half as many patches as the
    glance has tokens beside them."""
    coarse = math.prod(glance_of(encoder))
    if share is None:
        return coarse + max(1, round(CLOSE * coarse))
    return math.floor(float(share) * encoder.patches + 1e-9)
