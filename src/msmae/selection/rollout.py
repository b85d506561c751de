"""Attention followed back through all blocks to the patches: where a class token's answer was gathered from.

Not the paper's: the last block's row, which is its map, is of tokens that have mixed already (docs/lab-notes.md).

Reference: Abnar and Zuidema, "Quantifying attention flow in transformers", arXiv 2005.00928.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.method.attention import average_heads
from msmae.method.vit import Attention, Block, VisionTransformer

SQUARES = 2**24
"""Entries of the square matrices, one an image, that are held at once (64 MiB)."""


@torch.no_grad()
def rollout_maps(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """Whole images [B, C, H, W] (normalised) -> maps [B, h, w] in [0, 1], without gradient."""
    at_once = max(1, SQUARES // (1 + encoder.patches) ** 2)
    parts = [images[i : i + at_once] for i in range(0, len(images), at_once)]
    rolled = torch.cat([class_rollout(encoder, part) for part in parts])  # [B, N]
    return average_heads(rolled.unsqueeze(1)).reshape(-1, *encoder.grid)


def class_rollout(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """What reaches the class token from each patch: [B, C, H, W] -> [B, N].

    Every block passes on half of each token and half of what it attends to.
    """
    x = encoder.embed(images)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    through = torch.eye(x.shape[1], device=x.device).expand(len(x), -1, -1)  # [B, 1+N, 1+N]
    last = len(encoder.blocks) - 1
    for number, block in enumerate(encoder.blocks):
        assert isinstance(block, Block)
        rows = mean_rows(block.attn, block.norm1(x))  # [B, 1+N, 1+N]
        with torch.autocast(x.device.type, enabled=False):
            through = (rows @ through + through) / 2
        if number < last:
            x = block(x)
    return through[:, 0, 1:]


def mean_rows(attention: Attention, x: Tensor) -> Tensor:
    """What every token attends to, heads averaged: [B, T, D] -> [B, T, T], rows of sum 1."""
    batch, tokens, width = x.shape
    both = F.linear(x, attention.qkv.weight[: 2 * width], attention.qkv.bias[: 2 * width])
    query, key = both.reshape(batch, tokens, 2, attention.heads, -1).permute(2, 3, 0, 1, 4)  # [H, B, T, D/H] each
    rows = torch.zeros(batch, tokens, tokens, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        for one, other in zip(query.float(), key.float(), strict=True):  # all heads at once would be large
            rows += (one @ other.mT * (width // attention.heads) ** -0.5).softmax(dim=-1)
    return rows / attention.heads
