"""What an exported file computes: images in the files' own units in, calibrated probabilities out, as one torch module.

Normalising, choosing the patches, the softmax and the calibration are inside. How many tokens are kept is fixed, so
every shape but the batch is static.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from msmae.errors import UserError
from msmae.inference.model import Keep, Model, calibration_at, kept_tokens, selection_with, share_and_selector
from msmae.inference.segmentation import SegmentationModel
from msmae.method.segmenter import Segmenter
from msmae.runs.cards import ModelCard
from msmae.selection.selectors import Selection

STATIC = ("all", "grid", "self", "early", "merge", "smaller", "locator")
"""Selectors that can be exported: what they choose depends on the image alone."""
TINY = math.log(torch.finfo(torch.float32).tiny)
SURE = 36.0436533891  # the logit of the largest double below 1, at which calibration cuts (statistics/calibration.py)


class ExportedClassifier(nn.Module):
    """Images [B, C, H, W] in the files' own units -> calibrated probabilities [B, classes] from a fixed number of
    tokens.

    ``calibration``: a card's (``msmae.statistics.calibration.Calibrator``); empty: the network's own probabilities.
    """

    def __init__(self, selection: Selection, *, kept: int, card: ModelCard, calibration: dict[str, Any]) -> None:
        super().__init__()
        self.selection, self.kept = selection, kept
        self.multilabel, self.calibrated = card.multilabel, bool(calibration)
        self.register_buffer("mean", torch.tensor(card.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).reshape(1, -1, 1, 1))
        self.register_buffer("scale", torch.tensor(calibration.get("scale", [1.0]), dtype=torch.float32))  # [classes]
        self.register_buffer("bias", torch.tensor(calibration.get("bias", [0.0]), dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        return self.probabilities(self.selection((images - self.mean) / self.std, self.kept))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [B, classes] -> probabilities, calibrated as ``Model.calibrate`` does it."""
        assert isinstance(self.scale, Tensor)
        assert isinstance(self.bias, Tensor)
        if not self.calibrated:
            return logits.sigmoid() if self.multilabel else logits.softmax(dim=1)
        if self.multilabel:
            rounded = torch.where(logits.sigmoid() >= 1, SURE, logits.clamp(-SURE, SURE))  # float32 ends at 1
            return (rounded * self.scale + self.bias).sigmoid()
        return (logits.log_softmax(dim=1).clamp(min=TINY) * self.scale + self.bias).softmax(dim=1)


class ExportedSegmenter(nn.Module):
    """Images [B, C, H, W] in the files' own units -> probabilities [B, classes, H, W], the background left out."""

    def __init__(self, network: Segmenter, *, card: ModelCard) -> None:
        super().__init__()
        self.network, self.classes = network, len(card.classes)
        self.register_buffer("mean", torch.tensor(card.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        logits: Tensor = self.network((images - self.mean) / self.std)
        exclusive = logits.shape[1] > self.classes
        return logits.softmax(dim=1)[:, 1:] if exclusive else logits.sigmoid()


def exported(
    model: Model | SegmentationModel, keep: Keep = 1.0, selector: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The module of a model, in evaluation mode, and what the file says of it (``described``).

    Raises:
        UserError: a share or selector that cannot be exported, or one of a segmenter.
    """
    card = model.card
    if isinstance(model, SegmentationModel):
        if keep != 1 or selector:
            raise UserError("outlining needs every patch", where="--keep", mend="leave it out")
        network: nn.Module = ExportedSegmenter(model.network, card=card)
        return network.eval().requires_grad_(False), described(card)
    share, name = share_and_selector(model, keep, selector)
    if name not in STATIC:
        raise UserError(f"the selector '{name}' cannot be exported", where="selector", mend="choose another")
    selection = selection_with(model.network, model.prepared, name)
    calibration = calibration_at(card, share, name)
    network = ExportedClassifier(selection, kept=kept_tokens(selection, share), card=card, calibration=calibration)
    return network.eval().requires_grad_(False), {
        **described(card),
        "thresholds": card.thresholds,
        "calibration": calibration,
        "calibrated": bool(calibration),
        "keep": {"selector": name, "keep": share},
    }


def described(card: ModelCard) -> dict[str, Any]:
    """What a user of the file must know: the classes, and how a file becomes the input."""
    return {
        "task": "segmentation" if card.kind == "segmenter" else "classification",
        "classes": card.classes,
        "multilabel": card.multilabel,
        "resize": {
            "size": list(card.image_size),  # height, width
            "mode": "bilinear",
            "antialias": True,
            "keep_proportions": False,
            "rounded": card.numbers != "float32",
        },
        "pixels": {
            "channels": card.channels,
            "numbers": card.numbers,
            "units": "the file's own, not scaled; DICOM: display brightness 0 to 1 unless the window is none",
        },
        "reading": card.reading,
        "msmae_method": card.method,
    }
