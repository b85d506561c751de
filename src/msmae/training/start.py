"""A pretrained start and the images: whether they fit, at what size and scale they reach it; and its weights loaded.

The encoder's mean and deviation are for images in 0..1. Whole numbers of 8 bits are 0..255; numbers that lie in 0..1
already (windowed DICOM) are left; of anything else (16 bits, modality units) the 0.5th and 99.5th percentile of the
training pixels are 0 and 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msmae.data.store import ImageStore
from msmae.encoders.spec import EncoderSpec
from msmae.encoders.weights import LoadReport, Weights, load_into
from msmae.errors import UserError
from msmae.files import write_whole
from msmae.method.vit import VisionTransformer

FEWEST = 8
"""Patches along a side that smaller images are enlarged to."""


def scale_of(spec: EncoderSpec, store: ImageStore, ids: np.ndarray) -> tuple[list[float], list[float], str] | None:
    """The encoder's mean and deviation per channel, in the files' own units, and in words what was taken for 0..1; None
    where the encoder brings none.

    Grey images reach an encoder of three channels by the averages of its channels (``encoders.weights.for_grey``).
    """
    if spec.mean is None or spec.std is None:
        return None
    low, high = span_of(store, ids)
    channels = int(store.images.shape[1])
    mean, std = np.array(spec.mean), np.array(spec.std)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    words = f"{low:g} to {high:g} taken for 0 to 1"
    return (low + mean * (high - low)).tolist(), (std * (high - low)).tolist(), words


def span_of(store: ImageStore, ids: np.ndarray) -> tuple[float, float]:
    """The values that are 0 and 1 to the encoder, in the files' own units."""
    if store.images.dtype == np.uint8:
        return 0.0, 255.0
    some = ids[np.unique(np.linspace(0, len(ids) - 1, min(len(ids), 256)).astype(int))]
    pixels = store.fetch(some).astype(np.float64)
    if pixels.min() >= 0 and 0.25 < pixels.max() <= 1:
        return 0.0, 1.0
    low, high = np.percentile(pixels, (0.5, 99.5))
    if not high > low:
        raise UserError("almost every pixel of the training images has the same value", mend="look at the images")
    return float(low), float(high)


def size_from(sizes: list[tuple[int, int]], *, limit: int, patch: int) -> tuple[int, int]:
    """(height, width): the largest multiples of the patch not beyond the files' own size and the limit; files smaller
    than a few patches are enlarged to these.
    """
    least = min(limit, FEWEST * patch)
    if len(set(sizes)) == 1 and least <= min(sizes[0]) and max(sizes[0]) <= limit:
        height, width = sizes[0]
    else:
        own = int(np.median([min(size) for size in sizes]))
        height = width = min(limit, max(own, least))
    return max(1, height // patch) * patch, max(1, width // patch) * patch


def fill(encoder: VisionTransformer, weights: Weights, run: Path | None = None) -> LoadReport:
    """Load a start into an encoder; what became of every tensor is written to RUN/loading.txt."""
    report = load_into(encoder, weights)
    if run is not None:
        write_whole(run / "loading.txt", f"encoder weights from {weights.path}\n{report.lines()}\n")
    return report
