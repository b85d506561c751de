"""DICOM files -> arrays with a stated meaning, in the order the standard prescribes (PS3.3 section C.11, PS3.4 N.2).

Stored numbers -> modality units (modality LUT, or rescale slope and intercept: Hounsfield units in CT; dose grid
scaling in RT Dose: Gy) -> display brightness (VOI LUT, or window) -> polarity (MONOCHROME1, where small means bright,
is inverted). All arrays are float32:

* grey, any window but ``"none"``: [1, H, W], display brightness from 0 (black) to 1 (white);
* grey, window ``"none"``: [1, H, W] in modality units (a MONOCHROME1 image is mirrored within the range its bits can
  hold, so that larger is brighter there too);
* colour (RGB, YBR, palette): [3, H, W], red, green and blue from 0 to 1. Windows do not apply to colour.

Overlays, ICC profiles and presentation states are not applied, and padding pixels are pixels like any other.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msmae.data.reading.apart import decode_apart
from msmae.data.reading.checks import check_size, check_stream, choose_plane
from msmae.data.reading.door import door
from msmae.data.reading.frames import check_frame, frame_of_file
from msmae.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "brain": (40.0, 80.0),
    "bone": (400.0, 1800.0),
    "soft-tissue": (50.0, 400.0),
}
"""Customary CT windows, (centre, width) in Hounsfield units."""

MODALITIES = ("MR", "CR", "DX", "MG", "US", "PT", "NM", "XA", "RF", "OT", "SC", "IO", "PX", "ES", "OP", "SM", "XC")
"""What a header may name its modality, that a message repeats it."""
MOST_UNFOLDED = 300_000_000
"""Bytes that a file which is deflated as a whole may unfold to."""

_SUFFIXES = (".dcm", ".dicom", ".ima")


def is_dicom(path: Path, head: bytes) -> bool:
    """Whether a file, of which ``head`` is the first 132 bytes, is to be read as DICOM."""
    return head[128:132] == b"DICM" or path.suffix.lower() in _SUFFIXES


def parse_window(text: str) -> tuple[float, float] | None:
    """The values shown as black and as white; None for ``"file"`` and ``"none"``, UserError for what is no window.

    A window is a name of ``WINDOWS``, ``"centre,width"`` as in ``"-600,1500"``, or a range as in ``"-1350..150"``.
    """
    if text in ("file", "none"):
        return None
    try:
        if ".." in text:
            black, white = (float(number) for number in text.split(".."))
        else:
            centre, width = WINDOWS[text] if text in WINDOWS else (float(number) for number in text.split(","))
            black, white = window_range(centre, width)
        if black <= white:
            return black, white
    except ValueError:
        pass
    raise UserError(
        f"the window {text!r} is not known",
        mend=f"say file, none, {', '.join(WINDOWS)}, a centre and a width as in 40,80, or a range as in -1350..150",
    )


def window_range(centre: float, width: float, *, function: str = "LINEAR") -> tuple[float, float]:
    """The values a linear window shows as black and as white (PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2).

    ``LINEAR`` counts whole grey levels: a width of 1 is a threshold at the centre. Raises ValueError for an impossible
    width or another function.
    """
    if function == "LINEAR" and width >= 1:
        return centre - width / 2, centre + width / 2 - 1
    if function == "LINEAR_EXACT" and width > 0:
        return centre - width / 2, centre + width / 2
    raise ValueError(f"a window of width {width} and function {function} is not defined")


def brightness(values: np.ndarray, *, black: float, white: float) -> np.ndarray:
    """0 up to ``black``, 1 from ``white``, linear between (float64)."""
    if black == white:
        return (values > black).astype(np.float64)
    return np.clip((values.astype(np.float64) - black) / (white - black), 0.0, 1.0)


def count_dicom_channels(path: Path) -> int:
    """1 for grey, 3 for colour, from the header."""
    header = read_header(path)
    return 3 if header.get("SamplesPerPixel") == 3 or header.get("PhotometricInterpretation") == "PALETTE COLOR" else 1


def read_dicom(path: Path, *, frame: int | None = None, window: str = "file", max_pixels: int) -> np.ndarray:
    """Read one frame as float32 [C, H, W]; what the numbers mean is said at the top of this file.

    ``window`` is ``"file"`` (the file's VOI LUT, else its first window, else the whole range its bits can hold),
    ``"none"``, or one that ``parse_window`` knows, in modality units. ``frame`` counts from 0 and may be None where
    there is only one. Raises UserError, with the reason, for what is not an image or cannot be decoded.
    """
    asked = parse_window(window)
    with door(path, what="DICOM image"):
        header = read_header(path)
        frame = _check_image(header, path, frame=frame, max_pixels=max_pixels)
        modality = str(header.get("Modality", "CT"))
        if asked is not None and window in WINDOWS and modality != "CT":
            kind = modality if modality in MODALITIES else "something else"
            raise UserError(
                f"the window {window} is in Hounsfield units and the image is {kind}, not CT",
                where=str(path),
                mend="choose another window",
            )
        try:
            stored = _decode(path, header, frame)  # [H, W] or [H, W, 3]
            if stored.ndim == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
                return _colour(stored, header)
            values, low, high = _modality(stored, header, frame)
            if window == "none":
                shown, black, white = values, low, high
            else:
                shown, black, white = _shown(values, low, high, header, frame, asked), 0.0, 1.0
        except UserError as error:
            raise UserError(error.what, where=str(path), mend=error.mend) from None
        if header.PhotometricInterpretation == "MONOCHROME1":
            shown = black + white - shown
        return shown.astype(np.float32)[None]


def read_header(path: Path) -> Dataset:
    """Everything before the pixels. Files without the DICOM preamble are read too; their encoding is taken as found."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with door(path, what="DICOM header"):
        check_deflated(path)
        header = dcmread(path, force=True, stop_before_pixels=True)
        if "TransferSyntaxUID" not in header.file_meta:
            implicit, little = header.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        return header


def check_deflated(path: Path) -> None:
    """UserError where a file that is deflated as a whole, its header too, unfolds to more than ``MOST_UNFOLDED``."""
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with path.open("rb") as file:
        read_preamble(file, force=True)
        syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
        if syntax == DeflatedExplicitVRLittleEndian:
            check_stream(file.read(), limit=MOST_UNFOLDED, path=path, wbits=-zlib.MAX_WBITS)


def _check_image(header: Dataset, path: Path, *, frame: int | None, max_pixels: int) -> int:
    """The frame to read; UserError if the file holds no image, too large an image, or several with none chosen."""
    if not ("Rows" in header and "Columns" in header and "PhotometricInterpretation" in header):
        from pydicom._uid_dict import UID_dictionary

        uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
        kind = f"holds no image, it is {UID_dictionary[uid][0]}" if uid in UID_dictionary else "describes no image"
        raise UserError(f"the DICOM file {kind}", where=str(path), mend="leave it out")
    check_size((int(header.Rows), int(header.Columns)), limit=max_pixels, path=path)
    samples, bits = int(header.get("SamplesPerPixel", 1)), int(header.get("BitsAllocated", 16))
    if samples not in (1, 3) or bits not in (1, 8, 16, 32, 64):
        raise UserError(
            f"pixels of {samples} samples of {bits} bits are not known", where=str(path), mend="leave it out"
        )
    try:
        frames = int(header.get("NumberOfFrames") or 1)
    except (ValueError, TypeError):
        raise UserError("the number of frames is no number", where=str(path), mend="mend its header") from None
    return choose_plane(frame, frames, column="frame", path=path)


def _decode(path: Path, header: Dataset, frame: int) -> np.ndarray:
    """As ``decode``; compressed frames in a process of its own, once they fit the file's header."""
    from pydicom.uid import RLELossless

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == RLELossless:  # which pydicom decodes in Python
        return decode(path, header, frame)
    return decode_apart(path, frame, pixels=int(header.Rows) * int(header.Columns))


def decode(path: Path, header: Dataset, frame: int) -> np.ndarray:
    """Stored numbers [H, W] or [H, W, 3] of one frame; YBR is already RGB, bits above the stored ones are cleared.

    Raises UserError where a compressed frame contradicts the header, and whatever a decoder raises.
    """
    from pydicom import dcmread
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGExtended12Bit, RLELossless

    syntax = header.file_meta.TransferSyntaxUID
    film = header.get("NumberOfFrames", 1) > 1 and syntax != DeflatedExplicitVRLittleEndian
    dataset = None if film else dcmread(path, force=True)
    if syntax.is_encapsulated and syntax != RLELossless:
        one = (
            frame_of_file(path, header, frame)
            if dataset is None
            else get_frame(dataset.PixelData, 0, number_of_frames=1)
        )
        check_frame(one, header)
        if syntax == JPEGExtended12Bit and header.BitsStored == 12:
            return _decode_extended_jpeg(path, header, frame)
    if dataset is None:
        return pixel_array(path, index=frame, transfer_syntax_uid=syntax)  # reads this frame alone
    dataset.file_meta.TransferSyntaxUID = syntax
    return pixel_array(dataset, index=frame)


def _decode_extended_jpeg(path: Path, header: Dataset, frame: int) -> np.ndarray:
    """12-bit JPEG through GDCM itself: it decodes this syntax, though pydicom does not ask it to."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ValueError("GDCM cannot decode its 12-bit JPEG")
    buffer = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    numbers = np.frombuffer(buffer, np.dtype("<i2" if header.PixelRepresentation else "<u2"))
    return np.asarray(numbers.reshape(-1, header.Rows, header.Columns)[frame])


def _colour(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """RGB [H, W, 3] or palette indices [H, W] -> float32 [3, H, W], 0 to 1."""
    from pydicom.pixels.processing import apply_color_lut

    bits = header.BitsStored
    if stored.ndim == 2:
        stored = apply_color_lut(stored, header)
        bits = header.RedPaletteColorLookupTableDescriptor[2]
    elif header.PhotometricInterpretation not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"):
        raise UserError("the kind of its colour is not supported", mend="save it as RGB")
    return np.ascontiguousarray(np.moveaxis(stored / (2.0**bits - 1.0), -1, 0), dtype=np.float32)


def _modality(stored: np.ndarray, header: Dataset, frame: int) -> tuple[np.ndarray, float, float]:
    """Modality units (float64) and the lowest and highest the stored bits can mean; nan for floating-point pixels."""
    groups = _frame_attributes(header, frame, "PixelValueTransformationSequence")
    if header.get("ModalityLUTSequence"):
        values, highest = _look_up(stored, header.ModalityLUTSequence[0], header)
        return values, 0.0, highest
    if "DoseGridScaling" in header:
        slope, intercept = float(header.DoseGridScaling), 0.0
    else:
        slope, intercept = groups.get("RescaleSlope"), groups.get("RescaleIntercept")
        slope, intercept = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if slope == 0:
        raise UserError("the rescale slope is 0, so that every pixel means the same", mend="mend the file's header")
    values = stored.astype(np.float64) * slope + intercept
    if stored.dtype.kind == "f":
        return values, float("nan"), float("nan")
    lowest = -(2.0 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0.0
    ends = [lowest * slope + intercept, (lowest + 2.0**header.BitsStored - 1.0) * slope + intercept]
    return values, min(ends), max(ends)


def _shown(
    values: np.ndarray, low: float, high: float, header: Dataset, frame: int, asked: tuple[float, float] | None
) -> np.ndarray:
    """Modality units -> brightness 0..1: the asked window, else the file's VOI LUT or first window, else low..high."""
    if asked is not None:
        return brightness(values, black=asked[0], white=asked[1])
    voi = _frame_attributes(header, frame, "FrameVOILUTSequence")
    if voi.get("VOILUTSequence"):
        shown, highest = _look_up(values, voi.VOILUTSequence[0], header)
        return shown / highest
    if voi.get("WindowCenter") is not None and voi.get("WindowWidth") is not None:
        centre, width = (float(np.ravel(voi[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        function = str(voi.get("VOILUTFunction") or "LINEAR").strip().upper()
        if function == "SIGMOID" and width > 0:  # PS3.3 C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w))
            return np.asarray(0.5 + 0.5 * np.tanh(2.0 * (values - centre) / width))
        try:
            black, white = window_range(centre, width, function=function)
        except ValueError:
            known = function if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else "not known"
            raise UserError(
                f"the file asks for a window that cannot be applied (width {width:g}, function {known})",
                mend="choose another with --window: none (modality units), a name, or centre,width",
            ) from None
        return brightness(values, black=black, white=white)
    if np.isnan(low):
        raise UserError("floating-point pixels without a window", mend="choose the window none, or one with numbers")
    return (values - low) / (high - low)


def file_window(path: Path) -> tuple[float, float]:
    """Centre and width of a file's first window, in the numbers of the window ``none``: turned round where the pixels
    are. Raises every kind of exception where the header names none.
    """
    header = read_header(path)
    voi = _frame_attributes(header, 0, "FrameVOILUTSequence")
    centre, width = (float(np.ravel(voi[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    if header.PhotometricInterpretation == "MONOCHROME1":
        _, low, high = _modality(np.zeros((1, 1), np.uint8), header, 0)
        centre = low + high - centre
    return centre, width


def _frame_attributes(header: Dataset, frame: int, macro: str) -> Dataset:
    """Where a frame's attributes stand: in enhanced files its functional group (its own, else the shared one)."""
    for groups, at in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        if header.get(groups) and header[groups].value[at].get(macro):
            attributes: Dataset = header[groups].value[at][macro].value[0]
            return attributes
    return header


def _look_up(values: np.ndarray, table: Dataset, header: Dataset) -> tuple[np.ndarray, float]:
    """Values through a LUT (PS3.3 C.11.1.1): the float64 result and the highest number its entries can hold."""
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    count = count or 2**16
    data: Any = table.LUTData
    if isinstance(data, bytes):
        order = "<" if header.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, np.uint8 if len(data) == count else np.dtype(f"{order}u2"))
    entries = np.atleast_1d(np.asarray(data))[:count]
    if len(entries) < count:
        raise UserError("a lookup table announces more entries than it has", mend="choose the window none, or numbers")
    at = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return entries[at].astype(np.float64), 2.0**bits - 1.0
