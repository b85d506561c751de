"""Decode every image once into a memory-mapped array; after that, a batch is one gather.

A store is a folder ``<cache>/<key>/`` with ``images.npy`` [n, C, H, W], ``masks.npy`` [n, H, W] where there are masks,
and ``store.json``. The key is a hash of the files (path, size, time of change), of the planes taken from them and of
the settings, so a changed file or setting is a new store, and the same data is decoded once for all runs. The folder
appears under its name only when it is complete; a lock lets a second run wait for the first instead of decoding twice.
Large data lies in many files (``shards.py``). Where the disk has no room, images are decoded each time they are
fetched, and the log says so.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from msmae.data.manifest import Manifest
from msmae.data.reading.arrays import split_reference
from msmae.data.reading.decoding import (
    CHUNK,
    Job,
    OnDemand,
    common_channels,
    common_type,
    decode_all,
    image_sources,
    on_demand,
)
from msmae.data.reading.images import Reading
from msmae.data.reading.masks import MaskRule
from msmae.data.shards import PLAN, Shards, needs_shards, open_shards, write_shards
from msmae.errors import UserError
from msmae.records import file_sum

FORMAT = 2
READERS = ("Pillow", "tifffile", "pydicom", "python-gdcm", "nibabel")
LISTED = 20

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger("msmae")


@dataclass(frozen=True)
class ImageStore:
    """Decoded images, row i = sample id i. Ids that could not be read are in ``excluded`` and cannot be fetched."""

    images: np.ndarray | Shards | OnDemand
    """Memory map [n, C, H, W] of uint8, uint16, int16 or float32, in the files' own units."""
    masks: np.ndarray | Shards | OnDemand | None
    """Memory map [n, H, W] of uint8, 1 inside (under a ``MaskRule`` what that says); all 0 in rows without a mask. None
    where no row has one."""
    excluded: dict[int, str] = field(default_factory=dict)
    """Sample id -> why it was left out; empty unless ``on_error="skip"``."""
    content: str = ""
    """The check sum of the images; empty where they are decoded on demand."""

    def fetch(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Images [B, C, H, W] of these sample ids, as a new array."""
        return np.asarray(self.images[self._rows(ids)])

    def fetch_masks(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Masks [B, H, W] of these sample ids, uint8, 1 inside."""
        if self.masks is None:
            raise UserError("the data has no masks", mend="add a mask_path column to the manifest")
        return np.asarray(self.masks[self._rows(ids)])

    def drawn(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Sample ids in the order in which an epoch that drew them so reads them: shard by shard, where there are."""
        return self.images.plan.together(ids, generator) if isinstance(self.images, Shards) else ids

    def mean_std(self, ids: np.ndarray | Sequence[int]) -> tuple[list[float], list[float]]:
        """Mean and (population) standard deviation of each channel over all pixels of these images.

        In the files' own units, in float64, merged chunk by chunk in the order of the ids (Chan, Golub and LeVeque,
        1979). Raises UserError where a channel is constant.
        """
        rows = self._rows(ids)
        if len(rows) == 0:
            raise UserError("mean and standard deviation of no images", mend="check that the training split has rows")
        mean = variance = np.zeros(self.images.shape[1])  # [C]
        for start in range(0, len(rows), CHUNK):
            chunk = np.asarray(self.images[rows[start : start + CHUNK]]).astype(np.float64)  # [B, C, H, W]
            share = len(chunk) / (start + len(chunk))
            apart = chunk.mean(axis=(0, 2, 3)) - mean
            variance = variance + share * (chunk.var(axis=(0, 2, 3)) - variance) + share * (1 - share) * apart**2
            mean = mean + share * apart
        if not (variance > 0).all():
            raise UserError(f"channel {int(np.argmin(variance))} has the same value in every pixel of every image")
        return mean.tolist(), np.sqrt(variance).tolist()

    def _rows(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        rows = np.asarray(ids, dtype=np.int64)
        for row in rows.tolist() if self.excluded else ():
            if row in self.excluded:
                mend = "fetch only ids that are not in `excluded`"
                raise UserError(f"sample {row} was left out: {self.excluded[row]}", mend=mend)
        return rows


def open_store(
    manifest: Manifest,
    *,
    size: tuple[int, int],
    channels: int | None = None,
    cache: Path,
    reading: Reading | None = None,
    rule: MaskRule | None = None,
    smallest: int = 1,
    on_error: str = "stop",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageStore:
    """The store of a manifest's images at ``size`` (height, width), decoded now unless ``cache`` holds it already.

    ``channels=None`` takes what the files have (1 if all are grey, 3 if grey and colour are mixed). An image with a
    side of fewer than ``smallest`` pixels counts as one that cannot be used. ``on_error="stop"``
    raises one UserError that names every file that cannot be read; ``"skip"`` leaves them out and says which in the log
    and in ``excluded``. Under a ``rule`` masks hold classes, and an image without one is refused in the same way.
    ``progress`` is called with (images done, images in all) while files are decoded.
    """
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error is {on_error!r}", mend='say "stop" or "skip"')
    if len(manifest) == 0:
        raise UserError("the data has no images", mend="check the path of the data")
    reading, workers = reading or Reading(), workers or os.cpu_count() or 1
    sources = image_sources(manifest)
    masks = [[(name, str(path)) for name, path in manifest.masks(i)] for i in range(len(sources))]
    job = Job(sources, masks, size, channels or 0, reading, workers, rule, smallest)
    folder = cache / _content_key(job)
    store = _open_folder(folder, job)
    if store is None:
        with _locked(folder):
            store = _open_folder(folder, job) or _build(folder, job, on_error=on_error, progress=progress)
    if store.excluded:
        report = _unreadable(store.excluded, len(sources), cache=cache)
        if on_error == "stop" or len(store.excluded) == len(sources):
            raise UserError(report, mend="mend or remove these files, or leave them out with --on-error skip")
        _log.warning("%s", report)
    return store


def _content_key(job: Job) -> str:
    """Hash of what the store will hold: each sample's files (path, size, time of change), its plane, the settings."""
    seen: dict[Path, list[int]] = {}

    def stamp(path: str) -> list[object]:
        reference = split_reference(path)
        file = Path(path) if reference is None else reference[0]
        if file not in seen:
            try:
                seen[file] = [file.stat().st_size, file.stat().st_mtime_ns]
            except (OSError, ValueError):  # told with its reason when it is decoded
                seen[file] = [-1, -1]
        return [os.path.abspath(path), *seen[file]]

    settings = [FORMAT, [version(name) for name in READERS], job.size, job.channels, asdict(job.reading)]
    if job.rule is not None:
        settings.append([job.rule.classes, job.rule.any_value, sorted(job.rule.healthy)])
        if job.rule.layers:
            settings.append([*job.rule.layers, [[name for name, _ in masks] for masks in job.masks]])
    if job.smallest > 1:
        settings.append(job.smallest)
    if any(job.masks):
        settings.append("no class is lost")  # small lesions were, when masks were made smaller
    if any(mask.lower().endswith((".nii", ".nii.gz")) for masks in job.masks for _, mask in masks):
        settings.append("masks lie where their images do")  # those without an affine were mirrored
    digest = hashlib.sha256(json.dumps(settings).encode())
    for source, masks in zip(job.sources, job.masks, strict=True):
        digest.update(
            json.dumps([stamp(source.path), astuple(source)[1:], [stamp(mask) for _, mask in masks]]).encode()
        )
    return digest.hexdigest()[:24]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold ``<key>.lock``: of two runs one decodes and the other waits for it. The lock goes with a killed process."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{folder}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another run is decoding the same images; waiting for it (%s)", folder)
        lock.acquire()
    except OSError as error:
        mend = "keep the cache in a folder that can be written (MSMAE_CACHE)"
        raise UserError(
            f"the cache cannot be written ({error.strerror})", where=str(folder.parent), mend=mend
        ) from error
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, job: Job, *, on_error: str, progress: Progress | None) -> ImageStore:
    """Decode into ``<key>.partial``, renamed when complete. Only the holder of the lock is here: leftovers may go."""
    job = job if job.channels else replace(job, channels=common_channels(job.sources, workers=job.workers))
    kind = common_type(job)
    problems: dict[int, str] = {}
    rows = _noting(job, kind, problems, progress)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        written = _write_arrays(partial, job, kind, rows)
        if not problems or (on_error == "skip" and len(problems) < len(job.sources)):
            record = {"format": FORMAT, "excluded": {str(row): why for row, why in problems.items()}, **written}
            (partial / "store.json").write_text(json.dumps(record, indent=2))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _log.warning(
            "no room for the decoded images in %s (%s): each will be decoded whenever it is needed, which is slower; "
            "keep the cache on a larger disk (MSMAE_CACHE)",
            *(folder.parent, error.strerror),
        )
        for _ in rows:  # the rest, only to find what cannot be read
            pass
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _open_folder(folder, job) or ImageStore(*on_demand(job, kind, problems), excluded=problems)


def _noting(
    job: Job, kind: np.dtype, problems: dict[int, str], progress: Progress | None
) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
    """Image and mask of every row, None for the rows that land in ``problems``."""
    for row, result in enumerate(decode_all(job, kind=kind)):
        if isinstance(result, str):
            problems[row] = result
        if progress is not None and ((row + 1) % CHUNK == 0 or row + 1 == len(job.sources)):
            progress(row + 1, len(job.sources))
        yield None if isinstance(result, str) else result


def _write_arrays(
    folder: Path, job: Job, kind: np.dtype, rows: Iterator[tuple[np.ndarray, np.ndarray] | None]
) -> dict[str, Any]:
    """images.npy and, where there are masks, masks.npy, row after row, or shards; what the record says of them. An
    OSError where the disk has no room."""
    if needs_shards(job, kind):
        return write_shards(folder, job, kind, rows)
    count, shape = len(job.sources), (job.channels, *job.size)
    blank = np.zeros(shape, kind), np.zeros(job.size, np.uint8)
    if shutil.disk_usage(folder).free < count * (blank[0].nbytes + blank[1].nbytes * any(job.masks)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with ExitStack() as stack:
        images = stack.enter_context(open(folder / "images.npy", "wb"))
        masks = stack.enter_context(open(folder / "masks.npy", "wb")) if any(job.masks) else None
        _write_header(images, (count, *shape), kind)
        if masks is not None:
            _write_header(masks, (count, *job.size), np.dtype(np.uint8))
        for row in rows:
            image, mask = row or blank
            images.write(image.tobytes())
            if masks is not None:
                masks.write(mask.tobytes())
    return {"sums": {file.name: file_sum(file) for file in sorted(folder.glob("*.npy"))}}


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _open_folder(folder: Path, job: Job) -> ImageStore | None:
    """The store in a folder; None where there is none, or a damaged one, which is told."""
    if not (folder / "store.json").is_file():
        return None
    try:
        record = json.loads((folder / "store.json").read_text())
        sums = record["sums"]
        if any(file_sum(folder / name) != told for name, told in sums.items()):
            raise ValueError("the check sum is another")
        excluded = {int(row): str(why) for row, why in record["excluded"].items()}
        if "shards" in record:
            files = open_shards(folder, record["shards"], job, excluded=excluded)
            return ImageStore(*files, excluded=excluded, content=sums[PLAN])
        masks = np.load(folder / "masks.npy", mmap_mode="r") if "masks.npy" in sums else None
        images = np.load(folder / "images.npy", mmap_mode="r")
        return ImageStore(images, masks, excluded=excluded, content=sums["images.npy"])
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        _log.warning("the decoded images in the cache are damaged, and decoded again (%s)", folder)
        return None


def _unreadable(problems: dict[int, str], count: int, *, cache: Path) -> str:
    """Every file that cannot be used and why; beyond ``LISTED`` lines the whole list is in a file that is named."""
    lines = [problems[row] for row in sorted(problems)]
    head = f"{len(lines)} of {count} images cannot be used:"
    if len(lines) <= LISTED:
        return "\n  ".join([head, *lines])
    listing = cache / "unreadable.txt"
    listing.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    return "\n  ".join([head, *lines[:LISTED], f"... and {len(lines) - LISTED} more, all named in {listing}"])
