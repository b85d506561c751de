"""A classifier as one ONNX file: images in the files' own units in, class probabilities out, nothing of ours needed.

Normalising, choosing the patches and the softmax are inside; how many tokens are kept is fixed, so every shape but the
batch is static. Calibration stays outside: its numbers are in the file's metadata.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msmae.errors import UserError
from msmae.files import write_whole
from msmae.selection.selectors import Selection

EXTRA = "the ONNX extra is not installed"
STATIC = ("all", "grid", "self", "early", "merge", "locator")
"""Selectors that can be exported: what they choose depends on the image alone."""


class Exported(nn.Module):
    """Images [B, C, H, W] in the files' own units -> probabilities [B, classes], from a fixed number of tokens."""

    def __init__(
        self, selection: Selection, *, kept: int, mean: list[float], std: list[float], multilabel: bool
    ) -> None:
        super().__init__()
        self.selection, self.kept, self.multilabel = selection, kept, multilabel
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        logits: Tensor = self.selection((images - self.mean) / self.std, self.kept)
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=1)


@contextmanager
def only_errors_of(name: str) -> Iterator[None]:
    """Let a library's log say errors only."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def write_onnx(path: Path, model: Exported, *, image_shape: tuple[int, int, int], metadata: dict[str, Any]) -> None:
    """Write the model for images [batch, C, H, W] of this shape and any batch size; ``metadata`` goes along as JSON.

    Raises:
        UserError: the packages that write ONNX are missing, or the selector draws at random.
    """
    if model.selection.selector not in STATIC:
        raise UserError(
            f"the selector '{model.selection.selector}' cannot be exported", where="selector", mend="choose another"
        )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        mend = "where msmae was cloned: .venv/bin/pip install -e '.[onnx]'"
        raise UserError(f"{EXTRA}: {error}", mend=mend) from error
    model = model.eval().requires_grad_(False)
    example = torch.zeros(2, *image_shape)
    with warnings.catch_warnings(), only_errors_of("torch.onnx"):  # it warns of packages that nothing here needs
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
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
