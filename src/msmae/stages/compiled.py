"""Compiling the network that a stage trains: what ``--trainer.compile`` asks for."""

from __future__ import annotations

import torch
from torch import nn

from msmae.errors import UserError


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Compile the forward pass of a network in place, for fixed numbers of tokens; its weights keep their names.

    The arms of two views call the parts of their network themselves: for them nothing is compiled in pre-training.
    Nor is anything in fine-tuning for msmae-evidence on its own draw.

    Args:
        network: what the stage trains.
        device: where it will be trained; whether anything can be compiled is tried there.

    Raises:
        UserError: nothing can be compiled on this machine, said before the training begins.
    """
    try:
        torch.compile(_smallest)(torch.ones(2, device=device))
    except RuntimeError as error:
        raise UserError(
            f"nothing can be compiled here: {str(error).strip().splitlines()[0]}",
            where="--trainer.compile",
            mend="install a C++ compiler (Debian, Ubuntu: apt-get install g++), or leave it out",
        ) from error
    network.compile(dynamic=False)


def _smallest(x: torch.Tensor) -> torch.Tensor:
    return x + 1
