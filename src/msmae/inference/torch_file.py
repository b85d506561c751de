"""A model as a ``torch.export`` program (.pt2): it runs with PyTorch alone, in Python or in C++."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msmae.files import write_whole

DESCRIBED = "msmae.json"


def write_torch(path: Path, network: nn.Module, *, image_shape: tuple[int, int, int], metadata: dict[str, Any]) -> None:
    """Write a module for images [batch, C, H, W] of this shape and any batch size; ``metadata`` is the file
    ``msmae.json`` inside.
    """
    program = torch.export.export(
        network, (torch.zeros(2, *image_shape),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    stream = io.BytesIO()  # of a file on a full disk torch aborts
    torch.export.save(program, stream, extra_files={DESCRIBED: json.dumps(metadata)})
    write_whole(path, stream.getvalue())


def read_torch(path: Path) -> nn.Module:
    """The module of a written file."""
    with path.open("rb") as stream:
        module: nn.Module = torch.export.load(stream).module()
    return module
