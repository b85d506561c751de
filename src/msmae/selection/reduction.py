"""Fewer tokens without choosing patches: prune early, merge what is alike, or shrink the image.

The first two are the best known ways to drop tokens on the way through the encoder. Both embed every patch and run the
first blocks on all of them, which bounds what they can save. The third is the rival of every way of choosing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msmae.method.vit import (
    Attention,
    Block,
    VisionTransformer,
    gather_tokens,
    patchify,
    resize_position_embedding,
)
from msmae.selection.locator import Shrink


def early_block(depth: int) -> int:
    """The number of blocks that see all patches before ``early`` prunes: a quarter of them."""
    return max(1, depth // 4)


def early_tokens(encoder: VisionTransformer, images: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Run the first blocks on all patches, the rest on those the class token attends to, and on the weighted mean of
    the others (EViT, Liang et al., arXiv 2202.07800).

    Returns:
        normalised tokens [B, 1+K, D], what stands for the image first and the mean of the dropped last; positions
        [B, K-1].
    """
    first = early_block(len(encoder.blocks))
    x = encoder.embed(images)
    for block in encoder.blocks[:first]:
        x = block(x)
    row = encoder.class_row(first, x).mean(dim=1)  # [B, N]
    order = row.argsort(dim=1, descending=True)
    looked_at, dropped = order[:, : kept - 1], order[:, kept - 1 :]
    before, patches = x[:, : encoder.leading], x[:, encoder.leading :]
    weights = row.gather(1, dropped).unsqueeze(-1).to(x.dtype)  # [B, N-K+1, 1]
    rest = (gather_tokens(patches, dropped) * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    x = torch.cat([before, gather_tokens(patches, looked_at), rest], dim=1)  # [B, P+K, D]
    for block in encoder.blocks[first:]:
        x = block(x)
    return encoder.read(x), looked_at


def smaller_grid(grid: tuple[int, int], kept: int) -> tuple[int, int]:
    """The grid (rows, columns) of the smallest image of this shape with at least ``kept`` patches: it costs no less
    than what keeps so many."""
    share = math.sqrt(kept / (grid[0] * grid[1]))
    rows, columns = (max(1, math.ceil(side * share - 1e-9)) for side in grid)
    return rows, columns


def smaller_tokens(encoder: VisionTransformer, images: Tensor, kept: int) -> Tensor:
    """Run the encoder on the image shrunk to at least ``kept`` patches, its positions resampled.

    Returns:
        normalised tokens [B, 1+K, D], what stands for the image first.
    """
    rows, columns = smaller_grid(encoder.grid, kept)
    side = encoder.patch_size
    shrink = Shrink((images.shape[2], images.shape[3]), (rows * side, columns * side)).to(images.device)
    positions = resize_position_embedding(encoder.patch_positions, encoder.grid, (rows, columns), antialias=True)
    patches = encoder.patch_embed(patchify(shrink(images), side)) + positions  # [B, K, D]
    return encoder.encode(encoder.with_leading(patches))


def merge_schedule(patches: int, kept: int, depth: int) -> list[int]:
    """How many tokens each block merges away: evenly, so that ``kept`` of N are left in the last; at most half."""
    left, schedule = patches, []
    for block in range(depth - 1):
        merged = min(-(-(left - kept) // (depth - 1 - block)), left // 2)
        schedule.append(merged)
        left -= merged
    return [*schedule, 0]


def merge_tokens(encoder: VisionTransformer, images: Tensor, kept: int) -> Tensor:
    """Between attention and perceptron of every block, average the patch tokens whose keys are most alike
    (ToMe, Bolya et al., arXiv 2210.09461). A token counts in the attention as often as it has patches.

    Returns:
        normalised tokens [B, 1+K, D], what stands for the image first; a K above what halving can reach is what it is.
    """
    x = encoder.embed(images)
    size = torch.ones_like(x[..., :1])  # [B, T, 1]: patches in a token
    for block, count in zip(encoder.blocks, merge_schedule(encoder.patches, kept, len(encoder.blocks)), strict=True):
        assert isinstance(block, Block)
        mixed, keys = attend_by_size(block.attn, block.norm1(x), size)
        x = x + block.drop_path(block.ls1(mixed))
        if count:
            x, size = merge(x, size, keys, count, encoder.leading)
        x = x + block.drop_path(block.ls2(block.mlp(block.norm2(x))))
    return encoder.read(x)


def attend_by_size(attention: Attention, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention in which a token of s patches weighs s times; and the mean key of each token, [B, T, d]."""
    batch, tokens, width = x.shape
    qkv = attention.qkv(x).reshape(batch, tokens, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)  # each [B, H, T, d]
    bias = size.log().transpose(1, 2).unsqueeze(1)  # [B, 1, 1, T]
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return attention.proj(mixed.transpose(1, 2).reshape(batch, tokens, width)), key.mean(dim=1)


def merge(x: Tensor, size: Tensor, keys: Tensor, count: int, leading: int = 1) -> tuple[Tensor, Tensor]:
    """Merge ``count`` patch tokens away: of every second one the most alike go into their best match among the others.

    Tokens [B, T, D] and sizes [B, T, 1] -> [B, T-count, D] and [B, T-count, 1]; the leading tokens stay first.
    """
    keys = torch.nn.functional.normalize(keys[:, leading:], dim=-1)
    alike, match = (keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)).max(dim=2)  # [B, T/2]: of every even its best odd
    order = alike.argsort(dim=1, descending=True)
    going, staying = order[:, :count], order[:, count:]
    weighted = x * size
    merged = []
    for part in (weighted, size):
        even, odd = part[:, leading::2], part[:, leading + 1 :: 2]
        target = match.gather(1, going).unsqueeze(-1).expand(-1, -1, part.shape[-1])
        odd = odd.scatter_add(1, target, gather_tokens(even, going))
        merged.append(torch.cat([part[:, :leading], gather_tokens(even, staying), odd], dim=1))
    return merged[0] / merged[1], merged[1]
