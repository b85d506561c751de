"""Decoded images in many files, for data that is larger than the memory.

Each file (a shard) holds as many rows. Which row lies where is drawn by chance, so that the images of one shard are a
fair sample of all: an epoch goes through a few shards at a time, in an order of its own, and draws among their images.
So only these shards need to be in memory. A file is open no longer than one batch takes. Every row has a check sum,
which is compared whenever the row is read. Where the disk has room for a part of the shards only, these are kept, and
the other images are decoded each time they are fetched.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msmae.data.reading.decoding import Job, OnDemand, on_demand
from msmae.errors import UserError
from msmae.records import file_sum

WHOLE = 4 << 30
"""Bytes of decoded images up to which one file holds them all."""
SHARD = 1 << 30
"""Bytes of decoded images in a shard."""
TOGETHER = 4
"""Shards among whose images an epoch draws at a time."""
ROOM = 0.9
"""Share of the free disk that shards may take."""
PLAN = "plan.npz"
"""The file with the place and the check sums of every row."""


@dataclass(frozen=True)
class Plan:
    """Where each row lies.

    Attributes:
        places: [n] of each row, counted through all shards.
        rows: in a shard.
        kept: number of shards on disk; the images of the others are decoded each time.
    """

    places: np.ndarray
    rows: int
    kept: int

    @property
    def shards(self) -> np.ndarray:
        """[n] the shard of each row."""
        return self.places // self.rows

    def together(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Ids [m], as drawn, in an order that reads ``TOGETHER`` shards at a time; the shards' order is drawn."""
        shards = self.shards
        turn = generator.permutation(int(shards.max()) + 1) // TOGETHER  # [shards]
        return ids[np.argsort(turn[shards[ids]], kind="stable")]


@dataclass(frozen=True)
class Shards:
    """Stands where a memory map would: rows [B, ...] by their numbers."""

    folder: Path
    name: str
    """``images`` or ``masks``: what the files' names begin with."""
    shape: tuple[int, ...]
    """Of all rows, [n, ...]."""
    dtype: np.dtype
    plan: Plan
    sums: np.ndarray
    """[n] CRC-32 of each row."""
    rest: OnDemand
    """Decodes what is in no shard."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Rows by their numbers, [B, ...].

        Raises:
            UserError: a shard is damaged; the next run decodes all images again.
        """
        ids = np.arange(len(self))[rows]
        found = np.empty((len(ids), *self.shape[1:]), self.dtype)
        places = self.plan.places[ids]
        shards = places // self.plan.rows
        for shard in np.unique(shards):
            mine = np.flatnonzero(shards == shard)
            if shard >= self.plan.kept:
                found[mine] = self.rest[ids[mine]]
            else:
                found[mine] = self._read(int(shard), ids[mine], places[mine] % self.plan.rows)
        return found

    def _read(self, shard: int, ids: np.ndarray, at: np.ndarray) -> np.ndarray:
        """The rows of these ids, which lie ``at`` these places of a shard."""
        file = _file(self.folder, self.name, shard)
        try:
            rows = np.memmap(file, self.dtype, "r", shape=(self.plan.rows, *self.shape[1:]))[at]
            whole = all(zlib.crc32(row) == told for row, told in zip(rows, self.sums[ids], strict=True))
        except (OSError, ValueError):  # gone, or cut
            whole = False
        if not whole:
            (self.folder / "store.json").unlink(missing_ok=True)
            mend = "run the same command again: it decodes the images again and goes on"
            raise UserError("these decoded images are damaged", where=str(file), mend=mend)
        return np.asarray(rows)


def _file(folder: Path, name: str, shard: int) -> Path:
    return folder / f"{name}-{shard:05d}.bin"


def _widths(job: Job, kind: np.dtype) -> dict[str, int]:
    """``images``, and ``masks`` where there are some -> bytes of a row."""
    pixels = job.size[0] * job.size[1]
    images = {"images": job.channels * pixels * kind.itemsize}
    return images | ({"masks": pixels} if any(job.masks) else {})


def needs_shards(job: Job, kind: np.dtype) -> bool:
    """Whether the decoded images are too many bytes for one file."""
    return len(job.sources) * _widths(job, kind)["images"] > WHOLE


def write_shards(
    folder: Path, job: Job, kind: np.dtype, rows: Iterator[tuple[np.ndarray, np.ndarray] | None]
) -> dict[str, Any]:
    """Write the rows (image and mask, or None: zeros) into shards and ``PLAN``; what ``open_shards`` needs to know.

    Raises:
        OSError: the disk has no room for one shard, or ran full.
    """
    count, widths = len(job.sources), _widths(job, kind)
    each = max(1, SHARD // widths["images"])
    kept = min(-(-count // each), int(shutil.disk_usage(folder).free * ROOM) // (each * sum(widths.values())))
    if not kept:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    plan = Plan(np.random.default_rng(count).permutation(count), each, kept)
    sums: dict[str, Any] = {name: np.full(count, zlib.crc32(bytes(width)), np.uint32) for name, width in widths.items()}
    for name, width in widths.items():
        for shard in range(kept):
            with _file(folder, name, shard).open("wb") as file:
                file.truncate(each * width)
    for row, decoded in enumerate(rows):
        shard, at = divmod(int(plan.places[row]), each)
        for name, array in zip(widths, decoded or (), strict=False):
            content = array.tobytes()
            sums[name][row] = zlib.crc32(content)
            if shard < kept:
                with _file(folder, name, shard).open("r+b") as file:
                    file.seek(at * widths[name])
                    file.write(content)
    np.savez(folder / PLAN, places=plan.places, **sums)
    told = {"rows": each, "kept": kept, "channels": job.channels, "numbers": kind.str}
    return {"sums": {PLAN: file_sum(folder / PLAN)}, "shards": told}


def open_shards(
    folder: Path, told: dict[str, Any], job: Job, *, excluded: dict[int, str]
) -> tuple[Shards, Shards | None]:
    """Images and masks of a folder that ``write_shards`` filled; None: there are no masks."""
    images, masks = on_demand(replace(job, channels=told["channels"]), np.dtype(told["numbers"]), excluded)
    with np.load(folder / PLAN) as arrays:
        plan = Plan(arrays["places"], told["rows"], told["kept"])
        sums = {name: arrays[name] for name in arrays.files}

    def shards(name: str, rest: OnDemand) -> Shards:
        return Shards(folder, name, rest.shape, rest.dtype, plan, sums[name], rest)

    return shards("images", images), shards("masks", masks) if masks else None
