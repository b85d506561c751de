"""Compiling the network that a stage trains: what ``--trainer.compile`` asks for."""

from __future__ import annotations

import torch
from torch import nn

from msmae.errors import UserError


def compile_network(network: nn.Module) -> None:
    """Compile a network's forward pass in place, for fixed numbers of tokens; its weights keep their names.

    Raises:
        UserError: nothing can be compiled on this machine, said before the training begins.
    """
    try:
        torch.compile(_smallest)(torch.ones(2))
    except RuntimeError as error:
        raise UserError(
            f"nothing can be compiled here: {str(error).strip().splitlines()[0]}",
            where="--trainer.compile",
            mend="install a C++ compiler (Debian, Ubuntu: apt-get install g++), or leave it out",
        ) from error
    network.compile(dynamic=False)


def _smallest(x: torch.Tensor) -> torch.Tensor:
    return x + 1
