"""One image file of any format -> an array [C, H, W] in the file's own units, and its fit to the size a model wants.

What the numbers mean, by reader:

| file                                   | array                               | numbers                               |
|----------------------------------------|-------------------------------------|---------------------------------------|
| PNG, JPEG, BMP, WebP, GIF, PNM (8 bit) | uint8, 1 (grey) or 3 (RGB) channels | 0..255, display intensity             |
| 1-bit images                           | uint8, 1 channel                    | 0 or 255                              |
| ``file.npz#train/17``                  | the array's own type                | row 17 of ``train_images``, as stored |

Colour is always RGB. An alpha channel is dropped (the colour under it is kept), a palette is looked up, and the EXIF
orientation is applied, so that "up" is where the camera said it was.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from msmae.errors import UserError

DTYPES = ("uint8", "uint16", "int16", "float32")
"""The types an image can have; anything else is converted to float32 by the reader."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Grey from red, green, blue (ITU-R BT.601), as Pillow and JPEG define it."""

_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000")
_PILLOW_MODES = {"L": "L", "LA": "L", "La": "L", "1": "L"}  # every other 8-bit mode becomes RGB
_PILLOW_LOCK = threading.Lock()
_ARRAY_LOCK = threading.Lock()
_REFERENCE = re.compile(r"^(?P<file>.*\.npz)#(?P<array>[^/]+)/(?P<row>\d+)$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What decides the numbers a file is read as; part of the store's key and of a model's settings."""

    max_pixels: int = 200_000_000
    """Refuse images of more pixels than this: a small file may unfold to more than the memory holds."""


@dataclass(frozen=True)
class ImageSource:
    """One two-dimensional image: a file (or ``file.npz#train/17``) and, inside a volume or film, which plane of it."""

    path: str
    frame: int | None = None
    """Frame of a multi-frame file, counted from 0."""
    axis: int | None = None
    """Axis of a volume across which it is cut: 0, 1 or 2."""
    index: int | None = None
    """Slice along ``axis``, counted from 0."""


def read_image(
    path: str | Path,
    *,
    frame: int | None = None,
    axis: int | None = None,
    index: int | None = None,
    reading: Reading | None = None,
) -> np.ndarray:
    """Read one image as [C, H, W] in the file's own units (the table above): uint8, uint16, int16 or float32.

    ``frame`` chooses from a multi-frame file, ``axis`` and ``index`` cut a volume. Raises UserError, naming the file
    and the reason, for whatever is missing, empty, truncated, too large, not an image or not two-dimensional.
    """
    reading = reading or Reading()
    reference = split_reference(path)
    if reference is not None:
        file, array, row = reference
        return _read_npz(file, array=array, row=row)
    _check_file(Path(path))
    return _read_pillow(Path(path), reading=reading)


def split_reference(path: str | Path) -> tuple[Path, str, int] | None:
    """``"file.npz#train/17"`` -> (``file.npz``, ``"train"``, 17); None for an ordinary path."""
    match = _REFERENCE.match(str(path))
    return None if match is None else (Path(match["file"]), match["array"], int(match["row"]))


def count_channels(source: ImageSource) -> int:
    """Channels ``read_image`` would return, from the header where the format allows it."""
    if split_reference(source.path) is not None:
        return int(read_image(source.path).shape[0])
    _check_file(Path(source.path))
    with _open_pillow(Path(source.path)) as image:
        return 1 if image.mode in _PILLOW_MODES else 3


def read_mask(
    paths: Sequence[str | Path],
    *,
    shape: tuple[int, int] | None = None,
    frame: int | None = None,
    axis: int | None = None,
    index: int | None = None,
    reading: Reading | None = None,
) -> np.ndarray:
    """Read one or several masks of the same image and join them (OR) -> uint8 [H, W], 1 inside and 0 outside.

    A pixel is inside where any channel is above 0; in lossy JPEG files, where it is at least half of white (128),
    because compression leaves small values outside. ``shape`` is the image's (H, W): a mask of another size raises
    UserError.
    """
    if not paths:
        raise UserError("no mask files were given", mend="name at least one")
    masks: list[np.ndarray] = []
    for path in paths:
        values = read_image(path, frame=frame, axis=axis, index=index, reading=reading)  # [C, H, W]
        masks.append(np.any(values >= 128 if _is_jpeg(Path(path)) else values > 0, axis=0))  # [H, W]
        expected = shape or masks[0].shape
        if masks[-1].shape != expected:
            raise UserError(
                f"the mask is {_by(masks[-1].shape)} pixels (height x width) and its image {_by(expected)}",
                where=str(path),
                mend="a mask must have the size of its image",
            )
    return np.asarray(np.any(masks, axis=0), dtype=np.uint8)


def fit_image(array: np.ndarray, *, size: tuple[int, int], channels: int, where: str | None = None) -> np.ndarray:
    """Resize [C, H, W] to ``size`` (height, width) and ``channels``, keeping the type: [channels, *size].

    Bilinear, antialiased when shrinking, in float32; whole-number types are rounded once, at the end. One channel is
    repeated, three become one by luminance; any other change of channels raises UserError. An image that fits already
    is returned as it is.
    """
    if array.shape == (channels, *size):
        return array
    planes = array
    if array.shape[0] == 3 and channels == 1:
        planes = np.tensordot(np.asarray(LUMINANCE, np.float32), array.astype(np.float32), axes=1)[None]  # [1, H, W]
    elif array.shape[0] not in (1, channels):
        raise UserError(
            f"the image has {array.shape[0]} channels and {channels} are wanted",
            where=where,
            mend=f"set channels to {array.shape[0]}, or convert the images",
        )
    fitted = np.stack([_resize(plane, size) for plane in planes])  # [C, *size]
    if np.issubdtype(array.dtype, np.integer):
        fitted = np.rint(fitted)
    return np.repeat(fitted.astype(array.dtype), channels // len(fitted), axis=0)


def fit_mask(mask: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask [H, W] to ``size`` by taking the nearest pixel; its values stay what they are."""
    rows = ((np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).astype(np.int64)
    return np.asarray(mask[rows[:, None], columns])


def load_image(source: ImageSource, *, size: tuple[int, int], channels: int, reading: Reading) -> np.ndarray:
    """Read and fit one image: [channels, *size]. The one path by which pixels reach a store or a prediction."""
    array = read_image(source.path, frame=source.frame, axis=source.axis, index=source.index, reading=reading)
    return fit_image(array, size=size, channels=channels, where=source.path)


def load_images(
    sources: Sequence[str | Path | ImageSource],
    *,
    size: tuple[int, int],
    channels: int,
    reading: Reading | None = None,
) -> np.ndarray:
    """Read and fit images for prediction -> [B, channels, *size], equal to what a store of the same settings holds.

    Every image that cannot be read is named in one UserError.
    """
    wanted = [source if isinstance(source, ImageSource) else ImageSource(str(source)) for source in sources]
    if not wanted:
        raise UserError("no images were given", mend="name at least one image file")

    def attempt(source: ImageSource) -> np.ndarray | UserError:
        try:
            return load_image(source, size=size, channels=channels, reading=reading or Reading())
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        loaded = list(pool.map(attempt, wanted))
    errors = [item for item in loaded if isinstance(item, UserError)]
    if errors:
        raise UserError("\n".join([f"{len(errors)} of {len(wanted)} images cannot be read:", *map(str, errors)]))
    images = [item for item in loaded if not isinstance(item, UserError)]
    kinds = sorted({str(image.dtype) for image in images})
    if len(kinds) > 1:
        raise UserError(
            f"the images hold numbers of different kinds ({', '.join(kinds)})",
            mend="give images of one bit depth, so that their numbers mean the same",
        )
    return np.stack(images)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UserError("no such image", where=str(path), mend="check the path in the manifest")
    if path.is_dir():
        raise UserError("a folder stands where an image was expected", where=str(path))
    if path.stat().st_size == 0:
        raise UserError("the file is empty (0 bytes)", where=str(path), mend="copy it again from its source")


def _open_pillow(path: Path) -> Any:
    """Pillow's lazy image. Its own size limit is a module global; ours is checked by the reader, per call."""
    from PIL import Image, UnidentifiedImageError

    with _PILLOW_LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=_PILLOW_FORMATS)
        except UnidentifiedImageError:
            raise UserError("not an image in a format that can be read", where=str(path)) from None
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"the image cannot be opened ({error})", where=str(path)) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read_pillow(path: Path, *, reading: Reading) -> np.ndarray:
    from PIL import ImageOps

    with _open_pillow(path) as image:
        width, height = image.size
        if width * height > reading.max_pixels:
            raise UserError(
                f"the image unfolds to {_by((height, width))} pixels, more than the limit of {reading.max_pixels:,}",
                where=str(path),
                mend="raise max_pixels if that is meant",
            )
        try:
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.asarray(image.convert(_PILLOW_MODES.get(image.mode, "RGB")))  # [H, W] or [H, W, 3]
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise UserError(f"the image is damaged ({error})", where=str(path), mend="copy it again") from error
    return channels_first(pixels)


def _read_npz(path: Path, *, array: str, row: int) -> np.ndarray:
    where = f"{path}#{array}/{row}"
    _check_file(path)
    status = path.stat()
    with _ARRAY_LOCK:  # one thread decompresses, the others find it done
        images = _npz_images(str(path), array, status.st_size, status.st_mtime_ns)
    if images.ndim not in (3, 4):
        raise UserError(f"the array has shape {images.shape}, not images x height x width (x channels)", where=where)
    if row >= len(images):
        raise UserError(f"the array has {len(images)} images, so no row {row}", where=where)
    return channels_first(images[row])


@lru_cache(maxsize=3)  # the train, val and test arrays of one file; size and time make a changed file a new entry
def _npz_images(path: str, array: str, size: int, modified: int) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as members:
            for name in (f"{array}_images", array):
                if name in members.files:
                    return np.asarray(members[name])
            held = ", ".join(members.files)
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged archive
        raise UserError(f"not a readable .npz file ({error})", where=path, mend="copy it again") from error
    raise UserError(f"no array {array}_images or {array}; the file holds {held}", where=path)


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C] of any number type -> contiguous [C, H, W] of one of ``DTYPES``."""
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    native = planes.astype(planes.dtype.newbyteorder("="), copy=False)
    if native.dtype == bool:
        native = native.astype(np.uint8) * np.uint8(255)
    if native.dtype.name not in DTYPES:
        native = native.astype(np.float32)
    return np.ascontiguousarray(native)


def _resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] of any number type -> float32 ``size``. Pillow's bilinear filter widens when shrinking (antialiasing)."""
    from PIL import Image

    values = plane.astype(np.float32)
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _is_jpeg(path: Path) -> bool:
    if split_reference(path) is not None:
        return False
    with open(path, "rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
