"""NIfTI volumes, cut into two-dimensional slices.

What the numbers mean: float32 [1, H, W] in the file's units, its scaling applied (Hounsfield units for most CT,
arbitrary for MR). Whatever the file's own order, the volume is first turned to the patient's axes: left -> right (0),
back -> front (1), feet -> head (2). A slice is then shown as radiologists hang it: row 0 is the front in a cut across
axis 2 and the head in the others; column 0 is the patient's right, and the front in a cut across axis 0.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from msmae.data.reading.checks import by, check_size, choose_plane
from msmae.errors import UserError

_LOCK = threading.Lock()


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def volume_shape(path: str | Path) -> tuple[int, int, int, int]:
    """Slices across left-right, back-front and feet-head, and the number of volumes (1 but in 4-D files); header only.

    Raises UserError for a file that is not NIfTI, or has more than four dimensions that count.
    """
    shape = tuple(int(side) for side in _open(Path(path)).shape)
    padded = (*shape, 1, 1, 1, 1)[: max(4, len(shape))]
    if any(side != 1 for side in padded[4:]):
        raise UserError(f"the file has the shape {by(shape)}, more than a series of volumes", where=str(path))
    return padded[0], padded[1], padded[2], padded[3]


def read_nifti(
    path: Path, *, axis: int | None = None, index: int | None = None, frame: int | None = None, max_pixels: int
) -> np.ndarray:
    """One slice of a NIfTI volume: float32 [1, H, W]; axes and orientation are said at the top of this file.

    ``index`` counts from 0 along ``axis``; both may be None where the file is one slice thick. ``frame`` chooses from
    a 4-D file. Raises UserError where the choice is missing or out of range, or the file is damaged.
    """
    *sides, volumes = volume_shape(path)
    volume = choose_plane(frame, volumes, column="frame", path=path)
    if axis is None and index is None and 1 in sides:
        axis, index = 2 - sides[::-1].index(1), 0  # the last axis that is one slice thick
    if axis not in (0, 1, 2) or index is None:
        raise UserError(
            f"the file is a volume of {by(tuple(sides))} where an image was expected",
            where=str(path),
            mend="expand it with --slices, or name the manifest columns axis (0, 1 or 2) and index",
        )
    choose_plane(index, sides[axis], column="index", path=path)
    check_size(tuple(sides), limit=max_pixels, path=path)
    status = path.stat()
    with _LOCK:  # one thread unpacks the volume, the others find it done
        values = _values(str(path), status.st_size, status.st_mtime_ns)
    plane = np.take(values.reshape(*sides, volumes)[..., volume], index, axis=axis)  # [first, second remaining axis]
    return np.ascontiguousarray(plane.T[::-1, ::-1])[None]


@lru_cache(maxsize=2)  # slices of one volume follow each other; size and time make a changed file a new entry
def _values(path: str, size: int, modified: int) -> np.ndarray:
    image = _open(Path(path))
    if image.get_data_dtype().fields:
        raise UserError(
            "the volume holds colours (RGB), not one number a voxel",
            where=path,
            mend="save it as one grey channel, or its slices as PNG",
        )
    try:
        return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except Exception as error:  # nibabel, gzip and zlib raise every kind for a damaged file
        raise UserError(f"the NIfTI volume is damaged ({error})", where=path, mend="copy it again") from error


def _open(path: Path) -> Any:
    """nibabel's image, not unpacked yet, its axes turned to left -> right, back -> front, feet -> head."""
    import nibabel

    try:
        return nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
    except Exception as error:  # as above
        raise UserError(f"the NIfTI file cannot be opened ({error})", where=str(path)) from error
