"""What the optimiser is given: every trained parameter with its learning rate and its weight decay."""

from __future__ import annotations

import re
from typing import Any

from torch import nn


def layerwise_groups(
    model: nn.Module, rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Parameter groups of AdamW, one for every layer and kind: rates fall from layer to layer towards the image (BEiT,
    arXiv 2106.08254), and weight decay is for matrices only.

    Args:
        rate: learning rate of what stands above the encoder's blocks.
        layer_decay: each block's rate over that of the block above it; 1: the same rate for all.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    top = 1 + max((layer_of(name, 0) for name, _ in trained), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in trained:
        layer = layer_of(name, top) if layer_decay != 1 else top
        groups.setdefault((layer, decayed(name, parameter)), []).append(parameter)
    return [
        {"params": group, "lr": rate * layer_decay ** (top - layer), "weight_decay": weight_decay if decays else 0.0}
        for (layer, decays), group in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


def layer_of(name: str, top: int) -> int:
    """0 for the encoder's embedding, 1.. for its blocks, ``top`` for its final norm and all else."""
    block = re.search(r"\bencoder\.blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return 0 if re.search(r"\bencoder\.(patch_embed|cls_token|reg_token|pos_embed)", name) else top


def decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to weight matrices; not to biases, norms, tokens and positions."""
    return parameter.ndim > 1 and not name.endswith(("_token", "pos_embed"))
