"""Images as rows of an array in a ``.npz`` archive: what it announces is compared with what it holds, then read."""

from __future__ import annotations

import math
import re
import threading
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from msmae.data.reading.checks import by, check_size, check_unfolding
from msmae.data.reading.door import door
from msmae.errors import UserError, count

_LOCK = threading.Lock()
_REFERENCE = re.compile(r"^(?P<file>.*\.npz)#(?P<array>[^/]+)/(?P<row>\d+)$", re.IGNORECASE | re.DOTALL)


def split_reference(path: str | Path) -> tuple[Path, str, int] | None:
    """``"file.npz#train/17"`` -> (``file.npz``, ``"train"``, 17); None for an ordinary path."""
    match = _REFERENCE.match(str(path))
    return None if match is None else (Path(match["file"]), match["array"], int(match["row"]))


def read_npz(reference: str, *, limit: int) -> np.ndarray:
    """[H, W] or [H, W, C]: one row of an array of images, of at most ``limit`` pixels."""
    named = split_reference(reference)
    assert named is not None
    path, array, row = named
    shape = array_shape(reference)
    check_size(shape[1:3], limit=limit, path=path)
    if row >= shape[0]:
        raise UserError(f"the array has {count(shape[0], 'image')}, so no row {row}", where=reference)
    status = path.stat()
    with _LOCK:  # one thread decompresses, the others find it done
        images = _images(str(path), array, limit, status.st_size, status.st_mtime_ns)
    return np.asarray(images[row])


def array_shape(reference: str) -> tuple[int, ...]:
    """The shape of the array that a reference names, [n, H, W] or [n, H, W, C]; header only."""
    named = split_reference(reference)
    assert named is not None
    path, array, _ = named
    shape = member_header(path, find_member(path, array))[0]
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] > 4):
        raise UserError(f"the array has shape {by(shape)}, not images x height x width (x channels)", where=reference)
    return shape


def find_member(path: Path, array: str) -> str:
    """The member of an archive that is called so, or so with ``_images``."""
    with door(path, what=".npz file", mend="copy it again"), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    for name in (f"{array}_images", array):
        if name in names:
            return name
    held = ", ".join(sorted(names)[:8]) or "none"
    raise UserError(f"no array {array}_images or {array}; the file holds {held}", where=str(path))


def member_header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, number type and packed bytes of an array in an archive, without unpacking it."""
    with door(path, what=".npz file", mend="copy it again"), zipfile.ZipFile(path) as archive:
        packed = archive.getinfo(f"{name}.npy")
        with archive.open(packed) as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
    return shape, dtype, packed.compress_size


def read_member(path: Path, name: str, *, limit: int) -> np.ndarray:
    """An array of an archive. Raises UserError, before it is unpacked, where it is a bomb."""
    shape, dtype, packed = member_header(path, name)
    if any(side < 0 for side in shape) or dtype.hasobject or dtype.kind not in "biuf":
        what = "holds Python objects" if dtype.hasobject else "holds no plain numbers"
        raise UserError(f"{name} {what}", where=str(path), mend="save it as numbers")
    check_unfolding(packed, math.prod(shape) * dtype.itemsize, limit=limit, path=path)
    with (
        door(path, what=".npz file", mend="copy it again"),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as members,
    ):
        return np.asarray(members[name])


@lru_cache(maxsize=3)  # the train, val and test arrays of one file; size and time make a changed file a new entry
def _images(path: str, array: str, limit: int, size: int, modified: int) -> np.ndarray:
    return read_member(Path(path), find_member(Path(path), array), limit=limit)
