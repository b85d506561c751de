"""A frozen encoder by its name, its file or its run, and how images reach it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmae.config import Settings
from msmae.data.manifest import Manifest
from msmae.data.reading.images import Reading
from msmae.data.store import ImageStore
from msmae.encoders.cache import locate
from msmae.encoders.spec import build_encoder
from msmae.encoders.weights import Weights, load_into, open_weights
from msmae.errors import UserError
from msmae.inference.features import Frozen
from msmae.inference.inputs import check_numbers
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import load_model
from msmae.training.decide import sampled_sizes
from msmae.training.start import scale_of, size_from, span_of


@dataclass(frozen=True)
class Found:
    """An encoder to be frozen: of a run (``card``), or of a file (``weights``)."""

    size: tuple[int, int]
    """(height, width) in pixels."""
    patch_size: int
    channels: int | None
    """None: as in the files."""
    reading: Reading | None
    card: ModelCard | None = None
    model: Path | None = None
    weights: Weights | None = None

    def frozen(self, store: ImageStore, ids: np.ndarray) -> Frozen:
        """The encoder with its weights, at this size; of a file, the values that are 0 and 1 are those of these ids."""
        if self.model is not None:
            network, card = load_model(self.model)
            check_numbers(card, store.images.dtype.name, [str(self.model)])
            return Frozen(network.encoder, card.mean, card.std)
        assert self.weights is not None
        channels = int(store.images.shape[1])
        encoder = build_encoder(self.weights.spec, self.size, channels=channels)
        load_into(encoder, self.weights)
        scale = scale_of(self.weights.spec, store, ids)
        mean, std = store.mean_std(ids) if scale is None else scale[:2]
        return Frozen(encoder, mean, std)

    def by_these(self, store: ImageStore, ids: np.ndarray) -> str:
        """What of the normalisation follows from these very images, in a few words; ``""`` where nothing does."""
        if self.weights is None:
            return ""
        scale = scale_of(self.weights.spec, store, ids)
        if scale is None:
            return "their mean and deviation"
        fixed = store.images.dtype == np.uint8 or span_of(store, ids) == (0.0, 1.0)
        return "" if fixed else scale[2]


def find_frozen(source: str, manifest: Manifest, *, image_size: int | None, settings: Settings) -> Found:
    """The encoder that ``source`` names. Raises ``UserError`` where there is none, or the size does not suit it."""
    run = Path(source)
    for folder in (run / "model", run / "pretrained", run):
        if ((folder / "config.json").is_file() and (run / "config.yaml").is_file()) or is_model(folder):
            network_card = load_model(folder)[1]
            size = tuple(network_card.image_size)
            if image_size is not None and size != (image_size, image_size):
                raise UserError(
                    f"the run's encoder sees images of {size[0]} x {size[1]} px",
                    where="--image_size",
                    mend="leave it out",
                )
            reading = Reading(**network_card.reading) if network_card.reading else None
            return Found(
                (size[0], size[1]), network_card.patch_size, network_card.channels, reading, network_card, folder
            )
    weights = open_weights(locate(source)).folded()
    patch = weights.spec.patch_size
    if image_size is not None and image_size % patch:
        raise UserError(
            f"{image_size} px is no multiple of the encoder's patch of {patch} px",
            where="--image_size",
            mend=f"give {max(1, round(image_size / patch)) * patch}",
        )
    if image_size is not None:
        size = (image_size, image_size)
    else:
        size = size_from(sampled_sizes(manifest, Reading()), limit=settings.model.image_limit, patch=patch)
    return Found((size[0], size[1]), patch, None, None, weights=weights)


def is_model(folder: Path) -> bool:
    """Whether a folder is a model that this library saved."""
    card = folder / "config.json"
    return card.is_file() and '"format_version"' in card.read_text(encoding="utf-8", errors="replace")
