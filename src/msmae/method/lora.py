"""Low-rank adaptation (Hu et al., arXiv 2106.09685): attention's weights stay, and a product of two thin matrices that
is added to them learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from msmae.method.vit import Attention, VisionTransformer


class LowRank(nn.Module):
    """A weight [out, in] plus ``up @ down``, of rank r; ``up`` begins at zero, so that nothing has changed yet."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, into = weight.shape
        self.down = nn.Parameter(torch.randn(rank, into, device=weight.device) * into**-0.5)  # [r, in]
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))  # [out, r]

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_lora(encoder: VisionTransformer, rank: int) -> None:
    """Freeze the encoder's blocks, embedding and positions, and let a rank-``rank`` change of every ``qkv`` and
    ``proj`` learn. The norms go on learning: they are few and follow the new images.
    """
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("norm" in name)
    for layer in attention_layers(encoder):
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))


def merge_lora(encoder: VisionTransformer) -> None:
    """Add what was learned to the weights, which again have their own names: the model is as fast as before."""
    for layer in attention_layers(encoder):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    for parameter in encoder.parameters():
        parameter.requires_grad_(True)


def attention_layers(encoder: VisionTransformer) -> list[nn.Linear]:
    """``qkv`` and ``proj`` of every block."""
    attentions = [module for module in encoder.modules() if isinstance(module, Attention)]
    return [layer for attention in attentions for layer in (attention.qkv, attention.proj)]


def freeze_first(encoder: VisionTransformer, blocks: int) -> None:
    """Stop learning in the embedding, the positions and the first ``blocks`` blocks: no gradient is computed for them.

    Raises:
        ValueError: the encoder has fewer blocks.
    """
    if not 0 <= blocks <= len(encoder.blocks):
        raise ValueError(f"{blocks} blocks of {len(encoder.blocks)}")
    if blocks == 0:
        return
    for name, parameter in encoder.named_parameters():
        if not name.startswith(("blocks.", "norm.")):
            parameter.requires_grad_(False)
    for block in encoder.blocks[:blocks]:
        block.requires_grad_(False)
