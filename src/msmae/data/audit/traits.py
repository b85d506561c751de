"""What an image carries beside its content: borders, corners, burned-in marks, format, device, compression."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from msmae.data.reading.arrays import split_reference
from msmae.data.reading.door import door

FLAT = 0.02  # a row or column is of one colour where it spans no more than this share of the image's range
CORNER = 16  # a corner is this part of each side
RIM = 8  # marks are looked for in this part of each side, along the four edges
STROKE = 0.5  # a mark is a step from one pixel to the next of this share of the image's range
HEAD = 1 << 17  # bytes at the beginning of a file that are searched for JPEG's tables

MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
DEVICE = ("Modality", "Manufacturer", "ManufacturerModelName", "ViewPosition", "PhotometricInterpretation")


def borders(plane: np.ndarray) -> tuple[float, float, float, float]:
    """Share of the height or width that is rows or columns of one colour, at the top, bottom, left and right edge.

    ``plane`` is float32 [H, W]. An image of one colour is border throughout: 1, 1, 1, 1.
    """
    span = FLAT * (float(plane.max()) - float(plane.min()))
    rows = np.ptp(plane, axis=1) <= span  # [H]
    columns = np.ptp(plane, axis=0) <= span  # [W]
    return _leading(rows), _leading(rows[::-1]), _leading(columns), _leading(columns[::-1])


def corner_level(plane: np.ndarray) -> float:
    """How bright the four corners of [H, W] are, in the files' own numbers: as a share of the image's range, a bright
    lesion in the middle would change it."""
    height, width = (max(1, side // CORNER) for side in plane.shape)
    rows = np.concatenate([plane[:height], plane[-height:]])
    return float(np.median([rows[:, :width], rows[:, -width:]]))


def mark_share(plane: np.ndarray, *, span: float) -> float:
    """Share of the pixels along the edges of [H, W] that step sharply to the next: letters and arrows are made of them.

    Letters burned into X-rays and ultrasound stand in the margins, at full contrast and without a soft edge. ``span``:
    the full contrast, in the files' own numbers.
    """
    height, width = (max(1, side // RIM) for side in plane.shape)
    stroke = STROKE * span
    if stroke == 0:
        return 0.0
    inner = plane[height:-height]
    rim = (plane[:height], plane[-height:], inner[:, :width], inner[:, -width:])
    steps = sum(int((np.abs(np.diff(part, axis=1)) >= stroke).sum()) for part in rim)
    return steps / sum(part.size for part in rim)


def acquisition(path: str) -> tuple[str, int]:
    """How a readable image came about: its format, with a number for the device of a DICOM file; and JPEG's coarseness.

    The coarseness is the sum of the luminance quantisation table (64 finest; about 920 at quality 75), 0 for any
    other format.
    """
    if split_reference(path) is not None:
        return "npz", 0
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head[128:132] == b"DICM":  # first, because such a file may begin as a TIFF does
        return _device(path), 0
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name, _jpeg_coarseness(head) if name == "JPEG" else 0
    return Path(path).suffix.lstrip(".").upper(), 0


def _leading(flat: np.ndarray) -> float:
    """Share of leading True in [k]."""
    return 1.0 if flat.all() else float(np.argmin(flat)) / len(flat)


def _jpeg_coarseness(head: bytes) -> int:
    at = 2
    while at + 4 < len(head) and head[at] == 0xFF:
        end = at + 2 + int.from_bytes(head[at + 2 : at + 4], "big")
        if head[at + 1] == 0xDB and end <= len(head):
            wide = head[at + 4] >> 4
            table = np.frombuffer(head[at + 5 : at + 5 + 64 * (1 + wide)], ">u2" if wide else "u1")
            return int(table.sum(dtype=np.int64))
        at = end
    return 0


def _device(path: str) -> str:
    """``DICOM`` and a number for what made the image: the same for the same device, and no words of the header."""
    from pydicom import dcmread

    with door(path, what="DICOM header"):
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(DEVICE))
        known = [str(header.get(field) or "").strip() for field in DEVICE]
    return f"DICOM {hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]}"
