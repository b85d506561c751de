"""Selection: eight ways to choose the tokens of an image that are encoded, through one module.

``all``       every patch
``random``    any patches
``grid``      patches evenly spread
``self``      two passes: the most attended patches of a pass over all of them (the paper's figure)
``early``     the first blocks on all patches, the rest on the most attended (EViT)
``merge``     tokens that are alike are averaged from block to block (ToMe)
``smaller``   no patch is chosen: the whole image, shrunk until it has so few
``locator``   a very small network chooses from a shrunken image, which is handed on as a few coarse tokens
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor, nn

from msmae.method.attention import patch_maps
from msmae.method.classifier import Classifier
from msmae.selection.locator import Glance, Locator
from msmae.selection.reduction import early_tokens, merge_tokens, smaller_tokens

WHOLE = ("all", "early", "merge", "smaller")
"""Selectors that use the model's own weights: the whole image enters."""
SELECTORS = ("all", "random", "grid", "self", "early", "merge", "smaller", "locator")


def grid_order(rows: int, columns: int) -> list[int]:
    """All patches in an order whose every beginning is evenly spread (ordered dithering, Bayer 1973)."""

    def rank(patch: int) -> int:
        y, x = divmod(patch, columns)
        bits = max(rows, columns).bit_length()
        digits = (2 * ((x ^ y) >> bit & 1) + (y >> bit & 1) for bit in range(bits))
        return sum(digit << 2 * (bits - place) for place, digit in enumerate(digits))

    return sorted(range(rows * columns), key=rank)


Draw = torch.Generator | Sequence[torch.Generator] | None
"""What random patches are drawn from: one generator for a batch, one for each image, or torch's own."""


def own_draws(images: Tensor) -> list[torch.Generator]:
    """A generator for each image [B, C, H, W] that its pixels seed: what is drawn for it turns on nothing else."""
    pixels = images.detach().float().cpu()
    return [torch.Generator().manual_seed(crc32(image.numpy().tobytes())) for image in pixels]


def random_order(images: int, patches: int, draw: Draw) -> Tensor:
    """The patches of each image in any order: positions [B, N]."""
    if draw is None or isinstance(draw, torch.Generator):
        return torch.rand(images, patches, generator=draw).argsort(dim=1)
    return torch.stack([torch.rand(patches, generator=generator) for generator in draw]).argsort(dim=1)


class Selection(nn.Module):
    """A classifier that encodes a fixed number of tokens: images in, logits out.

    Args:
        model: the classifier, of weights that were prepared for dropping where there are such.
        selector: one of ``SELECTORS``.
        locator: for the selector ``locator``.
        glance: coarse tokens that the locator's choice is completed with; they count among the kept.
        guide: whose attention ``self`` follows; None: the classifier's own.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        selector: str,
        locator: Locator | None = None,
        glance: Glance | None = None,
        guide: Classifier | None = None,
    ) -> None:
        super().__init__()
        if selector not in SELECTORS:
            raise ValueError(f"no selector {selector!r}: choose one of {', '.join(SELECTORS)}")
        if selector == "locator" and locator is None:
            raise ValueError("the selector 'locator' needs a locator")
        self.model, self.selector = model, selector
        self.locator, self.glance, self.guide = locator, glance, guide

    @property
    def coarse(self) -> int:
        """Tokens of the glance."""
        return 0 if self.glance is None else self.glance.grid[0] * self.glance.grid[1]

    def forward(self, images: Tensor, kept: int, draw: Draw = None) -> Tensor:
        """Normalised images [B, C, H, W] -> logits [B, classes] from ``kept`` tokens.

        Raises:
            ValueError: no token would be left for a patch.
        """
        return self.answer(images, kept, draw)[0]

    def answer(self, images: Tensor, kept: int, draw: Draw = None) -> tuple[Tensor, Tensor | None]:
        """Logits [B, classes], and the positions [B, K] of the patches that were encoded; None: no one patch was."""
        encoder = self.model.encoder
        if not self.coarse < kept <= encoder.patches:
            raise ValueError(f"{kept} of {encoder.patches} tokens, {self.coarse} of them coarse")
        if self.selector == "all":
            return self.model(images), None
        if self.selector == "merge":
            return self.model.classify(merge_tokens(encoder, images, kept)), None
        if self.selector == "smaller":
            return self.model.classify(smaller_tokens(encoder, images, kept)), None
        if self.selector == "early":
            tokens, keep = early_tokens(encoder, images, kept)
            return self.model.classify(tokens), keep
        positions = self.choose(images, kept - self.coarse, draw)
        return self.read(images, positions), positions

    def choose(self, images: Tensor, count: int, draw: Draw = None) -> Tensor | None:
        """Positions [B, count] of the patches to encode; None: all."""
        encoder = self.model.encoder
        if self.selector == "all":
            return None
        if self.selector == "grid":
            order = torch.tensor(grid_order(*encoder.grid)[:count], device=images.device)
            return order.expand(images.shape[0], -1)
        if self.selector == "random":
            return random_order(len(images), encoder.patches, draw)[:, :count].to(images.device)
        if self.selector == "self":
            scores = patch_maps((self.guide or self.model).encoder, images).flatten(1)
        else:
            assert self.locator is not None
            scores = self.locator(images).float()
        return scores.topk(count, dim=1).indices

    def read(self, images: Tensor, positions: Tensor | None) -> Tensor:
        """Logits [B, classes] from the patches at positions [B, K] and the glance."""
        logits: Tensor = self.model.classify(self.tokens(images, positions))
        return logits

    def tokens(self, images: Tensor, positions: Tensor | None) -> Tensor:
        """Normalised tokens [B, 1+K+G, D], what stands for the image first."""
        encoder = self.model.encoder
        return encoder.read(encoder.blocks[-1](self.before_last(images, positions)))

    def before_last(self, images: Tensor, positions: Tensor | None) -> Tensor:
        """What enters the last block: the leading tokens, the patches at positions [B, K], the glance:
        [B, P+K+G, D]."""
        encoder = self.model.encoder
        x = encoder.embed(images, positions)  # [B, P+K, D]
        if self.glance is not None:
            x = torch.cat([x, self.glance(images, encoder)], dim=1)  # [B, P+K+G, D]
        for block in encoder.blocks[:-1]:
            x = block(x)
        return x


def share_for(tokens: int, patches: int) -> float:
    """The least share, of four digits, that keeps so many tokens."""
    return math.ceil(1e4 * tokens / patches) / 1e4
