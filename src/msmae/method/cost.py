"""Multiply-accumulate operations, counted from the layers' shapes (1 GMAC = 10^9; 1 MAC = 2 FLOPs).

The paper's figure (74.08 % fewer) counts linear and convolution layers and embeds every patch; ``embed_all=True``
counts like that. What this library runs embeds only the patches it keeps.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from msmae.method.classifier import Classifier
from msmae.method.ensemble import Ensemble
from msmae.method.msmae import MSMAE
from msmae.method.vit import Block, VisionTransformer


class Macs(NamedTuple):
    """MACs for one image: in linear and convolution layers, and in the two attention products."""

    linear: float
    attention: float

    def __add__(self, other: object) -> Macs:
        assert isinstance(other, Macs)
        return Macs(self.linear + other.linear, self.attention + other.attention)

    @property
    def total(self) -> float:
        return self.linear + self.attention


def weights_of(module: nn.Module) -> int:
    """Entries of all weight matrices in a module: the MACs it spends on one token."""
    return sum(p.numel() for p in module.parameters() if p.ndim >= 2)


def blocks_macs(blocks: nn.ModuleList, tokens: int) -> Macs:
    """Transformer blocks over a number of tokens (class token included)."""
    linear = attention = 0.0
    for block in blocks:
        assert isinstance(block, Block)
        linear += tokens * weights_of(block)
        attention += 2 * tokens**2 * block.attn.proj.in_features  # query x key, and weights x value
    return Macs(linear, attention)


def encoder_macs(encoder: VisionTransformer, kept: int | None = None, *, embed_all: bool = False) -> Macs:
    """The encoder over the leading tokens and ``kept`` patches (all when None)."""
    kept = encoder.patches if kept is None else kept
    blocks = blocks_macs(encoder.blocks, encoder.leading + kept)
    embedded = encoder.patches if embed_all else kept
    return Macs(blocks.linear + embedded * encoder.patch_embed.proj.weight.numel(), blocks.attention)


def head_macs(model: Classifier | MSMAE) -> int:
    """What the head multiplies for one image: its weights; of another kind than linear, what it says."""
    if isinstance(model.head, nn.Linear):
        return model.head.weight.numel()
    macs: int = model.head.macs  # type: ignore[assignment]
    return macs


def classifier_macs(model: Classifier, kept: int | None = None, *, embed_all: bool = False) -> Macs:
    """One prediction from ``kept`` patches (all when None)."""
    if isinstance(model, Ensemble):
        one = classifier_macs(model.members()[0], kept, embed_all=embed_all)
        return Macs(model.passes * one.linear, model.passes * one.attention)
    encoder = encoder_macs(model.encoder, kept, embed_all=embed_all)
    linear, attention = encoder.linear + head_macs(model), encoder.attention
    if model.attentive is not None:
        tokens = 1 + (model.encoder.patches if kept is None else kept)
        linear += weights_of(model.attentive.key_value)
        attention += 2 * tokens * model.encoder.width * model.attentive.heads
    return Macs(linear, attention)


def msmae_macs(model: MSMAE, kept: int, masked: int) -> Macs:
    """One pre-training forward pass: encoder over the kept, decoder over kept and masked patches."""
    encoder = encoder_macs(model.encoder, kept)
    decoder = blocks_macs(model.decoder_blocks, 1 + kept + masked)
    ends = (
        (1 + kept) * weights_of(model.decoder_embed) + masked * weights_of(model.decoder_pred) + weights_of(model.head)
    )
    return Macs(encoder.linear + decoder.linear + ends, encoder.attention + decoder.attention)


def map_macs(encoder: VisionTransformer) -> Macs:
    """The pass that makes one map: all blocks but the last, then one query and all keys of the last."""
    tokens = encoder.leading + encoder.patches
    blocks = blocks_macs(nn.ModuleList(list(encoder.blocks)[:-1]), tokens)
    embedding = encoder.patches * encoder.patch_embed.proj.weight.numel()
    row = (tokens + 1) * encoder.width**2
    return Macs(blocks.linear + embedding + row, blocks.attention + tokens * encoder.width)
