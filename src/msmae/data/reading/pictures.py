"""Picture files: PNG, JPEG, BMP, WebP and GIF through Pillow; TIFF of any depth and page count through tifffile.

What the numbers mean: 8-bit files hold display intensities, 0 to 255 (1-bit files 0 and 255); deeper files hold what
was stored. Colour is RGB; palettes are looked up, CMYK and YCbCr become RGB, a minimum-is-white image is inverted, an
alpha channel is dropped (the colour under it is kept), and the EXIF or TIFF orientation is applied, so that "up" is
where the camera said it was.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msmae.data.reading.checks import check_holds, check_size, check_stream, choose_plane
from msmae.data.reading.door import door
from msmae.data.reading.tiff_pages import check_pages
from msmae.errors import UserError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

CHANNELS = 4
"""Numbers a pixel that a TIFF of as many pixels as are allowed may have; a smaller one may have more."""
FAX = (2, 3, 4)
"""TIFF's compressions of CCITT, of 1 bit a pixel."""
DEFLATED = (8, 32946)
"""TIFF's compressions that are unpacked here and may unfold without a limit."""
_PLAIN = (1, 8, 32946, 32773)  # none, the two deflates, PackBits: all others are left to Pillow
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF")
_LOCK = threading.Lock()
_ALPHA = (1, 2)  # TIFF's extra samples: associated and unassociated alpha
_TURNS = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}
"""TIFF orientation -> quarter turns counter-clockwise, and whether to mirror left and right after them."""


def read_picture(path: Path, *, frame: int | None = None, max_pixels: int) -> np.ndarray:
    """Read a PNG, JPEG, BMP, WebP or GIF: uint8 (16-bit PNG: uint16), [H, W] or [H, W, 3].

    ``frame`` chooses from an animation. Raises UserError, with the reason, for what is damaged or too large.
    """
    with open_picture(path, limit=max_pixels) as image:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a camera's MPO adds previews
        image.seek(choose_plane(frame, frames, column="frame", path=path))
        if image.format == "PNG" and (rawmode := _deep_colour(image, path)):
            with _open(path, _FORMATS) as again:
                high, low = (_half(picture, rawmode, order) for picture, order in ((image, "B"), (again, "L")))
            return np.asarray(high.astype(np.uint16) << 8 | low)
        upright(image)
        return _pixels(image)


def read_reduced(path: Path, *, pixels: int, limit: int) -> tuple[np.ndarray, tuple[int, int]] | None:
    """A large JPEG decoded at a half, a quarter or an eighth of its size, which costs a fraction of the time.

    Returns uint8 [h, w] or [h, w, 3] of at least ``pixels`` pixels, upright, and the (height, width) of the whole
    image; None for any other file, or one that is not larger than that at half its size. The same file gives the same
    pixels. Raises UserError where it is damaged, or has more than ``limit`` pixels.
    """
    with open(path, "rb") as file:
        if file.read(3) != b"\xff\xd8\xff":
            return None
    with open_picture(path, limit=limit) as image:
        width, height = image.size
        share = (pixels / (width * height)) ** 0.5
        if image.format != "JPEG" or image.mode not in ("L", "RGB") or share > 0.5:
            return None
        image.draft(image.mode, (max(1, int(width * share)), max(1, int(height * share))))
        turned = upright(image)
        return _pixels(image), (width, height) if turned else (height, width)


def upright(image: Any) -> bool:
    """Turn a Pillow image as its EXIF orientation says, and whether that is by a quarter; it stays as it lies where the
    EXIF data is damaged.
    """
    from PIL import ImageOps

    image.load()  # what is wrong with its pixels is not taken for damaged EXIF
    quarter = False
    with suppress(Exception):  # EXIF is a small TIFF, and raises every kind when damaged
        quarter = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        ImageOps.exif_transpose(image, in_place=True)
    return quarter


@contextmanager
def open_picture(path: Path, *, limit: int | None = None) -> Iterator[Any]:
    """Pillow's image, its pixels not decoded yet. Raises UserError where it is damaged, or has more than ``limit``
    pixels.
    """
    with door(path, mend="copy it again"), _open(path, _FORMATS) as image:
        if limit is not None:
            check_size((image.height, image.width), limit=limit, path=path)
            check_holds(path, (image.height, image.width))
        yield image


def count_picture_channels(path: Path) -> int:
    """1 or 3, from the header."""
    with open_picture(path) as image:
        return 1 if image.mode in ("1", "L", "LA") or image.mode.startswith("I") else 3


def _open(path: Path, formats: tuple[str, ...]) -> Any:
    """Pillow's lazy image. Pillow's own size limit is a module global; ours is an argument, checked by the readers."""
    from PIL import Image, UnidentifiedImageError

    with _LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=formats)
        except UnidentifiedImageError:
            raise UserError(
                "not an image in a format that can be read",
                where=str(path),
                mend="give PNG, JPEG, BMP, WebP, GIF, TIFF, DICOM or NIfTI",
            ) from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _pixels(image: Any) -> np.ndarray:
    """A Pillow image as grey [H, W] or RGB [H, W, 3]; depth above 8 bits is kept."""
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    if image.mode.startswith("I"):  # 16 bits, in one byte order or the other
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    colour = image.convert("RGBA") if "transparency" in image.info else image.convert("RGB")
    return np.asarray(colour)[..., :3]


def _deep_colour(image: Any, path: Path) -> str:
    """How Pillow unpacks a PNG with 16 bits a colour, which it would cut to 8; ``""`` for any other PNG."""
    rawmode = str(image.tile[0].args) if image.tile else ""
    if rawmode == "LA;16B":
        raise UserError(
            "a 16-bit grey PNG with transparency", where=str(path), mend="save it without the alpha channel"
        )
    return rawmode if rawmode in ("RGB;16B", "RGBA;16B") else ""


def _half(image: Any, rawmode: str, order: str) -> np.ndarray:
    """One byte of each colour, uint8 [H, W, 3], upright: Pillow keeps the first of big-endian numbers (``B``), and the
    second where it is told that they are little-endian (``L``)."""
    image.tile = [tile._replace(args=f"{rawmode[:-1]}{order}") for tile in image.tile]
    upright(image)
    return np.asarray(image)[..., :3]


@contextmanager
def open_tiff(path: Path) -> Iterator[TiffFile]:
    """tifffile's file, nothing decoded yet. Raises UserError where it is damaged."""
    import tifffile

    with door(path, what="TIFF image"):
        check_pages(path)
        with tifffile.TiffFile(path) as file:
            yield file


def read_tiff(path: Path, *, frame: int | None = None, max_pixels: int) -> np.ndarray:
    """Read one plane of a TIFF: [H, W] or [H, W, C], of the type stored.

    Pages are frames, chosen by ``frame``, except where the file says (OME, ImageJ) that they are channels of one image.
    Raises UserError, with the reason, for what cannot be decoded without loss.
    """
    with open_tiff(path) as file:
        frames = _tiff_frames(file)
        pages = frames[choose_plane(frame, len(frames), column="frame", path=path)]
        for page in pages:
            check_page(page, path, limit=max_pixels, count=len(pages))
        planes = [_decode_page(path, page) for page in pages]
    return planes[0] if len(planes) == 1 else np.dstack(planes)


def count_tiff_channels(path: Path) -> int:
    """Channels of the first plane, from the header."""
    import tifffile

    with open_tiff(path) as file:
        pages = _tiff_frames(file)[0]
        if pages[0].photometric in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.SEPARATED):
            return 3
        return len(pages) * (pages[0].samplesperpixel - _has_alpha(pages[0]))


def check_page(page: TiffPage, path: Path, *, limit: int, count: int = 1) -> None:
    """UserError where a page of ``count``, or one of the strips or tiles it is made of, announces more than ``limit``
    pixels, or holds more than it announces: asked before anything is unpacked.
    """
    check_size((page.imagelength, page.imagewidth), limit=limit, path=path)
    numbers = page.samplesperpixel * max(1, page.imagedepth) * count
    if page.imagelength * page.imagewidth * numbers > CHANNELS * limit:
        raise UserError(
            f"the image has {numbers:,} numbers a pixel, more than the limit of {CHANNELS * limit:,} in all",
            where=str(path),
            mend="raise max_pixels if that is meant",
        )
    chunk = int(np.prod([max(1, side) for side in page.chunks], dtype=object))
    if chunk > CHANNELS * limit:
        raise UserError("its strips or tiles are larger than the limit", where=str(path), mend="save it again")
    if page.compression in FAX:
        return  # a row of one colour takes a bit
    pixels = page.imagelength * page.imagewidth
    check_holds(path, (page.imagelength, page.imagewidth), numbers=max(pixels * numbers, chunk))
    if page.compression not in DEFLATED:
        return
    most = max(2 * chunk * max(1, page.bitspersample // 8), 1 << 24)
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        if length * 1032 > most:
            page.parent.filehandle.seek(offset)
            check_stream(page.parent.filehandle.read(length), limit=most, path=path)


def _tiff_frames(file: TiffFile) -> list[list[TiffPage]]:
    """The pages of each frame: a single one, or one a channel."""
    pages: Any = file.pages
    if len(file.series) > 1:  # pages that differ in size or type
        return [[page.aspage()] for page in pages]
    series: Any = file.series[0]
    outer = [axis for axis in series.axes if axis not in "YXS"]
    order = np.arange(len(series.pages)).reshape([series.shape[series.axes.index(axis)] for axis in outer])
    if "C" in outer:
        order = np.moveaxis(order, outer.index("C"), -1)
    grouped = order.reshape(-1, order.shape[-1] if "C" in outer else 1)  # [frames, channels]
    return [[pages[series.pages[int(at)].index].aspage() for at in row] for row in grouped]


def _has_alpha(page: TiffPage) -> bool:
    return any(extra in _ALPHA for extra in page.extrasamples)


def _decode_page(path: Path, page: TiffPage) -> np.ndarray:
    """One page, [H, W] or [H, W, C], upright, without alpha."""
    from PIL import Image
    from tifffile import PHOTOMETRIC

    try:
        if page.compression not in _PLAIN:
            raise ValueError("imagecodecs")
        pixels = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _decode_page_by_pillow(path, page)
    if page.samplesperpixel > 1 and page.axes.startswith("S"):
        pixels = np.moveaxis(pixels, 0, -1)  # planes stored one after the other
    if _has_alpha(page):
        pixels = pixels[..., :-1] if page.samplesperpixel > 2 else pixels[..., 0]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        pixels = ~pixels
    elif page.photometric == PHOTOMETRIC.PALETTE:
        pixels = np.moveaxis(np.asarray(page.colormap)[:, pixels] >> 8, 0, -1).astype(np.uint8)
    elif page.photometric == PHOTOMETRIC.SEPARATED and pixels.shape[2:] == (4,) and pixels.dtype == np.uint8:
        height, width, _ = pixels.shape
        pixels = np.asarray(Image.frombytes("CMYK", (width, height), pixels.tobytes()).convert("RGB"))
    elif page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB):
        kind = PHOTOMETRIC(page.photometric).name
        raise UserError(f"{kind} pixels of type {pixels.dtype} are not supported", where=str(path), mend="save as RGB")
    turns, mirrored = _TURNS[int(page.tags.valueof("Orientation", 1))]
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirrored else pixels


def _decode_page_by_pillow(path: Path, page: TiffPage) -> np.ndarray:
    """A page whose compression tifffile does not know. Pillow does, and turns it upright, but may cut deep colour."""
    with _open(path, ("TIFF",)) as image:
        image.seek(page.index)
        grey = page.samplesperpixel == 1 and page.photometric == 1  # minimum is black
        if page.bitspersample > 8 and not (grey and image.mode in ("I;16", "I;16B", "F")):
            raise UserError(
                f"its compression, of {page.bitspersample} bits, needs the package imagecodecs",
                where=str(path),
                mend="install it, or save the image without compression",
            )
        return _pixels(image)
