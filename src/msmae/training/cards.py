"""The cards of the models that a training makes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from msmae.data.opening import reading_of
from msmae.runs.cards import ModelCard
from msmae.training.prepare import Prepared

DECODER_WIDTH = 64
"""Channels of the light decoder of a segmenter."""


def card_of(prepared: Prepared, kind: Literal["pretrained", "classifier", "segmenter"]) -> ModelCard:
    """The card of the model of a kind that these settings make."""
    settings, manifest = prepared.settings, prepared.manifest
    model, segment = settings.model, settings.segment
    assert model.patch_size is not None
    classes, multilabel, pool = list(manifest.classes), manifest.multilabel, "cls"
    if kind != "segmenter":  # which may begin from nothing: no arm
        pool = prepared.arm.pool
    decoder: dict[str, Any] = {}
    if kind == "pretrained":
        decoder = {"width": model.decoder_width, "depth": model.decoder_depth, "heads": model.decoder_heads}
    elif kind == "classifier":
        pool = pool if prepared.arm.frozen else settings.finetune.pool or pool
        decoder = {"remembers": len(prepared.ids("train"))} if prepared.arm.frozen == "knn" else {}
    else:
        classes, multilabel = list(segment.class_names), bool(manifest.mask_classes)
        decoder = {"decoder": segment.decoder, "width": DECODER_WIDTH, "deep_supervision": False}
    return ModelCard(
        kind=kind,
        method=prepared.method,
        classes=classes,
        multilabel=multilabel,
        image_size=prepared.image_size,
        patch_size=model.patch_size,
        channels=prepared.channels,
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        pool=pool,
        mean=prepared.mean,
        std=prepared.std,
        decoder=decoder,
        normalise_pixels=settings.pretrain.normalise_pixels and kind != "segmenter",
        reading=asdict(reading_of(settings)),
        numbers=prepared.store.images.dtype.name,
        encoder=prepared.parts,
        start=prepared.origin,
    )
