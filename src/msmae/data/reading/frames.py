"""What a compressed DICOM frame says of itself, compared with the file's header before a decoder is trusted with both.

A decoder that is told 8 bits and finds 12, or 512 columns and finds 60,000, gives garbage, writes where it must not, or
ends the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msmae.data.reading.checks import by
from msmae.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

_SOF = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
"""JPEG's and JPEG-LS's markers of a frame's beginning."""


@dataclass(frozen=True)
class Stream:
    """Of a JPEG, JPEG-LS or JPEG 2000 stream: rows, columns, samples a pixel, bits a sample."""

    rows: int
    columns: int
    samples: int
    bits: int


def check_frame(content: bytes, header: Dataset) -> None:
    """UserError where a compressed frame contradicts the file's header, or is of no kind that is known."""
    found = read_stream(content)
    if found is None:
        raise UserError("its compressed pixels do not begin as they should", mend="copy it again")
    asked = (int(header.Rows), int(header.Columns))
    samples, bits = int(header.get("SamplesPerPixel", 1)), int(header.BitsStored)
    if (found.rows, found.columns) != asked:
        what = f"is {by(asked)} pixels by its header and {by((found.rows, found.columns))} by its compressed pixels"
    elif found.samples != samples:
        what = f"has {samples} samples a pixel by its header and {found.samples} by its compressed pixels"
    elif found.bits != bits and not (bits > 8 and 8 < found.bits <= int(header.BitsAllocated)):  # two bytes a sample
        what = f"has {bits} bits by its header and {found.bits} in its compressed pixels"
    else:
        return
    raise UserError(f"the image {what}", mend="export it again, or leave it out")


def frame_of_file(path: Path, header: Dataset, frame: int) -> bytes:
    """The compressed bytes of one frame of a film, read alone."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import _array_common

    with path.open("rb") as file:
        found, _ = _array_common(file, [], transfer_syntax_uid=header.file_meta.TransferSyntaxUID)
        offsets = None
        if "ExtendedOffsetTable" in found and "ExtendedOffsetTableLengths" in found:
            offsets = found.ExtendedOffsetTable, found.ExtendedOffsetTableLengths
        return get_frame(file, frame, number_of_frames=int(header.NumberOfFrames), extended_offsets=offsets)


def read_stream(content: bytes) -> Stream | None:
    """What the header of a stream says; None where it is none of the kinds that are known."""
    if content[:4] == b"\xff\x4f\xff\x51":
        return _jpeg_2000(content)
    box = content.find(b"\xff\x4f\xff\x51", 0, 4096) if content[4:8] == b"jP  " else -1
    if box >= 0:
        return _jpeg_2000(content[box:])
    at = 2
    if content[:2] != b"\xff\xd8":
        return None
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # a filling byte
            at += 1
        elif marker in _SOF:
            rows, columns = (int.from_bytes(content[at + k : at + k + 2], "big") for k in (5, 7))
            return Stream(rows, columns, samples=content[at + 9], bits=content[at + 4])
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


def _jpeg_2000(content: bytes) -> Stream | None:
    """From the SIZ marker, which is always the first."""
    if len(content) < 43:
        return None
    right, below, left, above = (int.from_bytes(content[at : at + 4], "big") for at in (8, 12, 16, 20))
    samples = int.from_bytes(content[40:42], "big")
    return Stream(below - above, right - left, samples, bits=(content[42] & 0x7F) + 1)
