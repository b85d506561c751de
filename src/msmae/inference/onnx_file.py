"""A model as one ONNX file, which needs nothing of ours."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msmae.errors import UserError, installing
from msmae.files import write_whole

EXTRA = "the ONNX extra is not installed"
MEND = installing("onnx")


@contextmanager
def only_errors_of(*names: str) -> Iterator[None]:
    """Let the logs of libraries say errors only."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def write_onnx(path: Path, network: nn.Module, *, image_shape: tuple[int, int, int], metadata: dict[str, Any]) -> None:
    """Write a module for ``images`` [batch, C, H, W] of this shape and any batch size; ``metadata`` goes along as JSON.

    Raises:
        UserError: the packages that write ONNX are missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{EXTRA}: {error}", mend=MEND) from error
    example = torch.zeros(2, *image_shape)
    with (
        warnings.catch_warnings(),
        only_errors_of("torch.onnx", "onnxscript", "onnx_ir"),
    ):  # it warns of packages that nothing here needs
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    written = program.model_proto
    for name, value in metadata.items():
        written.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    write_whole(path, written.SerializeToString())


class OnnxFile:
    """A written file, run by onnxruntime on the CPU. Raises ``UserError`` where onnxruntime is missing."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"{EXTRA}: {error}", mend=MEND) from error
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in the files' own units -> probabilities."""
        (found,) = self.session.run(["probabilities"], {"images": images.numpy().astype(np.float32)})
        return torch.from_numpy(found)
