"""Weights laid out once as the processor multiplies them, not anew at every call.

The processor's products read a weight in blocks. A plain ``nn.Linear`` lays it out at every call, which takes as long
for 50 tokens as for 12,000: with one image at a time, up to a quarter of it (docs/keep.md).
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Packed(nn.Module):
    """A linear layer for prediction: it shares the weight it was made of, and lays it out anew when it changed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.pack()

    def pack(self) -> None:
        """Lay the weight out as it is now."""
        self.made_of = self.state()
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())

    def state(self) -> tuple[int, int, torch.dtype]:
        """What changes whenever the weight does: its version (one made in inference mode has none), its place in
        memory, its dtype.
        """
        version = 0 if self.weight.is_inference() else self.weight._version
        return version, self.weight.data_ptr(), self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if torch.is_autocast_enabled("cpu") or x.dtype != self.weight.dtype or self.weight.device.type != "cpu":
            return F.linear(x, self.weight, self.bias)
        if self.state() != self.made_of:
            self.pack()
        out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.blocks, self.bias, "none", [], "")
        return out


def packed(network: Network) -> Network:
    """The network for prediction: the same parameters, its linear layers packed; itself where nothing can be packed."""
    if not can_pack(network):
        return network
    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    quick = copy.deepcopy(network, shared)
    for module in list(quick.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Linear):
                setattr(module, name, Packed(part))
    return quick


def can_pack(network: nn.Module) -> bool:
    """On an x86 processor, in float32, or in bfloat16 where it has the instructions."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not torch.cpu._is_avx2_supported():
        return False
    kinds = {(parameter.device.type, parameter.dtype) for parameter in network.parameters()}
    if kinds == {("cpu", torch.bfloat16)}:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return kinds == {("cpu", torch.float32)}
