"""One image of any format -> an array [C, H, W] in the file's own units, and its fit to the size a model wants.

What the numbers mean, by file; the format is told by the content, not by the name:

| file                                | array                        | numbers                                         |
|-------------------------------------|------------------------------|-------------------------------------------------|
| PNG, JPEG, BMP, WebP, GIF of 8 bits | uint8, grey or RGB           | 0..255, display intensity (``pictures.py``)     |
| 16-bit PNG, TIFF                    | as stored, 1 to n channels   | as stored (``pictures.py``)                     |
| DICOM                               | float32, grey or RGB         | 0..1, display brightness; or, with the window   |
|                                     |                              | ``none``, modality units (``dicom.py``)         |
| NIfTI                               | float32, grey                | the file's units (``volumes.py``)               |
| ``file.npz#train/17``               | the array's type             | row 17 of ``train_images``, as stored           |

A source's ``offset`` is then added (float32; DeepLesion's 16-bit PNGs are Hounsfield units plus 32768), and a window
asked for by name or numbers turns any grey image of more than 8 bits into display brightness 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmae.data.reading.arrays import array_shape, read_npz, split_reference
from msmae.data.reading.checks import by, check_file
from msmae.data.reading.dicom import brightness, count_dicom_channels, is_dicom, parse_window, read_dicom
from msmae.data.reading.door import door
from msmae.data.reading.pictures import TIFF_MAGIC, count_picture_channels, count_tiff_channels, read_picture, read_tiff
from msmae.data.reading.volumes import is_nifti, read_nifti
from msmae.data.tables.listing import all_or_file
from msmae.errors import UserError

DTYPES = ("uint8", "uint16", "int16", "float32")
"""The types an image can have; a reader converts any other to float32."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Grey from red, green and blue (ITU-R BT.601), as Pillow and JPEG define it."""


@dataclass(frozen=True)
class Reading:
    """What decides the numbers a file is read as; part of the store's key and of a model's settings."""

    window: str = "file"
    """Grey levels: ``file`` (what DICOM files ask for), ``none`` (modality units), ``lung``, ``brain``, ``bone``,
    ``soft-tissue``, ``centre,width``, ``low..high``, or ``manifest`` (each image's own, from its column ``window``)."""
    replace_nonfinite: float | None = None
    """The number to put where a floating-point image has NaN or infinity; by default such an image is refused."""
    max_pixels: int = 300_000_000
    """Refuse images (and volumes) of more pixels: a small file may unfold to more than the memory holds."""


@dataclass(frozen=True)
class Plane:
    """Which two-dimensional image of a file that holds several; None where there is no choice."""

    frame: int | None = None
    """Frame of a film, page of a TIFF, volume of a 4-D NIfTI; counted from 0."""
    axis: int | None = None
    """Axis across which a volume is cut: 0 left-right, 1 back-front, 2 feet-head."""
    index: int | None = None
    """Slice along ``axis``, counted from 0."""


WHOLE = Plane()


@dataclass(frozen=True)
class ImageSource:
    """One two-dimensional image: a file (or ``file.npz#train/17``), a plane of it, and what its numbers need."""

    path: str
    plane: Plane = WHOLE
    offset: float = 0.0
    """Added to the numbers read (not of DICOM files, which say their units themselves)."""
    window: str = ""
    """This image's own window, as ``low..high``; used where ``Reading.window`` is ``manifest``."""


def read_image(path: str | Path, *, plane: Plane = WHOLE, reading: Reading | None = None) -> np.ndarray:
    """Read one image as [C, H, W], uint8, uint16, int16 or float32; the table above says what the numbers mean.

    ``plane`` chooses from a film or a multi-page file, or cuts a volume. Raises UserError, naming the file and the
    reason, for whatever is missing, empty, truncated, too large, no image or not two-dimensional.
    """
    return read_source(ImageSource(str(path), plane), reading=reading)


def read_source(source: ImageSource, *, reading: Reading | None = None) -> np.ndarray:
    """As ``read_image``, from an ``ImageSource``."""
    reading = reading or Reading()
    window, limit = source.window if reading.window == "manifest" else reading.window, reading.max_pixels
    if not window:
        raise UserError("the manifest gives no window for this image", where=source.path, mend="fill the column window")
    asked, kind = parse_window(window), _kind(source.path)
    with door(source.path):
        pixels = _read(source, kind, window=window, limit=limit)
    pixels = _finite(pixels, replacement=reading.replace_nonfinite, where=source.path)
    if kind == "dicom":  # says its units itself, and is windowed on the way
        return pixels
    if source.offset:
        pixels = pixels.astype(np.float32) + np.float32(source.offset)
    return pixels if asked is None else _windowed(pixels, window, asked, where=source.path)


def _read(source: ImageSource, kind: str, *, window: str, limit: int) -> np.ndarray:
    """[C, H, W] by the reader for this kind of file."""
    path, plane = Path(source.path), source.plane
    if kind == "dicom":
        return read_dicom(path, frame=plane.frame, window=window, max_pixels=limit)
    if kind == "nifti":
        return read_nifti(path, axis=plane.axis, index=plane.index, frame=plane.frame, max_pixels=limit)
    if kind == "npz":
        return _channels_first(read_npz(source.path, limit=limit))
    if kind == "tiff":
        return _channels_first(read_tiff(path, frame=plane.frame, max_pixels=limit))
    return _channels_first(read_picture(path, frame=plane.frame, max_pixels=limit))


def _windowed(pixels: np.ndarray, window: str, asked: tuple[float, float], *, where: str) -> np.ndarray:
    if len(pixels) > 1 or pixels.dtype == np.uint8:
        raise UserError(
            f"the window {window} is asked of an image in colour or of 8 bits, which has no units to apply it in",
            where=where,
            mend="choose the window file",
        )
    return brightness(pixels, black=asked[0], white=asked[1]).astype(np.float32)


def count_channels(source: ImageSource) -> int:
    """Channels ``read_source`` would return, from the header."""
    counts = {"dicom": count_dicom_channels, "tiff": count_tiff_channels, "picture": count_picture_channels}
    kind = _kind(source.path)
    if kind == "nifti":
        return 1
    if kind == "npz":
        shape = array_shape(source.path)
        return shape[3] if len(shape) == 4 else 1
    with door(source.path):
        return counts[kind](Path(source.path))


def same_proportions(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two (height, width) are one picture at two resolutions, but for the rounding to whole pixels."""
    (small_height, small_width), (height, width) = sorted((first, second))
    scale = height / small_height
    return abs(small_width * scale - width) < (scale + 1) / 2


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
        red, green, blue = (plane * np.float32(share) for plane, share in zip(array, LUMINANCE, strict=True))
        planes = (red + green + blue)[None]  # [1, H, W] float32
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


def load_image(
    source: ImageSource, *, size: tuple[int, int], channels: int, reading: Reading, smallest: int = 1
) -> np.ndarray:
    """Read and fit one image: [channels, *size]. The one path by which pixels reach a store or a prediction."""
    array = read_source(source, reading=reading)  # [C, H, W]
    check_sides(array, smallest=smallest, where=source.path)
    return fit_image(array, size=size, channels=channels, where=source.path)


def check_sides(array: np.ndarray, *, smallest: int, where: str) -> None:
    """Raise ``UserError`` for an image [C, H, W] with a side of fewer pixels."""
    if min(array.shape[1:]) < smallest:
        raise UserError(
            f"the image is {by(array.shape[1:])} pixels, less than one patch of {smallest}",
            where=where,
            mend="leave it out, or set a smaller model.patch_size for training",
        )


def load_images(
    sources: Sequence[str | Path | ImageSource],
    *,
    size: tuple[int, int],
    channels: int,
    reading: Reading | None = None,
    smallest: int = 1,
) -> np.ndarray:
    """Read and fit images for prediction -> [B, channels, *size], equal to what a store of the same settings holds.

    Every image that cannot be read is named in one UserError.
    """
    wanted = [source if isinstance(source, ImageSource) else ImageSource(str(source)) for source in sources]
    if not wanted:
        raise UserError("no images were given", mend="name at least one image file")

    def attempt(source: ImageSource) -> np.ndarray | UserError:
        try:
            return load_image(source, size=size, channels=channels, reading=reading or Reading(), smallest=smallest)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        loaded = list(pool.map(attempt, wanted))
    errors = [item for item in loaded if isinstance(item, UserError)]
    if errors and len(wanted) == 1:
        raise errors[0]
    if errors:
        lines = all_or_file([str(error) for error in errors], separator="\n  ")
        raise UserError(f"{len(errors)} of {len(wanted)} images cannot be read:\n  {lines}")
    images = [item for item in loaded if not isinstance(item, UserError)]
    kinds = sorted({str(image.dtype) for image in images})
    if len(kinds) > 1:
        raise UserError(
            f"the images hold numbers of different kinds ({', '.join(kinds)})",
            mend="give images of one bit depth, so that their numbers mean the same",
        )
    return np.stack(images)


def _kind(path: str) -> str:
    """Which reader a file is for, by its content (NIfTI, and DICOM without a header, by name)."""
    reference, file = split_reference(path), Path(path)
    check_file(file if reference is None else reference[0])
    if reference is not None:
        return "npz"
    with open(file, "rb") as opened:
        head = opened.read(132)
    if is_dicom(file, head):
        return "dicom"
    if is_nifti(file):
        return "nifti"
    return "tiff" if head[:4] in TIFF_MAGIC else "picture"


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C] of any type -> contiguous [C, H, W] of one of ``DTYPES``; booleans become 0 and 255."""
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    native = planes.astype(planes.dtype.newbyteorder("="), copy=False)
    if native.dtype == bool:
        native = native.astype(np.uint8) * np.uint8(255)
    if native.dtype.name not in DTYPES:
        native = native.astype(np.float32)
    return np.ascontiguousarray(native)


def _finite(pixels: np.ndarray, *, replacement: float | None, where: str) -> np.ndarray:
    if pixels.dtype != np.float32:
        return pixels
    bad = ~np.isfinite(pixels)
    if not bad.any():
        return pixels
    if replacement is None:
        raise UserError(
            f"{int(bad.sum())} pixels are not finite numbers",
            where=where,
            mend="say what to put there (replace_nonfinite, 0 for example)",
        )
    return np.where(bad, np.float32(replacement), pixels)


def _resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] of any number type -> float32 ``size``. Pillow's bilinear filter widens when shrinking (antialiasing)."""
    from PIL import Image

    values = plane.astype(np.float32)
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))
