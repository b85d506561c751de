"""What pydicom's example files hold, worked out independently; for the tests of reading DICOM.

The expectations here take the numbers from the file's bytes (or from another decoder, or from a copy of the same
picture in another encoding) and follow the text of the standard, not the code under test.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless

EXAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
TWINS = {  # the same picture, stored without compression
    **dict.fromkeys(("MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"), "MR_small.dcm"),
    **dict.fromkeys(("SC_rgb_jpeg.dcm", "SC_jpeg_no_color_transform.dcm"), "SC_rgb_jpeg_dcmd.dcm"),
}


def native_numbers(ds: Dataset) -> np.ndarray:
    """The first frame from the bytes of Pixel Data: [H, W], or [H, W, 3] for colour."""
    height, width, samples = ds.Rows, ds.Columns, ds.SamplesPerPixel
    content = bytes(ds.PixelData)
    if ds["PixelData"].VR == "OW" and ds.BitsAllocated == 8 and not ds.original_encoding[1]:
        content = (
            np.frombuffer(content, "<u2").byteswap().tobytes()
        )  # bytes travel in 16-bit words, their high one first
    if ds.BitsAllocated == 1:
        bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
        return bits[: height * width].reshape(height, width)
    order = "<" if ds.original_encoding[1] else ">"
    kind = np.dtype(f"{order}{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}")
    if ds.PhotometricInterpretation == "YBR_FULL_422":  # Y Y Cb Cr for every two pixels
        y0, y1, blue, red = np.frombuffer(content, np.uint8)[: height * width * 2].reshape(-1, 4).T
        pairs = np.stack([np.stack([y, blue, red], axis=-1) for y in (y0, y1)], axis=1)
        return rgb_of_ybr(pairs.reshape(height, width, 3))
    numbers = np.frombuffer(content[: height * width * samples * kind.itemsize], kind)
    if samples == 1:
        return numbers.reshape(height, width)
    planes_apart = ds.PlanarConfiguration == 1
    return numbers.reshape(3, height, width).transpose(1, 2, 0) if planes_apart else numbers.reshape(height, width, 3)


def rgb_of_ybr(ybr: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2, solved for red, green and blue."""
    y, blue, red = (ybr[..., at].astype(float) for at in range(3))
    rgb = [y + 1.402 * (red - 128), y - 0.344136 * (blue - 128) - 0.714136 * (red - 128), y + 1.772 * (blue - 128)]
    return np.clip(np.rint(np.stack(rgb, axis=-1)), 0, 255)


def rle_numbers(ds: Dataset) -> np.ndarray:
    """PS3.5 Annex G: a header of 16 numbers, then one PackBits segment a byte of a sample, the highest byte first."""
    frame = next(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))
    starts = np.frombuffer(frame[:64], "<u4")
    ends = [*starts[2 : starts[0] + 1], len(frame)]
    planes = [unpack_bits(frame[a:b], ds.Rows * ds.Columns) for a, b in zip(starts[1:], ends, strict=False)]
    depth = ds.BitsAllocated // 8
    samples = [
        np.stack(planes[at : at + depth], axis=-1).reshape(-1).view(f">{'i' if ds.PixelRepresentation else 'u'}{depth}")
        for at in range(0, len(planes), depth)
    ]
    pixels = np.stack(samples, axis=-1).reshape(ds.Rows, ds.Columns, len(samples))
    return pixels if len(samples) == 3 else pixels[..., 0]


def unpack_bits(packed: bytes, count: int) -> np.ndarray:
    out, at = bytearray(), 0
    while len(out) < count:
        control = packed[at]
        if control < 128:
            out += packed[at + 1 : at + 2 + control]
            at += 2 + control
        else:
            out += packed[at + 1 : at + 2] * (257 - control)
            at += 2
    return np.frombuffer(bytes(out[:count]), np.uint8)


def pillow_numbers(ds: Dataset) -> np.ndarray:
    frame = next(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))
    with Image.open(io.BytesIO(frame)) as image:
        pixels = np.asarray(image).astype(np.int64)
    if pixels.ndim == 2 and ds.BitsStored > 8:
        if ds.filename.endswith(
            "J2K_pixelrep_mismatch.dcm"
        ):  # 13 bits, shifted up by Pillow, the sign left to the header
            return (pixels >> 3) - np.where(pixels >> 3 >= 4096, 8192, 0)
        return pixels - 32768  # Pillow moves signed numbers up
    return pixels


def expected_numbers(name: str) -> tuple[np.ndarray, float]:
    """Stored numbers ([H, W] or RGB [H, W, 3]) of the first frame, and how far a lossy decoder may differ."""
    ds = pydicom.dcmread(EXAMPLES / name)
    syntax = ds.file_meta.TransferSyntaxUID
    if name in TWINS:
        return native_numbers(pydicom.dcmread(EXAMPLES / TWINS[name])), 0
    if syntax == RLELossless:
        return rle_numbers(ds), 0
    if name.startswith("JPEGLSNearLossless"):
        powers = (8, 7, 6, 5, 4, 3, 2, 1, 0) if ds.BitsStored == 8 else (16, 15, 14, 12, 10, 8, 6, 4, 2, 0)
        return np.repeat([2**power - 1 for power in powers], 5)[:, None].repeat(10, axis=1), 2
    if name.startswith("SC_rgb_jls"):
        return colour_bars(), 10
    if syntax.is_compressed and not syntax.is_deflated:
        return pillow_numbers(ds), 1
    return native_numbers(ds), 1 if ds.PhotometricInterpretation == "YBR_FULL_422" else 0


def colour_bars() -> np.ndarray:
    """The test picture of the SC_rgb files: ten bands of ten rows."""
    red, green, blue, grey = (255, 0, 0), (0, 255, 0), (0, 0, 255), ((0,) * 3, (64,) * 3, (192,) * 3, (255,) * 3)
    bands = (red, (255, 128, 128), green, (128, 255, 128), blue, (128, 128, 255), *grey)
    return np.repeat(np.array(bands), 10, axis=0)[:, None].repeat(100, axis=1)


def expected_modality(ds: Dataset, stored: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Modality units, and those of the lowest and highest number that BitsStored can hold."""
    slope = float(ds.get("DoseGridScaling", ds.get("RescaleSlope", 1)))
    intercept = 0.0 if "DoseGridScaling" in ds else float(ds.get("RescaleIntercept", 0))
    codes = 2**ds.BitsStored
    low, high = (-codes // 2, codes // 2 - 1) if ds.PixelRepresentation else (0, codes - 1)
    return stored * slope + intercept, low * slope + intercept, high * slope + intercept


def by_the_book(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The pseudo-code of PS3.3 C.11.2.1.2.1 with an output from 0 to 1."""
    below, above = x <= centre - 0.5 - (width - 1) / 2, x > centre - 0.5 + (width - 1) / 2
    return np.select([below, above], [0.0, 1.0], (x - (centre - 0.5)) / (width - 1) + 0.5)


def expected_display(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, 3], 0 to 1, as the standard's pipeline says."""
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        tables = [
            np.frombuffer(ds[f"{name}PaletteColorLookupTableData"].value, "<u2") for name in ("Red", "Green", "Blue")
        ]
        return np.stack([table[stored] / 65535 for table in tables], axis=-1)
    if stored.ndim == 3:
        return stored / (2.0**ds.BitsStored - 1)
    values, low, high = expected_modality(ds, stored)
    if "WindowCenter" in ds:
        centre, width = np.ravel(ds.WindowCenter)[0], np.ravel(ds.WindowWidth)[0]
        shown = by_the_book(values, float(centre), float(width))
    else:
        shown = (values - low) / (high - low)
    return 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown
