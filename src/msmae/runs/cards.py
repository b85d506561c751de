"""The card of a saved model: what the weights cannot say, and what of it no card of ours can say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from msmae.errors import UserError, visible

FORMAT_VERSION = 1
KINDS = ("classifier", "segmenter", "pretrained")
LARGEST = {"patch_size": 4096, "channels": 1024, "width": 65536, "depth": 1024, "heads": 4096, "members": 100}
"""What these numbers are at most: beyond lies no network that a machine could hold."""
LARGEST_SIDE = 65536


@dataclass(frozen=True)
class ModelCard:
    """What the weights cannot say: the architecture, the classes, and how images are brought to the encoder's scale.

    ``mean`` and ``std`` are per channel, in the file's own units. ``kind``: "classifier", "segmenter" or "pretrained".
    """

    kind: str
    method: str
    classes: list[str]
    multilabel: bool
    image_size: tuple[int, int]
    patch_size: int
    channels: int
    width: int
    depth: int
    heads: int
    pool: str
    mean: list[float]
    std: list[float]
    decoder: dict[str, Any] = field(default_factory=dict)
    """What follows the encoder: of a segmenter and of pre-training the decoder; of a vote of neighbours, how many
    images it remembers; else nothing."""
    normalise_pixels: bool = False
    reading: dict[str, Any] = field(default_factory=dict)
    """How files were turned into numbers (``msmae.data.reading.images.Reading``)."""
    calibration: dict[str, Any] = field(default_factory=dict)
    """What makes the network's probabilities honest (``msmae.statistics.calibration.Calibrator``); empty: nothing."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Class -> calibrated probability from which it is answered (``msmae.statistics.answers``); empty: the largest."""
    numbers: str = ""
    """The type of the numbers learned from (uint8, uint16, int16, float32); "" in models saved before it was kept."""
    keep: dict[str, Any] = field(default_factory=dict)
    """How the model selects tokens (``msmae.runs.checkpoint``), and the choice of `msmae budget`."""
    encoder: dict[str, Any] = field(default_factory=dict)
    """What of the encoder's architecture a plain one does not have (``VisionTransformer``): registers, SwiGLU, ..."""
    start: dict[str, Any] = field(default_factory=dict)
    """The pretrained encoder that training began with: name, path, checksum, licence; empty: none."""
    members: int = 1
    """Classifiers that answer together (``method.ensemble``)."""
    mirrored: bool = False
    """The answers to an image and to its mirror image are averaged."""
    sha256: str = ""
    """Of model.safetensors beside the card; "" in models saved before it was kept."""
    format_version: int = FORMAT_VERSION

    @property
    def usual(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of the training images' channels; where they are not known, what images are normalised
        with, which may be a pretrained encoder's."""
        mean, std = self.start.get("seen", (self.mean, self.std))
        return mean, std


def checked_card(content: dict[str, Any], path: Path) -> ModelCard:
    """The card that a file's names and values are. Raises ``UserError``, naming the first value that none can have."""

    def refuse(name: str) -> UserError:
        return UserError(
            f"the model's description cannot be read: {name} is missing or wrong",
            where=str(path),
            mend="copy the model again",
        )

    known = {entry.name: entry for entry in fields(ModelCard)}
    for name in sorted(content.keys() - known.keys()):
        raise refuse(name)
    plain = {"str": str, "bool": bool, "int": int}
    for name, entry in known.items():
        kind = str(entry.type)
        if name not in content:
            if name == "members":
                continue  # an older card: one
            if kind.startswith(("dict", "str", "bool")) and name not in ("kind", "method", "pool", "multilabel"):
                continue
            raise refuse(name)
        value = content[name]
        if kind in plain and not (isinstance(value, plain[kind]) and isinstance(value, bool) == (kind == "bool")):
            raise refuse(name)
        if kind.startswith("dict") and not isinstance(value, dict):
            raise refuse(name)
        if name in LARGEST and not 1 <= value <= LARGEST[name]:
            raise refuse(name)
    size = content["image_size"]
    if not (
        isinstance(size, list) and len(size) == 2 and all(_whole(side) and 1 <= side <= LARGEST_SIDE for side in size)
    ):
        raise refuse("image_size")
    if content["kind"] not in KINDS:
        raise refuse("kind")
    classes = content["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) and visible(name) == name for name in classes):
        raise refuse("classes")
    for name, least in (("mean", -math.inf), ("std", 0.0)):
        values = content[name]
        right = isinstance(values, list) and len(values) == content["channels"]
        if not right or not all(_number(value) and value > least for value in values):
            raise refuse(name)
    if not all(_number(value) for value in content.get("thresholds", {}).values()):
        raise refuse("thresholds")
    for part in (content.get("decoder", {}), content.get("encoder", {})):
        if any(_whole(value) and not 0 <= value <= LARGEST.get(name, 2**31) for name, value in part.items()):
            raise refuse("decoder or encoder")
    return ModelCard(**{**content, "image_size": tuple(size)})


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return (_whole(value) or isinstance(value, float)) and math.isfinite(value)
