"""Images as a model is given them: arrays or files in, checked batches in the files' own units out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msmae.data.reading.images import ImageSource, Reading, fit_image, load_images, read_source
from msmae.data.tables.listing import some
from msmae.errors import UserError
from msmae.runs.cards import ModelCard

Images = Tensor | np.ndarray | Sequence[str | Path]


def in_batches(images: Images, batch_size: int) -> Iterator[Images]:
    """The images, a batch at a time; one path is a list of one. Raises ``UserError`` where there is none."""
    if isinstance(images, (str, Path)):
        images = [images]
    if len(images) == 0:
        raise UserError("no images were given", mend="give at least one")
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size]


def read_batch(images: Images, card: ModelCard, *, size: tuple[int, int] | None) -> Tensor:
    """Float [B, channels, H, W] in the files' own units: arrays as they are, files at ``size`` (None: at their own).

    Raises:
        UserError: a list of arrays, another shape, values that are not finite, files that cannot be read, of another
            number type than the model learned from, or, at their own size, of several sizes.
    """
    if not isinstance(images, (Tensor, np.ndarray)):
        if isinstance(images[0], (Tensor, np.ndarray)):
            raise UserError("a list of arrays", mend="stack them into one [B, channels, height, width]")
        if not isinstance(images[0], (str, Path)):
            raise UserError(
                f"{type(images[0]).__name__} is neither a path nor an array",
                mend="give paths, or one array [B, channels, height, width] in the files' own units",
            )
        paths, reading = [str(path) for path in images], Reading(**card.reading)
        if size is None:
            images = read_alike(paths, card, reading)
        else:
            patch = card.patch_size
            images = load_images(paths, size=size, channels=card.channels, reading=reading, smallest=patch)
        check_numbers(card, images.dtype.name, paths)
    if isinstance(images, np.ndarray) and not images.flags.writeable:
        images = images.copy()  # torch warns of sharing what may not be written
    batch = torch.as_tensor(images).float()
    check_images(batch, channels=card.channels)
    return batch


def read_alike(paths: list[str], card: ModelCard, reading: Reading) -> np.ndarray:
    """Files of one size, read at it: [B, channels, H, W]."""
    arrays = [read_source(ImageSource(path), reading=reading) for path in paths]
    sizes = {(array.shape[1], array.shape[2]) for array in arrays}
    if len(sizes) > 1:
        raise UserError("the images have different sizes", mend="predict them one at a time")
    for array, path in zip(arrays, paths, strict=True):
        check_numbers(card, array.dtype.name, [path])
    return np.stack([fit_image(array, size=next(iter(sizes)), channels=card.channels) for array in arrays])


def check_numbers(card: ModelCard, found: str, paths: list[str]) -> None:
    """Raise ``UserError`` for files of another number type than was learned from: their values mean other things.

    An 8-bit export of a 16-bit image has been windowed; a photograph of 16 bits is 256 times as bright.
    """
    if card.numbers and found != card.numbers:
        way = "originals, not pictures made of them"
        if card.numbers == "uint8":
            way = "pictures of 8 bits, made as the training images were (of DICOM: with the same window)"
        raise UserError(
            f"the files hold {found} numbers, and the model learned from {card.numbers}",
            where=some(paths),
            mend=f"give {way}; or train on files like these",
        )


def check_images(batch: Tensor, *, channels: int) -> None:
    """Raise ``UserError`` unless the batch is [B, channels, H, W] of finite numbers."""
    if batch.ndim != 4 or batch.shape[1] != channels or 0 in batch.shape:
        raise UserError(f"images of shape {tuple(batch.shape)}", mend=f"give [B, {channels}, height, width]")
    if not torch.isfinite(batch).all():
        raise UserError("the images hold values that are not finite", mend="remove NaN and infinite values")
