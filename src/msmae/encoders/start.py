"""What a pretrained start decides of the settings: the encoder's architecture, and how to fine-tune from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from msmae.config import ModelSettings, Settings, make_settings, read_settings
from msmae.encoders.cache import locate, read_origin
from msmae.encoders.weights import Weights, open_weights
from msmae.errors import UserError

LARGEST = 168
"""Side in pixels that the image size does not exceed where it is open: beyond it accuracy hardly grew, and time did."""
RECIPE = {
    "presentations": 16_000,  # 8 epochs of 2,000 images
    "epochs": None,
    "batch_size": 64,
    "base_lr": 1e-3,
    "weight_decay": 0.05,
    "layer_decay": 0.75,
    "drop_path": 0.1,
    "label_smoothing": 0.1,
    "crop_scale": (0.6, 1.0),
}
"""Fine-tuning from a pretrained start: tried on brain tumours with DINOv2 ViT-S/14, 92 to 95 % balanced accuracy."""
HARDWARE = ("auto", "cpu", "gpu")
"""Presets that say what the machine can do; any other says how to train as well, and keeps its word."""


def layer_of_start(weights: Weights, preset: str) -> dict[str, dict[str, Any]]:
    """What a pretrained start decides of the settings: over the preset, under everything else that is given."""
    spec = weights.spec
    model: dict[str, Any] = {
        "width": spec.width, "depth": spec.depth, "heads": spec.heads, "patch_size": spec.patch_size,
    }  # fmt: skip
    if preset not in HARDWARE:
        return {"model": model}
    return {"model": {**model, "image_limit": LARGEST}, "finetune": dict(RECIPE)}


def settings_with_start(
    init: str | None, preset: str, config: str | None, given: dict[str, Any]
) -> tuple[Settings, Weights | None]:
    """The settings of a verb, and the start that ``--init`` names: a name of the catalogue, a file, a folder, another
    run; None where it is None.

    Raises:
        UserError: there is no such start, it cannot be used, or a setting contradicts it; nothing else has been done.
    """
    if init is None:
        return make_settings(preset, config, given), None
    said = {**(read_settings(Path(config)) if config else {}).get("model", {}), **dict(given.get("model", {}))}
    weights = open_start(init, heads=said.get("heads"))
    settings = make_settings(preset, config, given, start=layer_of_start(weights, preset))
    check_model(settings.model, weights)
    return settings, weights


def open_start(init: str, *, heads: int | None = None) -> Weights:
    """The weights of a name, a file, a folder or a run, LayerScale folded, with what is known of their origin."""
    weights = open_weights(locate(init), heads=heads).folded()
    origin = read_origin(weights.files.files[0].parent)
    return dataclasses.replace(
        weights,
        name=str(origin.get("name", "")),
        licence=str(origin.get("licence", "")),
        limited=bool(origin.get("limited", False)),
    )


def channels_of(start: Weights | None) -> int | None:
    """The channels that a start takes; None where there is none."""
    return None if start is None else start.spec.channels


def check_model(model: ModelSettings, weights: Weights) -> None:
    """Raise ``UserError`` where a setting contradicts the weights."""
    for name in ("width", "depth", "heads", "patch_size"):
        given, says = getattr(model, name), getattr(weights.spec, name)
        if given != says:
            raise UserError(
                f"model.{name} is {given}, and that of the encoder is {says}",
                where=f"--init {weights.path}",
                mend=f"leave model.{name} out",
            )
