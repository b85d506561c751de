"""The proof of an export: the written file and the model answer the same real images, and the largest difference is
said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from msmae.data.manifest import read_manifest
from msmae.data.phantom import make_phantom
from msmae.data.reading.decoding import image_sources
from msmae.data.reading.images import Reading, load_images
from msmae.errors import UserError
from msmae.runs.cards import ModelCard

LARGEST = 1e-4
"""The difference of probabilities above which an export fails."""
IMAGES = 16
BATCHES = (1, 3)
"""Batch sizes that are tried beside that of all images."""

Answer = Callable[[Tensor], Tensor]


def images_of(run: Path, card: ModelCard) -> tuple[Tensor, str]:
    """Images [B, C, H, W] of the model's size, in the files' own units, and in words whose they are.

    They are test images of the run (else validation, else training images), evenly spread over the manifest. Where the
    run names none that are there, phantoms at the model's mean and spread take their place.
    """
    try:
        manifest = read_manifest(run / "manifest.csv")
        split = next(split for split in ("test", "val", "train") if len(manifest.ids(split)))
        ids = manifest.ids(split)
        chosen = manifest.select(ids[np.unique(np.linspace(0, len(ids) - 1, IMAGES).astype(int))])
        pixels = load_images(
            image_sources(chosen),
            size=card.image_size,
            channels=card.channels,
            reading=Reading(**card.reading),
            smallest=card.patch_size,
        )
    except (UserError, OSError, StopIteration):
        return phantoms(card), "phantom images (the run's own cannot be read here)"
    return torch.from_numpy(pixels.astype(np.float32)), f"{split} images of the run"


def phantoms(card: ModelCard) -> Tensor:
    """Phantoms of the model's size, at its mean and standard deviation."""
    with TemporaryDirectory() as folder:
        manifest = make_phantom(Path(folder) / "phantom", images=60, size=64)
        paths = [str(manifest.path(i)) for i in range(IMAGES)]
        grey = load_images(paths, size=card.image_size, channels=1).astype(np.float32)
    scaled = torch.from_numpy((grey - grey.mean()) / max(float(grey.std()), 1e-6))  # [B, 1, H, W]
    return scaled * torch.tensor(card.std).reshape(1, -1, 1, 1) + torch.tensor(card.mean).reshape(1, -1, 1, 1)


def largest_difference(images: Tensor, file: Answer, model: Answer) -> float:
    """The largest difference of probabilities, over one image, three, and all of them.

    Raises:
        UserError: it is larger than ``LARGEST``, or not a number.
    """
    largest = 0.0
    with torch.no_grad():
        for count in dict.fromkeys([*BATCHES, len(images)]):
            found, wanted = file(images[:count]), model(images[:count])
            if found.shape != wanted.shape:
                raise UserError(f"the file answers {tuple(found.shape)}, the model {tuple(wanted.shape)}")
            difference = float((found.double() - wanted.double()).abs().max())
            largest = max(largest, difference if np.isfinite(difference) else np.inf)
    if largest > LARGEST:
        raise UserError(
            f"the file's probabilities differ from the model's by {largest:.1g}, more than {LARGEST:g}",
            mend="report this with the command and the versions of torch and of the format's packages",
        )
    return largest
