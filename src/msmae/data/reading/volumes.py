"""NIfTI volumes, cut into two-dimensional slices.

What the numbers mean: float32 [1, H, W] in the file's units, its scaling applied (Hounsfield units for most CT,
arbitrary for MR). Whatever the file's own order, the volume is first turned to the patient's axes: left -> right (0),
back -> front (1), feet -> head (2). A slice is then shown as radiologists hang it: row 0 is the front in a cut across
axis 2 and the head in the others; column 0 is the patient's right, and the front in a cut across axis 0.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from msmae.data.reading.checks import by, check_size, choose_plane
from msmae.data.reading.door import door
from msmae.errors import UserError

_LOCK = threading.Lock()
RATIO_UNPACKED = 1032
"""Times its packed size that deflate unfolds at most."""


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def volume_shape(path: str | Path) -> tuple[int, int, int, int]:
    """Slices across left-right, back-front and feet-head, and the number of volumes (1 but in 4-D files); header only.

    Raises UserError for a file that is not NIfTI, or has more than four dimensions that count.
    """
    path = Path(path)
    with door(path, what="NIfTI file"):
        return _shape(*_open(path), path)


def read_nifti(
    path: Path, *, axis: int | None = None, index: int | None = None, frame: int | None = None, max_pixels: int
) -> np.ndarray:
    """One slice of a NIfTI volume: float32 [1, H, W]; axes and orientation are said at the top of this file.

    ``index`` counts from 0 along ``axis``; both may be None where the file is one slice thick. ``frame`` chooses from
    a 4-D file: no more than its volume is unpacked. Raises UserError where the choice is missing or out of range, or
    the file is damaged.
    """
    *sides, volumes = volume_shape(path)
    volume = choose_plane(frame, volumes, column="frame", path=path)
    if axis is None and index is None and 1 in sides:
        axis, index = 2 - sides[::-1].index(1), 0  # the last axis that is one slice thick
    if axis not in (0, 1, 2) or index is None:
        raise UserError(
            f"the file is a volume of {by(tuple(sides))} where an image was expected",
            where=str(path),
            mend="cut it with --slices axial, or name the manifest columns axis (0, 1 or 2) and index",
        )
    choose_plane(index, sides[axis], column="index", path=path)
    check_size(tuple(sides), limit=max_pixels, path=path)
    status = path.stat()
    with _LOCK, door(path, what="NIfTI volume", mend="copy it again"):  # one thread unpacks, the others find it done
        values = _values(str(path), volume, status.st_size, status.st_mtime_ns)
    plane = np.take(values, index, axis=axis)  # [first, second remaining axis]
    return np.ascontiguousarray(plane.T[::-1, ::-1])[None]


@lru_cache(maxsize=64)  # of the slices of a volume
def check_alike(image: Path, mask: Path) -> None:
    """UserError where the axes of a volume's mask run otherwise than the volume's, and it covers another part of space
    or its header does not say which: one of the two headers is wrong, and the mask would be mirrored.
    """
    with door(mask, what="NIfTI file"):
        (first, turn), (second, other) = _open(image), _open(mask)
        if np.array_equal(turn, other):
            return
        voxel = np.abs([first.affine[:3, :3], second.affine[:3, :3]]).max(axis=(0, 2))  # along each axis of space
        if _says_where(second) == _says_where(first) and (np.abs(_box(first) - _box(second)) <= voxel).all():
            return
    raise UserError(
        f"its axes run otherwise than those of {image.name}, and it lies elsewhere: one of the two headers is wrong",
        where=str(mask),
        mend="save the mask with its image's affine",
    )


def _says_where(image: Any) -> bool:
    """Whether a header says where in space the voxels lie; nibabel puts them in the middle where it does not."""
    return bool(image.header["qform_code"] or image.header["sform_code"])


def _box(image: Any) -> np.ndarray:
    """The least and the greatest coordinates of a volume's voxels, [2, 3] in millimetres."""
    ends = [(-0.5, side - 0.5) for side in (*image.shape, 1, 1, 1)[:3]]
    corners = np.array(list(product(*ends))) @ image.affine[:3, :3].T + image.affine[:3, 3]
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


@lru_cache(maxsize=2)  # slices of one volume follow each other; size and time make a changed file a new entry
def _values(path: str, volume: int, size: int, modified: int) -> np.ndarray:
    """One volume, float32, its axes turned to left -> right, back -> front, feet -> head."""
    from nibabel.orientations import apply_orientation

    image, turn = _open(Path(path))
    if image.get_data_dtype().fields:
        raise UserError(
            "the volume holds colours (RGB), not one number a voxel",
            where=path,
            mend="save it as one grey channel, or its slices as PNG",
        )
    own = tuple(int(side) for side in image.shape)
    if math.prod(own[:3]) * image.get_data_dtype().itemsize > RATIO_UNPACKED * size:  # before room is made for it
        raise UserError("the file is too short for the volume that it announces", where=path, mend="copy it again")
    chosen = (..., volume, *(0 for _ in own[4:])) if len(own) > 3 else ...
    values = np.asarray(image.dataobj[chosen], dtype=np.float32)
    return np.asarray(apply_orientation(values.reshape((*own, 1, 1, 1)[:3]), turn))  # type: ignore[no-untyped-call]


def _shape(image: Any, turn: np.ndarray, path: Path) -> tuple[int, int, int, int]:
    own = tuple(int(side) for side in image.shape)
    padded = (*own, 1, 1, 1, 1)[: max(4, len(own))]
    if any(side != 1 for side in padded[4:]):
        raise UserError(f"the file has the shape {by(own)}, more than a series of volumes", where=str(path))
    if min(padded) < 1:
        raise UserError(f"the file has the shape {by(own)}: it holds no voxels", where=str(path), mend="copy it again")
    sides = [0, 0, 0]
    for axis, target in enumerate(turn[:, 0].astype(int).tolist()):
        sides[target] = padded[axis]
    return sides[0], sides[1], sides[2], padded[3]


def _open(path: Path) -> tuple[Any, np.ndarray]:
    """nibabel's image, not unpacked yet; and how its axes are turned to left -> right, back -> front, feet -> head:
    [3, 2], the new place of each axis and 1 or -1.
    """
    import nibabel
    from nibabel.orientations import io_orientation

    image: Any = nibabel.load(path)
    turn = np.asarray(io_orientation(image.affine))  # type: ignore[no-untyped-call]
    if not np.isfinite(turn).all() or sorted(turn[:, 0].tolist()) != [0, 1, 2]:
        raise UserError(
            "the file's affine gives its axes no directions", where=str(path), mend="mend its header (sform or qform)"
        )
    return image, turn
