"""Masks as classes: index, palette and 0/255 files -> one array of class numbers, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msmae.data.reading.arrays import split_reference
from msmae.data.reading.checks import by
from msmae.data.reading.images import WHOLE, Plane, Reading, fit_mask, read_image, same_proportions
from msmae.data.reading.pictures import open_picture
from msmae.data.reading.volumes import check_alike, is_nifti
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


INSIDE = MaskRule(any_value=True)
"""One class: 1 wherever a mask has any value."""


def read_mask(
    masks: Sequence[str | Path | tuple[str, str | Path]],
    rule: MaskRule = INSIDE,
    *,
    image: str = "",
    shape: tuple[int, int] | None = None,
    plane: Plane = WHOLE,
    reading: Reading | None = None,
) -> np.ndarray:
    """Read the masks of one image and join them -> uint8 [H, W], numbers as the rule says.

    ``masks`` are files, or (class, file); under a rule with ``layers`` each is of its class, and bit k is set where
    class k is. By default a pixel is 1 inside and 0 outside. ``image`` is the image's file: a volume's masks must lie
    where it does. ``shape`` is the image's (H, W): a mask at another resolution is brought to it by its nearest pixels.
    Windows are for images, and do not apply.

    Raises:
        UserError: no mask, one in colour where its numbers are classes, numbers that are no class (they are listed),
            other proportions or axes than the image, or two masks that give a pixel two classes.
    """
    plain = replace(reading or Reading(), window="none")
    of_one = replace(rule, classes=1, layers=())
    joined: np.ndarray | None = None
    for name, path in [mask if isinstance(mask, tuple) else ("", mask) for mask in masks]:
        if is_nifti(Path(image)) and is_nifti(Path(path)):
            check_alike(Path(image), Path(path))
        mask = _one_mask(path, of_one if rule.layers else rule, plane=plane, reading=plain)  # [H, W]
        shape = shape or (mask.shape[0], mask.shape[1])
        mask = _fitted(mask, shape, where=str(path))
        if rule.layers:
            mask = np.left_shift((mask > 0).astype(np.uint8), np.uint8(rule.layers.index(name)))
        elif joined is not None and ((joined != mask) & (joined > 0) & (mask > 0)).any():
            raise UserError("two masks of the image give a pixel two classes", where=str(path), mend="mend one of them")
        joined = mask if joined is None else np.bitwise_or(joined, mask)
    if joined is None:
        raise UserError("no mask files were given", mend="name at least one")
    return joined


def _one_mask(path: str | Path, rule: MaskRule, *, plane: Plane, reading: Reading) -> np.ndarray:
    """uint8 [H, W] of one file: its numbers, if the rule knows them; 0 and 1 where any value will do.

    Any value: inside where a channel is above 0; in lossy JPEG files, where it is at least half of white (128), because
    compression leaves small values outside.
    """
    shown = _drawn_in_alpha(path, limit=reading.max_pixels)
    if shown is not None:
        return np.asarray(shown if rule.any_value else shown * np.uint8(255))
    if not rule.any_value:
        return _checked(_numbers(path, plane=plane, reading=reading), rule, where=str(path))
    values = read_image(path, plane=plane, reading=reading)  # [C, H, W]
    inside = values >= 128 if _is_jpeg(path) else values > 0
    return np.asarray(np.any(inside, axis=0), dtype=np.uint8)


def _drawn_in_alpha(path: str | Path, *, limit: int) -> np.ndarray | None:
    """uint8 [H, W], 1 where a PNG or WebP with an alpha channel is opaque; None where its colours say what is inside.

    A mask drawn in transparency alone (one colour throughout, usually white) would otherwise be the whole image.
    Raises UserError where colours and transparency both vary, and say different things.
    """
    if Path(path).suffix.lower() not in (".png", ".webp") or not Path(path).is_file():
        return None
    pixels: np.ndarray | None = None
    with suppress(UserError), open_picture(Path(path), limit=limit) as image:  # `read_image` says what is wrong with it
        if image.mode in ("RGBA", "LA", "PA"):
            pixels = np.asarray(image.convert("RGBA"))
    if pixels is None:
        return None
    alpha, inside = pixels[..., 3] >= 128, (pixels[..., :3] > 0).any(axis=2)
    if alpha.all():
        return None
    if inside.all() or not inside.any():
        return alpha.astype(np.uint8)
    if not (inside & ~alpha).any():
        return None
    raise UserError(
        "the mask's colours and its transparency say different things",
        where=str(path),
        mend="save it without the alpha channel: 0 outside, 255 inside",
    )


def _fitted(mask: np.ndarray, shape: tuple[int, int], *, where: str) -> np.ndarray:
    """The mask [H, W] at the resolution of its image. Raises ``UserError`` for other proportions."""
    if mask.shape == shape:
        return mask
    if not same_proportions(mask.shape, shape):
        raise UserError(
            f"the mask is {by(mask.shape)} pixels (height x width) and its image {by(shape)}",
            where=where,
            mend="a mask must have the proportions of its image",
        )
    return fit_classes(mask, size=shape, overlapping=False)


def fit_classes(mask: np.ndarray, *, size: tuple[int, int], overlapping: bool) -> np.ndarray:
    """``fit_mask`` of uint8 [H, W], but no class is lost: one that falls between the pixels that are taken keeps the
    pixel that holds most of it, or the nearest that is not the only one of another class. Otherwise an image with a
    small lesion would become one without.

    ``overlapping``: class k is bit k of the number.
    """
    fitted = fit_mask(mask, size=size)
    if not (mask.shape[0] > size[0] or mask.shape[1] > size[1]):
        return fitted
    numbers = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).astype(np.uint8)
    wanted = [np.uint8(1 << bit) for bit in range(8)] if overlapping else numbers[numbers > 0].tolist()
    for number in wanted:
        there, kept = ((of & number) > 0 if overlapping else of == number for of in (mask, fitted))
        if kept.any() or not there.any():
            continue
        rows, columns = (at * new // old for at, new, old in zip(there.nonzero(), size, mask.shape, strict=True))
        most = np.unravel_index(np.bincount(rows * size[1] + columns).argmax(), size)
        if overlapping:
            fitted[most] |= number
            continue
        held = np.bincount(fitted.ravel(), minlength=256)
        free = np.argwhere((fitted == 0) | (held[fitted] > 1))  # [k, 2]
        if len(free):
            fitted[tuple(free[((free - most) ** 2).sum(axis=1).argmin()])] = number
    return fitted


def split_layers(masks: np.ndarray, classes: int, *, overlapping: bool) -> np.ndarray:
    """Masks [B, H, W] as a store holds them -> bool [B, classes, H, W]. One class: wherever the number is not 0."""
    if overlapping:
        return (masks[:, None] >> np.arange(classes, dtype=np.uint8)[None, :, None, None]) & 1 > 0
    if classes == 1:
        return masks[:, None] > 0
    return np.asarray(masks[:, None] == np.arange(1, classes + 1, dtype=np.uint8)[None, :, None, None])


def _numbers(path: str | Path, *, plane: Plane, reading: Reading) -> np.ndarray:
    """The numbers of a mask file, [H, W]: of a palette its indices; of lossy JPEG 0 and 255."""
    indices = _palette_indices(Path(path), limit=reading.max_pixels)
    if indices is not None:
        return indices
    values = read_image(path, plane=plane, reading=reading)  # [C, H, W]
    if (values != values[:1]).any():
        raise UserError(
            "the mask is in colour, and colours are no class numbers",
            where=str(path),
            mend="save it as one channel or with a palette: 0 for the background, 1 for the first class, ...",
        )
    return np.where(values[0] >= 128, 255, 0) if _is_jpeg(path) else values[0]


def _palette_indices(path: Path, *, limit: int) -> np.ndarray | None:
    """The indices of a PNG, GIF or BMP with a palette; None for any other file."""
    if path.suffix.lower() not in (".png", ".gif", ".bmp") or not path.is_file():
        return None
    with suppress(UserError), open_picture(path, limit=limit) as image:  # `read_image` says what is wrong with it
        return np.asarray(image) if image.mode == "P" else None
    return None


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


def _is_jpeg(path: str | Path) -> bool:
    if split_reference(path) is not None:
        return False
    with open(path, "rb") as file:
        return file.read(3) == b"\xff\xd8\xff"
