"""One uploaded file -> an array for the model and a picture for the page; runs in a process of its own.

What comes from outside is decoded here and nowhere else: memory and file sizes are bounded, standard output and error
are closed (decoders print headers), and reasons never quote what a DICOM header says.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import resource
import signal
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from msmae.data.reading.checks import by
from msmae.data.reading.dicom import WINDOWS, file_window
from msmae.data.reading.images import ImageSource, Reading, check_sides, fit_image, read_source
from msmae.data.reading.pictures import TIFF_MAGIC
from msmae.data.tables.labels import ANONYMISED
from msmae.errors import UserError

SHOWN = 1024  # longest side of a picture for the page
WINDOWED = 512  # longest side of the grey levels that the page applies its window to
FORMATS = "give PNG, JPEG, TIFF or DICOM"


@dataclass(frozen=True)
class Task:
    """What the model wants of a file."""

    size: tuple[int, int] | None
    """Height and width; None: the image's own."""
    channels: int
    patch: int
    numbers: str
    """Type of the numbers that the model was trained on; "": not known."""
    reading: dict[str, Any]


@dataclass(frozen=True)
class Decoded:
    """An image for the model [C, H, W], and what the page shows of it."""

    array: np.ndarray
    own: tuple[int, int]
    """Height and width in the file."""
    colour: bool
    picture: str = ""
    """Base64 of a PNG."""
    grey: dict[str, Any] | None = None
    """Grey levels of a deep image, for the page's window."""
    patient: str = ""
    """A digest of the PatientID in a DICOM header: two in one request are told apart."""


def serve_decoding(connection: Connection, folder: str, memory: int) -> None:
    """Answer (content, named_dicom, task, pictures) with a Decoded or the reason why not, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the connection
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if has_proc() else 0
    if taken:
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    while True:
        try:
            content, named_dicom, task, pictures = connection.recv()
        except EOFError:
            return
        path = Path(folder) / ("upload.dcm" if named_dicom else "upload")
        try:
            path.write_bytes(content)
            found: Decoded | str = decode(path, content, task, pictures=pictures)
        except UserError as error:
            found = sentence(error)
        except MemoryError:
            found = "the image needs more memory than is allowed"
        except Exception:  # a decoder's own kind; its words may quote the file
            found = "the file is damaged, or of a kind that cannot be read"
        finally:
            path.unlink(missing_ok=True)
        connection.send(found)


def has_proc() -> bool:
    """Whether this system tells a process its size."""
    return Path("/proc/self/statm").is_file()


def sentence(error: UserError) -> str:
    """What is wrong and how to mend it, without the path, which is none of the client's."""
    return error.what if error.mend is None else f"{error.what}: {error.mend}"


def decode(path: Path, content: bytes, task: Task, *, pictures: bool) -> Decoded:
    """Raises UserError, with the reason, for what is not an image, too large, or not what the model was trained on."""
    if not content:
        raise UserError("the file is empty")
    kind = kind_of(content, path)
    reading = Reading(**task.reading)
    header = check_dicom(path, content, reading) if kind == "dicom" else None
    if kind == "tiff":
        check_tiff(path, reading.max_pixels)
    source = ImageSource(str(path))
    try:
        array = read_source(source, reading=reading)  # [C, H, W]
    except UserError as error:
        if kind != "dicom":
            raise plain(error) from None
        raise UserError("the DICOM image is damaged, or of a kind that cannot be read") from None
    if task.numbers and array.dtype.name != task.numbers:
        raise UserError(
            f"the file holds {array.dtype.name} numbers, and the model was trained on {task.numbers}",
            mend="give a file of the same source as the training images",
        )
    own, patient = (array.shape[1], array.shape[2]), str((header or {}).get("patient", ""))
    try:
        check_sides(array, smallest=task.patch, where="")
        fitted = fit_image(array, size=task.size or own, channels=task.channels)
    except UserError as error:
        raise plain(error) from None
    if not pictures:
        return Decoded(fitted, own, colour=len(array) == 3, patient=patient)
    grey = None
    if len(array) == 1 and (header is not None or array.dtype != np.uint8):
        values = array if header is None else units(source, reading)
        grey = grey_levels(values[0], None if header is None else {**header, "window": window_of(path)})
    return Decoded(fitted, own, len(array) == 3, png(shown(array)), grey, patient)


def plain(error: UserError) -> UserError:
    """A reader's error in the words of a page: no columns of a manifest, no options of a command."""
    if "images where one was expected" in error.what:
        return UserError(error.what, mend="give one image a file")
    mend = error.mend if error.mend in (None, "copy it again") else FORMATS if "format" in error.what else None
    return UserError(error.what, mend=mend)


def kind_of(content: bytes, path: Path) -> str:
    """png, jpeg, tiff or dicom, by the first bytes (DICOM without a preamble by its name)."""
    if content[128:132] == b"DICM" or path.suffix == ".dcm":
        return "dicom"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if content[:4] in TIFF_MAGIC:
        return "tiff"
    raise UserError("this is not an image that can be read", mend=FORMATS)


def check_tiff(path: Path, limit: int) -> None:
    """UserError where any page announces more numbers than the limit, channels included."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            counts = [int(np.prod(page.aspage().shape)) for page in file.pages[:2]]
    except Exception:  # tifffile raises every kind for a damaged file
        raise UserError("the TIFF image is damaged, or of a kind that cannot be read") from None
    if max(counts, default=0) > 4 * limit:
        raise UserError(f"the image unfolds to {max(counts):,} numbers, more than the limit of {4 * limit:,}")


def check_dicom(path: Path, content: bytes, reading: Reading) -> dict[str, Any]:
    """Of a DICOM header whether its units are Hounsfield's, and the patient. UserError, in words that quote nothing of
    it, for what is no single image or too large.
    """
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    tags = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "Modality", "PatientID"]
    damaged = UserError("this is not a readable DICOM file")
    try:
        meta = content[132 : 132 + 4096] if content[128:132] == b"DICM" else b""
        if DeflatedExplicitVRLittleEndian.encode() in meta:  # the header itself would unfold without a limit
            raise UserError("the DICOM file is deflated as a whole", mend="save it with another transfer syntax")
        header = dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)
        found = {tag: header.get(tag) for tag in tags}
        rows, columns = int(found["Rows"] or 0), int(found["Columns"] or 0)
        frames, samples = int(found["NumberOfFrames"] or 1), int(found["SamplesPerPixel"] or 1)
    except UserError:
        raise
    except Exception:  # pydicom raises every kind for a damaged file
        raise damaged from None
    if not rows or not columns:
        raise UserError("the DICOM file holds no image")
    if rows * columns > reading.max_pixels or samples > 4:
        raise UserError(
            f"the image unfolds to {by((rows, columns))} pixels, more than the limit of {reading.max_pixels:,}"
        )
    if frames != 1:
        raise UserError(f"the file holds {frames:,} images", mend="give one image a file")
    name = str(found["PatientID"] or "").strip()
    patient = "" if not name or ANONYMISED.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()
    return {"hounsfield": found["Modality"] == "CT", "patient": patient}


def window_of(path: Path) -> dict[str, float] | None:
    """The window that a DICOM file asks for, in the numbers of ``units``; None where it names none, or no numbers."""
    with suppress(Exception):  # pydicom raises every kind for a damaged header
        centre, width = file_window(path)
        return {"centre": centre, "width": max(1.0, width)}
    return None


def units(source: ImageSource, reading: Reading) -> np.ndarray:
    """A DICOM image in modality units (Hounsfield in CT): float32 [1, H, W]."""
    return read_source(source, reading=Reading(window="none", max_pixels=reading.max_pixels))


def shrunk(plane: np.ndarray, longest: int) -> np.ndarray:
    """[H, W] as float32, its longest side at most so many pixels."""
    from PIL import Image

    scale = longest / max(plane.shape)
    values = plane.astype(np.float32)
    if scale >= 1:
        return values
    size = max(1, round(plane.shape[1] * scale)), max(1, round(plane.shape[0] * scale))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))


def shown(array: np.ndarray) -> np.ndarray:
    """[C, H, W] of any type -> uint8 [H, W] or [H, W, 3] to look at; deep numbers from the lowest to the highest."""
    planes = [shrunk(plane, SHOWN) for plane in (array if len(array) == 3 else array[:1])]
    values = np.stack(planes, axis=-1)
    if array.dtype != np.uint8:
        low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
        values = (values - low) * (255 / max(high - low, 1e-12))
    pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.asarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def grey_levels(plane: np.ndarray, header: dict[str, Any] | None) -> dict[str, Any]:
    """[H, W] in units -> 16-bit levels in base64 (value = low + step * level), and the window to begin with."""
    values = shrunk(plane, WINDOWED)
    low, high = float(values.min()), float(values.max())
    step = max(high - low, 1e-6) / 65535
    levels = np.rint((values - low) / step).astype("<u2")
    window = (header or {}).get("window") or {"centre": (low + high) / 2, "width": max(high - low, 1e-6)}
    names = WINDOWS if (header or {}).get("hounsfield") else {}
    return {
        "width": values.shape[1],
        "height": values.shape[0],
        "low": low,
        "step": step,
        "levels": base64.b64encode(levels.tobytes()).decode(),
        "window": window,
        "named": {name: {"centre": centre, "width": width} for name, (centre, width) in names.items()},
    }


def png(pixels: np.ndarray) -> str:
    """uint8 [H, W] or [H, W, 3] -> base64 of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()
