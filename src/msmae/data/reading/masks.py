"""Masks as classes: index, palette and 0/255 files -> one array of class numbers, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msmae.data.reading.checks import by
from msmae.data.reading.images import Reading, fit_mask, read_image, read_mask, same_proportions
from msmae.errors import UserError

LISTED = 8
MOST_LAYERS = 8
"""Classes that may overlap: bits of the uint8 in which masks are kept."""


@dataclass(frozen=True)
class MaskRule:
    """What the numbers in mask files mean.

    ``classes``: with 2 or more, a pixel's number is its class, 0 the background. With 1 there is one class, written as
    any number but always the same one: it is kept as it is, so that the caller can see whether the files agree.
    ``any_value``: one class, and every pixel above 0 is inside (half of white in JPEG files).
    ``layers``: names of classes that may overlap, each with mask files of its own: class k is bit k of the number.
    ``healthy``: the samples that may lack a mask: there is nothing to outline in them.
    """

    classes: int = 1
    any_value: bool = False
    healthy: frozenset[int] = frozenset()
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.layers) > MOST_LAYERS:
            raise UserError(
                f"{len(self.layers)} classes that may overlap", mend=f"at most {MOST_LAYERS}: leave some out, or split"
            )


def read_class_mask(
    paths: Sequence[str | Path],
    rule: MaskRule,
    *,
    shape: tuple[int, int] | None = None,
    frame: int | None = None,
    axis: int | None = None,
    index: int | None = None,
    reading: Reading | None = None,
) -> np.ndarray:
    """Read the masks of one image and join them -> uint8 [H, W], numbers as the rule says.

    ``shape`` is the image's (H, W): a mask at another resolution is brought to it by its nearest pixels.

    Raises:
        UserError: the mask is in colour, holds numbers that are no class (they are listed), has other proportions than
            its image, or two masks of the image give a pixel two classes.
    """
    plain = replace(reading or Reading(), window="none")
    joined: np.ndarray | None = None
    for path in paths:
        numbers = _numbers(path, frame=frame, axis=axis, index=index, reading=plain)  # [H, W]
        mask = _checked(numbers, rule, where=str(path))
        expected = shape or (mask.shape if joined is None else joined.shape)
        if mask.shape != expected:
            if not same_proportions(mask.shape, expected):
                raise UserError(
                    f"the mask is {by(mask.shape)} pixels (height x width) and its image {by(expected)}",
                    where=str(path),
                    mend="a mask must have the proportions of its image",
                )
            mask = fit_mask(mask, size=(expected[0], expected[1]))
        if joined is not None and ((joined != mask) & (joined > 0) & (mask > 0)).any():
            raise UserError("two masks of the image give a pixel two classes", where=str(path), mend="mend one of them")
        joined = mask if joined is None else np.maximum(joined, mask)
    if joined is None:
        raise UserError("no mask files were given", mend="name at least one")
    return joined


def read_layers(
    masks: Sequence[tuple[str, str | Path]],
    rule: MaskRule,
    *,
    shape: tuple[int, int] | None = None,
    frame: int | None = None,
    axis: int | None = None,
    index: int | None = None,
    reading: Reading | None = None,
) -> np.ndarray:
    """Read the masks of one image, each with the class it is of -> uint8 [H, W], bit k set where class k is.

    Several masks of a class are joined; a class without a mask is nowhere in the image.

    Raises:
        UserError: as :func:`read_class_mask`; each file holds one value beside 0, unless any value will do.
    """
    joined: np.ndarray | None = None
    of_one = replace(rule, classes=1, layers=())
    for name, path in masks:
        plane = {"frame": frame, "axis": axis, "index": index}
        if rule.any_value:
            inside = read_mask([path], shape=shape, **plane, reading=reading) > 0
        else:
            inside = read_class_mask([path], of_one, shape=shape, **plane, reading=reading) > 0
        shape = shape or (inside.shape[0], inside.shape[1])
        layer = inside.astype(np.uint8) << rule.layers.index(name)
        joined = layer if joined is None else joined | layer
    if joined is None:
        raise UserError("no mask files were given", mend="name at least one")
    return joined


def split_layers(masks: np.ndarray, classes: int, *, overlapping: bool) -> np.ndarray:
    """Masks [B, H, W] as a store holds them -> bool [B, classes, H, W]. One class: wherever the number is not 0."""
    if overlapping:
        return (masks[:, None] >> np.arange(classes, dtype=np.uint8)[None, :, None, None]) & 1 > 0
    if classes == 1:
        return masks[:, None] > 0
    return np.asarray(masks[:, None] == np.arange(1, classes + 1, dtype=np.uint8)[None, :, None, None])


def _numbers(
    path: str | Path, *, frame: int | None, axis: int | None, index: int | None, reading: Reading
) -> np.ndarray:
    """The numbers of a mask file, [H, W]: of a palette its indices; of lossy JPEG 0 and 255."""
    indices = _palette_indices(Path(path))
    if indices is not None:
        return indices
    values = read_image(path, frame=frame, axis=axis, index=index, reading=reading)  # [C, H, W]
    if (values != values[:1]).any():
        raise UserError(
            "the mask is in colour, and colours are no class numbers",
            where=str(path),
            mend="save it as one channel or with a palette: 0 for the background, 1 for the first class, ...",
        )
    lossy = Path(path).suffix.lower() in (".jpg", ".jpeg")
    return np.where(values[0] >= 128, 255, 0) if lossy else values[0]


def _palette_indices(path: Path) -> np.ndarray | None:
    """The indices of a PNG, GIF or BMP with a palette; None for any other file."""
    from PIL import Image

    if path.suffix.lower() not in (".png", ".gif", ".bmp") or not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            return np.asarray(image) if image.mode == "P" else None
    except OSError:
        return None  # `read_image` says what is wrong with it


def _checked(numbers: np.ndarray, rule: MaskRule, *, where: str) -> np.ndarray:
    """The numbers as uint8, if the rule knows them."""
    found = np.unique(numbers)
    listed = ", ".join(f"{value:g}" for value in found[:LISTED]) + (", ..." if len(found) > LISTED else "")
    if rule.classes > 1:
        if not np.isin(found, np.arange(rule.classes + 1)).all():
            raise UserError(
                f"the mask holds the values {listed}, and the classes are 0 (background) to {rule.classes}",
                where=where,
                mend="name every class with --segment.classes, or mend the mask",
            )
        return numbers.astype(np.uint8)
    if (found > 0).sum() > 1 or found.min() < 0:
        raise UserError(
            f"the mask holds the values {listed}, and one class needs one value beside 0",
            where=where,
            mend="name the classes with --segment.classes a,b,..., or say --segment.mask_values any: above 0 is inside",
        )
    return np.where(numbers > 0, np.minimum(numbers, 255), 0).astype(np.uint8)
