"""From a manifest's rows to decoded images and masks of one size, by threads, in order: what a store is made of."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from msmae.data.manifest import Manifest
from msmae.data.reading.images import (
    ImageSource,
    Plane,
    Reading,
    check_sides,
    count_channels,
    fit_image,
    load_image,
    read_source,
)
from msmae.data.reading.masks import INSIDE, MaskRule, fit_classes, read_mask
from msmae.errors import UserError

log = logging.getLogger("msmae")
CHUNK = 64
SURVEY = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """Which images are to be decoded, and how."""

    sources: list[ImageSource]
    masks: list[list[tuple[str, str]]]
    """Class (``""``: none is named) and file of each mask."""
    size: tuple[int, int]
    channels: int
    reading: Reading
    workers: int
    rule: MaskRule | None = None
    """How masks become classes; None: 1 inside, and an image without a mask has none."""
    smallest: int = 1
    """Pixels that each side of an image must have."""

    def image(self, row: int) -> np.ndarray:
        """[channels, *size]; UserError if it cannot be read."""
        return load_image(self.sources[row], size=self.size, channels=self.channels, reading=self.reading)

    def mask(self, row: int, *, shape: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 ``size``, all 0 where the image has no mask; UserError if a mask cannot be read or is not ``shape``."""
        at = self.sources[row]
        if not self.masks[row]:
            if self.rule is not None and row not in self.rule.healthy:
                raise UserError("the image has no mask", where=at.path, mend="name it in the column mask_path")
            return np.zeros(self.size, np.uint8)
        rule = self.rule or INSIDE
        mask = read_mask(self.masks[row], rule, image=at.path, shape=shape, plane=at.plane, reading=self.reading)
        return fit_classes(mask, size=self.size, overlapping=bool(rule.layers))

    def both(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask, and the check that they have the same size before they are resized."""
        source = self.sources[row]
        array = read_source(source, reading=self.reading)  # [C, H, W]
        check_sides(array, smallest=self.smallest, where=source.path)
        image = fit_image(array, size=self.size, channels=self.channels, where=source.path)
        return image, self.mask(row, shape=(array.shape[1], array.shape[2]))


@dataclass(frozen=True)
class OnDemand:
    """Stands where a memory map would, and decodes the rows asked for, each time."""

    decode: Callable[[int], np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype
    workers: int
    blank: Collection[int] = ()
    """Rows that cannot be read: zeros, as a file of decoded images has them."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Rows by their numbers, [B, ...]."""
        wanted = np.arange(len(self))[rows].tolist()
        found = np.zeros((len(wanted), *self.shape[1:]), self.dtype)
        readable = [at for at, row in enumerate(wanted) if row not in self.blank]
        with ThreadPoolExecutor(self.workers) as pool:
            for at, decoded in zip(readable, pool.map(self.decode, [wanted[at] for at in readable]), strict=True):
                found[at] = decoded
        return found


def on_demand(job: Job, kind: np.dtype, excluded: Collection[int]) -> tuple[OnDemand, OnDemand | None]:
    """Images and masks of a job, decoded whenever they are fetched; None: there are no masks."""
    count = len(job.sources)
    images = OnDemand(job.image, (count, job.channels, *job.size), kind, job.workers, excluded)
    if not any(job.masks):
        return images, None
    return images, OnDemand(job.mask, (count, *job.size), np.dtype(np.uint8), job.workers, excluded)


def image_sources(manifest: Manifest) -> list[ImageSource]:
    """Where each sample is and what its numbers need, from the manifest's columns.

    Optional columns: ``frame``, ``axis`` and ``index`` (a plane of a film or volume), ``intensity_offset`` (added to
    the numbers), ``window`` (``low,high``); an empty cell is the default. Raises UserError where a cell is not the
    number it should be.
    """
    table, count = manifest.table, len(manifest)

    def column(name: str, convert: Callable[[str], T], default: T) -> list[T]:
        if name not in table.columns:
            return [default] * count
        try:
            return [convert(text) if text else default for text in table[name]]
        except ValueError as error:
            raise UserError(f"the manifest column {name} holds something else than numbers ({error})") from None

    planes = map(Plane, *(column(name, _whole, None) for name in ("frame", "axis", "index")))
    rows = zip(planes, column("intensity_offset", float, 0.0), column("window", _range, ""), strict=True)
    return [ImageSource(str(manifest.path(i)), *row) for i, row in enumerate(rows)]


def _whole(text: str) -> int | None:
    return int(text)


def _range(text: str) -> str:
    low, high = (float(number) for number in text.split(","))
    return f"{low}..{high}"


def common_channels(sources: list[ImageSource], *, workers: int) -> int:
    """The channels that serve all images: 1 if all are grey, 3 if grey and colour are mixed (which is told), n if all
    have n."""

    def attempt(source: ImageSource) -> int:
        try:
            return count_channels(source)
        except UserError:
            return 0  # the reason is told when it is decoded

    with ThreadPoolExecutor(workers) as pool:
        counts = list(pool.map(attempt, sources))
    found = set(counts) - {0}
    channels = agreed_channels(found)
    if len(found) > 1:
        rarer = min(found, key=counts.count)
        log.warning(
            "%s stored in %s, the others in %s (the first: %s): all are read in colour; model.channels 1 reads them in "
            "grey",
            "1 image is" if counts.count(rarer) == 1 else f"{counts.count(rarer):,} images are",
            *(("grey", "colour") if rarer == 1 else ("colour", "grey")),
            sources[counts.index(rarer)].path,
        )
    return channels


def agreed_channels(found: Collection[int]) -> int:
    """The channels that serve images of these numbers of channels. Raises ``UserError`` where none do."""
    kinds = sorted(set(found))
    if kinds != [1, 3] and len(kinds) > 1:
        raise UserError(
            f"the images have different numbers of channels ({', '.join(map(str, kinds))})",
            mend="set --model.channels, or keep only images of one kind",
        )
    return kinds[-1] if kinds else 1


def common_type(job: Job) -> np.dtype:
    """The number type of most images, by a sample spread over the rows (or of the first image that can be read).

    uint8 where nothing can be read: that is told row by row when everything is decoded.
    """
    spread = np.linspace(0, len(job.sources) - 1, SURVEY).astype(int).tolist()
    found: Counter[np.dtype] = Counter()
    for row in dict.fromkeys([*spread, *range(len(job.sources))]):
        if found and row not in spread:
            break
        with suppress(UserError):  # told with its reason when it is decoded
            found[job.image(row).dtype] += 1
    return found.most_common(1)[0][0] if found else np.dtype(np.uint8)


def decode_all(job: Job, *, kind: np.dtype) -> Iterator[tuple[np.ndarray, np.ndarray] | str]:
    """(image, mask) of every row in order, or the reason why a row cannot be used; at most ``CHUNK`` rows are held."""

    def attempt(row: int) -> tuple[np.ndarray, np.ndarray] | str:
        try:
            image, mask = job.both(row)
        except UserError as error:
            return str(error)
        if image.dtype != kind:
            return f"the image holds {image.dtype} numbers where most hold {kind} ({job.sources[row].path})"
        return image, mask

    with ThreadPoolExecutor(job.workers) as pool:
        for start in range(0, len(job.sources), CHUNK):
            yield from pool.map(attempt, range(start, min(start + CHUNK, len(job.sources))))
