"""What a prediction from a selection of tokens costs, the choosing included: MACs as in ``method/cost.py``."""

from __future__ import annotations

import math

from torch import nn

from msmae.method.classifier import Classifier
from msmae.method.cost import Macs, blocks_macs, classifier_macs, head_macs, map_macs, weights_of
from msmae.method.vit import Block, VisionTransformer
from msmae.selection.locator import Glance, Locator, Shrink
from msmae.selection.reduction import early_block, merge_schedule, smaller_grid
from msmae.selection.selectors import Selection


def selection_macs(selection: Selection, kept: int) -> Macs:
    """One prediction from ``kept`` tokens, the choosing of them included."""
    model, encoder = selection.model, selection.model.encoder
    if selection.selector == "all":
        return classifier_macs(model)
    if selection.selector == "early":
        return early_macs(encoder, kept) + Macs(head_macs(model), 0)
    if selection.selector == "merge":
        return merge_macs(encoder, kept) + Macs(head_macs(model), 0)
    if selection.selector == "smaller":
        return smaller_macs(model, kept)
    patches = kept - selection.coarse
    cost = blocks_macs(encoder.blocks, encoder.leading + kept)
    embedding = patches * encoder.patch_embed.proj.weight.numel() + head_macs(model)
    cost += Macs(embedding, 0)
    if selection.glance is not None:
        cost += glance_macs(selection.glance, encoder)
    if selection.selector == "self":
        cost += map_macs((selection.guide or model).encoder)
    if selection.selector == "locator":
        assert selection.locator is not None
        cost += locator_macs(selection.locator, encoder)
    return cost


def smaller_macs(model: Classifier, kept: int) -> Macs:
    """One prediction from the image shrunk to at least ``kept`` patches."""
    grid, side = model.encoder.grid, model.encoder.patch_size
    small = smaller_grid(grid, kept)
    shrink = Shrink((grid[0] * side, grid[1] * side), (small[0] * side, small[1] * side))
    return classifier_macs(model, math.prod(small)) + Macs(shrink_macs(shrink, model.encoder.channels), 0)


def shrink_macs(shrink: Shrink, channels: int) -> float:
    """The two matrix products that average an image of so many channels."""
    (low, high), (wide, narrow) = shrink.after_and_before
    return float(channels * (high * wide * narrow + low * high * narrow))


def locator_macs(locator: Locator, encoder: VisionTransformer) -> Macs:
    """A score for every patch."""
    tokens, width = encoder.patches, locator.score.in_features
    a_patch: list[nn.Module] = [locator.near, locator.far, locator.score]
    embedding = weights_of(locator.embed)
    if isinstance(locator.embed, nn.Sequential):  # its first layer at every pixel, the others at every fourth
        embedding = locator.cell**2 * weights_of(locator.embed[0]) + (locator.cell // 2) ** 2 * weights_of(
            locator.embed[1:]
        )
    layers = tokens * (embedding + sum(weights_of(part) for part in a_patch)) + width**2
    return Macs(layers + shrink_macs(locator.shrink, encoder.channels), 0)


def glance_macs(glance: Glance, encoder: VisionTransformer) -> Macs:
    """The coarse tokens and their positions."""
    tokens = glance.grid[0] * glance.grid[1] * encoder.patch_embed.proj.weight.numel()
    positions = glance.grid[0] * glance.grid[1] * encoder.patches * encoder.width
    return Macs(tokens + positions + shrink_macs(glance.shrink, encoder.channels), 0)


def early_macs(encoder: VisionTransformer, kept: int) -> Macs:
    """The first blocks over all patches, one row of attention, the others over ``kept``."""
    first, tokens, blocks = early_block(len(encoder.blocks)), encoder.leading + encoder.patches, list(encoder.blocks)
    cost = Macs(encoder.patches * encoder.patch_embed.proj.weight.numel(), 0)
    cost += blocks_macs(nn.ModuleList(blocks[:first]), tokens)
    cost += Macs((tokens + 1) * encoder.width**2, tokens * encoder.width)  # the row
    return cost + blocks_macs(nn.ModuleList(blocks[first:]), encoder.leading + kept)


def merge_macs(encoder: VisionTransformer, kept: int) -> Macs:
    """Fewer tokens from block to block, and comparing the keys of one half of them with those of the other."""
    tokens = encoder.leading + encoder.patches
    cost = Macs(encoder.patches * encoder.patch_embed.proj.weight.numel(), 0)
    schedule = merge_schedule(encoder.patches, kept, len(encoder.blocks))
    for block, merged in zip(encoder.blocks, schedule, strict=True):
        assert isinstance(block, Block)
        patches = tokens - encoder.leading
        even, odd = (patches + 1) // 2, patches // 2
        products = 2 * tokens**2 * encoder.width + (even * odd * encoder.width / block.attn.heads if merged else 0)
        cost += Macs(tokens * weights_of(block.attn) + (tokens - merged) * weights_of(block.mlp), products)
        tokens -= merged
    return cost
