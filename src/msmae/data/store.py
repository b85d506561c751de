"""Decode every image once into a memory-mapped array; after that, a batch is one gather.

A store is a folder ``<cache>/<key>/`` with ``images.npy`` [n, C, H, W], ``masks.npy`` [n, H, W] where there are masks,
and ``store.json``. The key is a hash of the files (path, size, time of change), of the planes taken from them and of
the settings, so a changed file or setting is a new store, and the same data is decoded once for all runs. The folder
appears under its name only when it is complete; a lock lets a second run wait for the first instead of decoding twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import numpy as np

from msmae.data.images import (
    ImageSource,
    Reading,
    count_channels,
    fit_image,
    fit_mask,
    load_image,
    read_image,
    read_mask,
    split_reference,
)
from msmae.data.manifest import Manifest
from msmae.errors import UserError

FORMAT = 1
CHUNK = 256

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class ImageStore:
    """Decoded images, row i = sample id i. Ids that could not be read are in ``excluded`` and cannot be fetched."""

    images: np.ndarray
    """Memory map [n, C, H, W] of uint8, uint16, int16 or float32, in the files' own units."""
    masks: np.ndarray | None
    """Memory map [n, H, W] of uint8, 1 inside; all 0 in rows without a mask. None where no row has one."""
    excluded: dict[int, str] = field(default_factory=dict)
    """Sample id -> why it was left out; empty unless ``on_error="skip"``."""

    def fetch(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Images [B, C, H, W] of these sample ids, as a new array."""
        return np.asarray(self.images[self._rows(ids)])

    def fetch_masks(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Masks [B, H, W] of these sample ids, uint8, 1 inside."""
        if self.masks is None:
            raise UserError("the data has no masks", mend="add a mask_path column to the manifest")
        return np.asarray(self.masks[self._rows(ids)])

    def mean_std(self, ids: np.ndarray | Sequence[int]) -> tuple[list[float], list[float]]:
        """Mean and (population) standard deviation of each channel over all pixels of these images.

        In the files' own units, computed in float64, chunk by chunk in the order of the ids. Raises UserError where a
        channel is constant.
        """
        rows = self._rows(ids)
        if len(rows) == 0:
            raise UserError(
                "mean and standard deviation of no images at all", mend="check that the training split has rows"
            )
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        mean = np.sum([self._chunk(chunk).mean(axis=(0, 2, 3)) * len(chunk) for chunk in chunks], axis=0) / len(rows)
        centre = mean[:, None, None]
        squares = [((self._chunk(chunk) - centre) ** 2).mean(axis=(0, 2, 3)) * len(chunk) for chunk in chunks]
        std = np.sqrt(np.sum(squares, axis=0) / len(rows))
        if not (std > 0).all():
            raise UserError(f"channel {int(np.argmin(std))} has the same value in every pixel of {len(rows)} images")
        return mean.tolist(), std.tolist()

    def _chunk(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.images[rows]).astype(np.float64)

    def _rows(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        rows = np.asarray(ids, dtype=np.int64)
        missing = [int(row) for row in rows if int(row) in self.excluded] if self.excluded else []
        if missing:
            raise UserError(
                f"sample {missing[0]} was left out because it cannot be read: {self.excluded[missing[0]]}",
                mend="fetch only sample ids that are not in `excluded`",
            )
        return rows


def open_store(
    manifest: Manifest,
    *,
    size: tuple[int, int],
    channels: int | None = None,
    cache: Path,
    reading: Reading | None = None,
    on_error: str = "stop",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageStore:
    """The store of a manifest's images at ``size`` (height, width), decoded now unless ``cache`` holds it already.

    ``channels=None`` takes what the files have (1 if all are grey, 3 if grey and colour are mixed). ``on_error="stop"``
    raises one UserError that names every file that cannot be read; ``"skip"`` leaves them out and reports them in
    ``excluded``. ``progress`` is called with (images done, images in all) while files are decoded.
    """
    from filelock import FileLock

    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error is {on_error!r}", mend='say "stop" or "skip"')
    sources = image_sources(manifest)
    masks = [tuple(str(path) for path in manifest.mask_paths(i)) for i in range(len(sources))]
    settings = {
        "format": FORMAT,
        "size": list(size),
        "channels": channels,
        "reading": asdict(reading or Reading()),
        "on_error": on_error,
        "pillow": version("Pillow"),
    }
    key = _content_key(sources, masks, settings)
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if not (folder / "store.json").is_file():
            threads = workers or os.cpu_count() or 1
            channels = channels or _common_channels(sources, threads)
            job = _Job(sources, masks, size, channels, reading or Reading(), on_error, threads)
            _build(folder, job, settings=settings, progress=progress)
    return _open_folder(folder)


def image_sources(manifest: Manifest) -> list[ImageSource]:
    """Where each sample is: its path and, in a volume or film, the plane (columns ``frame``, ``axis``, ``index``)."""

    def numbers(column: str) -> list[int | None]:
        if column not in manifest.table.columns:
            return [None] * len(manifest.table)
        try:
            return [int(text) if text else None for text in manifest.table[column]]
        except ValueError as error:
            raise UserError(f"the column {column} holds something that is not a whole number ({error})") from None

    planes = zip(numbers("frame"), numbers("axis"), numbers("index"), strict=True)
    return [ImageSource(str(manifest.path(i)), *plane) for i, plane in enumerate(planes)]


@dataclass(frozen=True)
class _Job:
    sources: list[ImageSource]
    masks: list[tuple[str, ...]]
    size: tuple[int, int]
    channels: int
    reading: Reading
    on_error: str
    workers: int


@dataclass(frozen=True)
class _Row:
    image: np.ndarray  # [C, H, W]
    mask: np.ndarray | None  # [H, W]


def _content_key(sources: list[ImageSource], masks: list[tuple[str, ...]], settings: dict[str, object]) -> str:
    """Hash of what the store will hold: each sample's files (path, size, time of change), its plane, the settings."""
    seen: dict[Path, list[int]] = {}

    def stamp(path: str) -> list[object]:
        reference = split_reference(path)
        file = Path(path) if reference is None else reference[0]
        if file not in seen:
            status = file.stat() if file.exists() else None
            seen[file] = [-1, -1] if status is None else [status.st_size, status.st_mtime_ns]
        return [os.path.abspath(path), *seen[file]]

    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for source, paths in zip(sources, masks, strict=True):
        row = [stamp(source.path), source.frame, source.axis, source.index, [stamp(path) for path in paths]]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:24]


def _build(folder: Path, job: _Job, *, settings: dict[str, object], progress: Progress | None) -> None:
    """Decode into ``<key>.partial``, renamed when complete. Only the holder of the lock is here: leftovers may go."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        excluded = _write_arrays(partial, job, progress=progress)
        record = {**settings, "images": len(job.sources), "excluded": {str(row): why for row, why in excluded.items()}}
        (partial / "store.json").write_text(json.dumps(record, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_arrays(folder: Path, job: _Job, *, progress: Progress | None) -> dict[int, str]:
    """Write images.npy and masks.npy row by row; return the rows left out and why."""
    count = len(job.sources)
    problems: dict[int, str] = {}
    blank = _first_readable(job)  # [C, H, W]: its type is the store's
    with open(folder / "images.npy", "wb") as images, open(folder / "masks.npy", "wb") as masks:
        _write_header(images, (count, *blank.shape), blank.dtype)
        _write_header(masks, (count, *job.size), np.dtype(np.uint8))
        for done, row in enumerate(_decode_all(job, problems, kind=blank.dtype), start=1):
            images.write(row.image.tobytes() if row else bytes(blank.nbytes))
            if any(job.masks):
                masks.write(row.mask.tobytes() if row and row.mask is not None else bytes(job.size[0] * job.size[1]))
            if progress is not None and (done % CHUNK == 0 or done == count):
                progress(done, count)
    if problems and job.on_error == "stop":
        raise _unreadable(problems, count)
    if not any(job.masks):
        (folder / "masks.npy").unlink()
    return problems


def _first_readable(job: _Job) -> np.ndarray:
    problems: dict[int, str] = {}
    for row, source in enumerate(job.sources):
        try:
            return load_image(source, size=job.size, channels=job.channels, reading=job.reading)
        except UserError as error:
            problems[row] = str(error)
    raise _unreadable(problems, len(job.sources))


def _decode_all(job: _Job, problems: dict[int, str], *, kind: np.dtype) -> Iterator[_Row | None]:
    """Rows in order, decoded a chunk at a time by threads (decoders release the interpreter); None for a problem."""

    def attempt(row: int) -> _Row | str:
        try:
            decoded = _decode(job, row)
        except UserError as error:
            return str(error)
        found = decoded.image.dtype
        where = job.sources[row].path
        return decoded if found == kind else f"the image holds {found} numbers where others hold {kind} ({where})"

    with ThreadPoolExecutor(job.workers) as pool:
        for start in range(0, len(job.sources), CHUNK):
            chunk = range(start, min(start + CHUNK, len(job.sources)))
            for row, result in zip(chunk, pool.map(attempt, chunk), strict=True):
                if isinstance(result, str):
                    problems[row] = result
                yield None if isinstance(result, str) else result


def _decode(job: _Job, row: int) -> _Row:
    source = job.sources[row]
    plane = {"frame": source.frame, "axis": source.axis, "index": source.index}
    array = read_image(source.path, **plane, reading=job.reading)  # [C, H, W]
    image = fit_image(array, size=job.size, channels=job.channels, where=source.path)
    if not job.masks[row]:
        return _Row(image, None)
    mask = read_mask(job.masks[row], shape=(array.shape[1], array.shape[2]), **plane, reading=job.reading)
    return _Row(image, fit_mask(mask, size=job.size))


def _try_count_channels(source: ImageSource) -> int:
    try:
        return count_channels(source)
    except UserError:
        return 0  # said with its reason when it is read


def _common_channels(sources: list[ImageSource], workers: int) -> int:
    with ThreadPoolExecutor(workers) as pool:
        found = sorted(set(pool.map(_try_count_channels, sources)) - {0})
    if not found:
        return 1
    if found in ([1], [3], [1, 3]) or len(found) == 1:
        return found[-1]
    raise UserError(
        f"the images have different numbers of channels ({', '.join(map(str, found))})",
        mend="set channels, or keep only images of one kind",
    )


def _unreadable(problems: dict[int, str], count: int) -> UserError:
    lines = [f"{len(problems)} of {count} images cannot be used:", *(f"  {problems[row]}" for row in sorted(problems))]
    return UserError("\n".join(lines), mend="\nmend or remove these files, or leave them out with --on-error skip")


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _open_folder(folder: Path) -> ImageStore:
    record = json.loads((folder / "store.json").read_text())
    masks = folder / "masks.npy"
    return ImageStore(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        masks=np.load(masks, mmap_mode="r") if masks.is_file() else None,
        excluded={int(row): why for row, why in record["excluded"].items()},
    )
