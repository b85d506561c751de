"""Filling a network with tensors by name: all of them, of the right shapes, or none and an error that names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from msmae.errors import UserError

NAMED = 8
"""Tensors that do not fit, named in an error."""


def misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What keeps tensors from filling a network, in one line with the names; empty where nothing does."""
    problems = [f"missing {name}" for name in sorted(expected.keys() - state.keys())]
    problems += [f"unexplained {name}" for name in sorted(state.keys() - expected.keys())]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return "; ".join(problems[:NAMED]) + more


def fit_state(network: nn.Module, state: Mapping[str, Tensor], *, where: Path, mend: str) -> None:
    """Fill a network with the tensors of a file.

    Raises:
        UserError: a tensor is missing, unexplained, of another shape or not finite; nothing of the network was changed.
    """
    if problems := misfits(state, network.state_dict()):
        raise UserError(f"the weights do not fit the model: {problems}", where=str(where), mend=mend)
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{name} holds values that are not finite", where=str(where), mend=mend)
    network.load_state_dict(dict(state))
