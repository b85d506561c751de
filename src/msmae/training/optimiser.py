"""What the optimiser is given: every trained parameter with its learning rate and its weight decay; and the average of
the weights that it makes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, WeightAveraging
from torch import Tensor, nn


def layerwise_groups(
    model: nn.Module, rate: float, weight_decay: float, layer_decay: float = 1.0, *, encoder: float = 1.0
) -> list[dict[str, Any]]:
    """Parameter groups of AdamW, one for every layer and kind: rates fall from layer to layer towards the image (BEiT,
    arXiv 2106.08254), and weight decay is for matrices only.

    Args:
        rate: learning rate of what stands above the encoder's blocks.
        layer_decay: each block's rate over that of the block above it; 1: the same rate for all.
        encoder: the share of its rate that each layer of the encoder up to its last block gets.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    top = 1 + max((layer_of(name, 0) for name, _ in trained), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in trained:
        layer = layer_of(name, top) if (layer_decay, encoder) != (1, 1) else top
        groups.setdefault((layer, decayed(name, parameter)), []).append(parameter)
    rates = {layer: rate * layer_decay ** (top - layer) * (encoder if layer < top else 1) for layer, _ in groups}
    return [
        {"params": group, "lr": rates[layer], "weight_decay": weight_decay if decays else 0.0}
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


def averaging_of(network: nn.Module, decay: float, *, warm: bool = False) -> list[Callback]:
    """What averages the weights that are validated and kept; nothing where it is switched off or would do harm.

    Layers that keep statistics of what they saw (batch normalisation) keep those of the weights as they are, which fit
    no average of weights: in a short training such a network answers at chance.

    Args:
        warm: the decay begins small and grows with the steps, so that the average is not behind in a short training.
    """
    if not decay:
        return []
    if any(getattr(layer, "track_running_stats", False) for layer in network.modules()):
        logging.getLogger("msmae").info("the weights are not averaged: batch statistics fit them as they are")
        return []
    if not warm:
        return [EMAWeightAveraging(decay=decay)]

    def average(mean: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        return new.lerp(mean, min(decay, (1 + float(steps)) / (10 + float(steps))))

    return [WeightAveraging(avg_fn=average)]


@contextmanager
def averaged_weights(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[None]:
    """The module with its averaged weights meanwhile, where they are averaged; else as it is."""
    averaging = [c for c in trainer.callbacks if isinstance(c, WeightAveraging) and c._average_model is not None]  # type: ignore[attr-defined]
    for callback in averaging:
        callback._swap_models(module)
    try:
        yield
    finally:
        for callback in averaging:
            callback._swap_models(module)
