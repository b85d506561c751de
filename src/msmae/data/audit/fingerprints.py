"""One pass over the files of a data set: every image decoded once, and what the audit asks of it kept in 150 bytes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mode

import numpy as np

from msmae.data.audit.hashing import bits_apart, grey_plane, perceptual_hash, pixel_digest, resaving_distance
from msmae.data.audit.traits import acquisition, borders, corner_level, mark_share
from msmae.data.manifest import Manifest
from msmae.data.reading.arrays import split_reference
from msmae.data.reading.checks import check_file
from msmae.data.reading.decoding import CHUNK, image_sources
from msmae.data.reading.images import WHOLE, ImageSource, Reading, read_source
from msmae.data.reading.masks import read_mask
from msmae.data.reading.pictures import read_reduced
from msmae.data.store import READERS
from msmae.errors import UserError
from msmae.files import whole

FORMAT = 5
ENOUGH = 300_000  # pixels that a large JPEG is decoded to: hashes, borders and marks need no more
SETTLED = 24  # bits between a picture's hash and that of itself, decoded smaller
RESAVED = 200  # images that are saved again to see how far their hashes move

_log = logging.getLogger("msmae")

RECORD = np.dtype(
    [
        ("digest", np.uint64, 2),  # of the decoded pixels
        ("hash", np.uint16, 16),
        ("height", np.int32),
        ("width", np.int32),
        ("channels", np.int32),
        ("colour", np.bool_),  # whether the channels differ
        ("numbers", "U8"),  # the number type
        ("constant", np.bool_),
        ("borders", np.float32, 4),  # top, bottom, left, right; shares of the side
        ("corners", np.float32),
        ("marks", np.float32),
        ("acquisition", "U80"),
        ("coarseness", np.int32),
        ("resaved", np.int16),  # bits; -1 where not tried
        ("reduced", np.bool_),  # decoded smaller, and so is its digest's picture
    ]
)


@dataclass(frozen=True)
class Fingerprints:
    """What is known of each image, row i = sample id i.

    ``record`` [n] of ``RECORD``, zeros where an image cannot be read; ``problems`` sample id -> why not;
    ``mask_problems`` sample id -> why its masks cannot be used.
    """

    record: np.ndarray
    problems: dict[int, str]
    mask_problems: dict[int, str]

    def __len__(self) -> int:
        return len(self.record)

    @property
    def readable(self) -> np.ndarray:
        """bool [n]"""
        readable = np.ones(len(self), dtype=bool)
        readable[list(self.problems)] = False
        return readable

    def other_numbers(self) -> dict[int, str]:
        """Sample id -> in words, where an image holds numbers of another type than most of those that can be read."""
        kinds = self.record["numbers"]
        if not self.readable.any():
            return {}
        usual = mode(kinds[self.readable].tolist())
        others = np.flatnonzero(self.readable & (kinds != usual)).tolist()
        return {row: f"{kinds[row]} numbers where most images hold {usual}" for row in others}

    @classmethod
    def join(cls, parts: Sequence[Fingerprints]) -> Fingerprints:
        """Those of several data sets, one after the other."""
        starts = np.cumsum([0, *map(len, parts)]).tolist()
        problems: dict[int, str] = {}
        mask_problems: dict[int, str] = {}
        for start, part in zip(starts, parts, strict=False):
            problems |= {start + row: why for row, why in part.problems.items()}
            mask_problems |= {start + row: why for row, why in part.mask_problems.items()}
        return cls(np.concatenate([part.record for part in parts]), problems, mask_problems)

    def select(self, ids: Sequence[int] | np.ndarray) -> Fingerprints:
        """Those of these samples, numbered anew from 0, as ``Manifest.select`` does."""
        ids = np.asarray(ids, dtype=np.int64)
        kept = [
            {new: why[old] for new, old in enumerate(ids.tolist()) if old in why}
            for why in (self.problems, self.mask_problems)
        ]
        return Fingerprints(self.record[ids], *kept)


def take_fingerprints(
    manifest: Manifest,
    *,
    reading: Reading | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprints:
    """Decode every image and mask once, in threads (Pillow lets go of Python's lock), a chunk at a time. Large JPEG
    files are decoded smaller, and whole only where a file of another kind may hold the same picture.

    An image that cannot be read is a finding, not an error. With a folder ``cache`` the result is kept under a name
    made of the files' paths, sizes and times of change, so that a run after a ``check`` decodes nothing here; neither
    labels nor splits matter to it. ``progress`` is called with (images done, images in all).
    """
    reading = reading or Reading()
    sources = image_sources(manifest)
    masks = [tuple(str(path) for path in manifest.mask_paths(i)) for i in range(len(manifest))]
    kept = None if cache is None else cache / f"{_content_key(sources, masks, reading)}.npz"
    known = None if kept is None else _load(kept, len(sources))
    if known is not None:
        return known
    tried = set(np.linspace(0, len(sources) - 1, RESAVED).astype(int).tolist())

    def attempt(row: int) -> tuple[np.ndarray | None, str, str]:
        return _look(sources[row], masks[row], reading=reading, resave=row in tried)

    record = np.zeros(len(sources), RECORD)
    problems: dict[int, str] = {}
    mask_problems: dict[int, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(sources), CHUNK):
            rows = range(start, min(start + CHUNK, len(sources)))
            for row, (seen, problem, mask_problem) in zip(rows, pool.map(attempt, rows), strict=True):
                if seen is not None:
                    record[row] = seen
                if problem:
                    problems[row] = problem
                if mask_problem:
                    mask_problems[row] = mask_problem
            if progress is not None:
                progress(rows.stop, len(sources))
    _settle_digests(record, sources, reading)
    prints = Fingerprints(record, problems, mask_problems)
    if kept is not None:
        _save(prints, kept)
    return prints


def _look(
    source: ImageSource, masks: tuple[str, ...], *, reading: Reading, resave: bool
) -> tuple[np.ndarray | None, str, str]:
    """The record of one image; why it cannot be read, and why its masks cannot be used, or ``""``."""
    try:
        small = reduced(source, reading)
        pixels, shape = small or (read_source(source, reading=reading), None)  # [C, H, W]
        shape = shape or (pixels.shape[1], pixels.shape[2])
        made, coarseness = acquisition(source.path)
    except UserError as error:
        return None, str(error), ""
    seen = _describe(pixels, made, coarseness, resave=resave)
    seen["height"], seen["width"] = shape
    seen["reduced"] = small is not None
    return seen, "", _mask_problem(source, masks, shape, reading)


def reduced(source: ImageSource, reading: Reading) -> tuple[np.ndarray, tuple[int, int]] | None:
    """A large JPEG, smaller: uint8 [C, h, w] and the (height, width) of the whole; None for whatever is read whole."""
    plain = reading.window in ("file", "none") and source.plane == WHOLE and not source.offset
    if not plain or not source.path.lower().endswith((".jpg", ".jpeg")):
        return None
    check_file(Path(source.path))
    found = read_reduced(Path(source.path), pixels=ENOUGH, limit=reading.max_pixels)
    if found is None:
        return None
    pixels, shape = found
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return np.ascontiguousarray(planes), shape


def _settle_digests(record: np.ndarray, sources: Sequence[ImageSource], reading: Reading) -> None:
    """Give a JPEG that was decoded smaller the digest of its whole picture where an image that was not is as large and
    nearly the same: a PNG of the same pixels is the same picture."""
    small, whole = np.flatnonzero(record["reduced"]), np.flatnonzero(~record["reduced"])
    of_size: dict[tuple[int, int], list[int]] = {}
    for row in whole.tolist():
        of_size.setdefault((record["height"][row], record["width"][row]), []).append(row)
    for row in small.tolist():
        alike = of_size.get((record["height"][row], record["width"][row]), [])
        if (bits_apart(record["hash"][row], record["hash"][alike]) <= SETTLED).any():
            record["digest"][row] = np.frombuffer(pixel_digest(read_source(sources[row], reading=reading)), np.uint64)


def _describe(pixels: np.ndarray, made: str, coarseness: int, *, resave: bool) -> np.ndarray:
    plane = grey_plane(pixels)
    seen = np.zeros((), RECORD)
    seen["digest"] = np.frombuffer(pixel_digest(pixels), np.uint64)
    seen["hash"] = perceptual_hash(plane)
    seen["channels"], seen["height"], seen["width"] = pixels.shape
    seen["colour"] = (pixels != pixels[:1]).any()
    seen["numbers"] = pixels.dtype.name
    seen["constant"] = (pixels == pixels[:, :1, :1]).all()
    seen["borders"] = borders(plane)
    seen["corners"] = corner_level(plane)
    seen["marks"] = mark_share(plane, span=255.0 if pixels.dtype == np.uint8 else float(np.ptp(plane)))
    seen["acquisition"], seen["coarseness"] = made, coarseness
    seen["resaved"] = resaving_distance(plane) if resave and not seen["constant"] else -1
    return seen


def _mask_problem(source: ImageSource, masks: tuple[str, ...], shape: tuple[int, int], reading: Reading) -> str:
    if not masks:
        return ""
    try:
        read_mask(masks, image=source.path, shape=shape, plane=source.plane, reading=reading)
    except UserError as error:
        return str(error)
    return ""


def _content_key(sources: Sequence[ImageSource], masks: Sequence[tuple[str, ...]], reading: Reading) -> str:
    """Hash of what fingerprints are taken from: the files (path, size, time of change), their planes, the settings."""
    seen: dict[Path, list[int]] = {}

    def stamp(path: str) -> list[object]:
        reference = split_reference(path)
        file = Path(path) if reference is None else reference[0]
        if file not in seen:
            seen[file] = [(status := file.stat()).st_size, status.st_mtime_ns] if file.exists() else []
        return [os.path.abspath(path), *seen[file]]

    digest = hashlib.sha256(json.dumps([FORMAT, [version(name) for name in READERS], asdict(reading)]).encode())
    for source, of_image in zip(sources, masks, strict=True):
        digest.update(json.dumps([stamp(source.path), astuple(source), [stamp(mask) for mask in of_image]]).encode())
    return digest.hexdigest()[:24]


def _save(prints: Fingerprints, target: Path) -> None:
    """Keep fingerprints; a cache that cannot be written costs time and nothing else."""
    reasons = json.dumps([prints.problems, prints.mask_problems])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as unfinished, unfinished.open("wb") as stream:
            told = np.frombuffer(reasons.encode(), np.uint8)
            np.savez(stream, record=prints.record, reasons=told, sum=np.array(_sum(prints.record, told)))
    except OSError as error:
        _log.warning("the audit's decoding is not kept for the next time (%s: %s)", target.parent, error.strerror)


def _load(source: Path, count: int) -> Fingerprints | None:
    """The fingerprints of so many images that are kept in a file; None where there is none, or a damaged one."""
    if not source.is_file():
        return None
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            record, told = kept["record"], kept["reasons"]
            if record.dtype != RECORD or len(record) != count or str(kept["sum"]) != _sum(record, told):
                raise ValueError("the check sum is another")
        reasons = json.loads(told.tobytes())
        return Fingerprints(record, *({int(row): why for row, why in each.items()} for each in reasons))
    except Exception:  # numpy and zipfile raise every kind for a damaged archive
        _log.warning("what the audit kept of these images is damaged; they are decoded again (%s)", source)
        return None


def _sum(record: np.ndarray, reasons: np.ndarray) -> str:
    return hashlib.sha256(record.tobytes() + reasons.tobytes()).hexdigest()
