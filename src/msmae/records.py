"""What files must be when they are read back: check sums of large ones, and a folder's record of the files in it.

``record.json`` in a run's folder holds, for each file that later commands read, the SHA-256 and the lines of the last
two times it was written. The record is written first: whatever moment a run is killed at, the file is one of the two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msmae.errors import UserError
from msmae.files import read_mapping, whole, write_whole

FILE = "record.json"
IMAGES = "decoded images"
PART = 1 << 26


def file_sum(path: Path) -> str:
    """The SHA-256 of the SHA-256 of a file's parts of 64 MiB, read by threads: for files as large as a data set."""

    def part(at: int) -> bytes:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(at)
            left = PART
            while left and (piece := file.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
        return digest.digest()

    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(pool.map(part, range(0, path.stat().st_size, PART)))).hexdigest()


@contextmanager
def recorded(path: Path) -> Iterator[Path]:
    """As ``files.whole``; and the folder's record says what the file is, before it is there."""
    with whole(path) as unfinished:
        yield unfinished
        _note(path, unfinished.read_bytes())


def write_recorded(path: Path, content: str) -> Path:
    """Write a file whole, as UTF-8, and record it."""
    with recorded(path) as unfinished:
        unfinished.write_bytes(content.encode("utf-8", "backslashreplace"))
    return path


def check_recorded(path: Path) -> None:
    """Raise UserError where a file, or its end, is not what its folder's record says; nothing where it says nothing."""
    known = _read(path.parent).get(path.name)
    if not known or not path.is_file():
        return
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() in [entry.get("sha256") for entry in known]:
        return
    lines, had = content.count(b"\n"), known[-1].get("lines")
    how = "it was changed or damaged since" if lines == had else f"it has {lines} lines and had {had}"
    raise UserError(
        f"{path.name} is not what this run wrote: {how}",
        where=str(path),
        mend=f"copy the run again; if the change is meant, delete {FILE} beside it",
    )


def check_content(folder: Path, content: str) -> None:
    """Compare the check sum of a run's decoded images with the one it began with, or record it; "" is not known.

    Raises:
        UserError: the run was begun with other images.
    """
    record = _read(folder)
    if not content or record.get(IMAGES) == [{"sha256": content}]:
        return
    if IMAGES in record:
        raise UserError(
            "the images are not those that this run was started with: some were replaced, or are decoded otherwise now",
            where=str(folder),
            mend="put the images (and the versions of environment.json) back, choose another --out, or add --overwrite",
        )
    record[IMAGES] = [{"sha256": content}]
    write_whole(folder / FILE, json.dumps(record, indent=1, sort_keys=True) + "\n")


def _note(path: Path, content: bytes) -> None:
    record = _read(path.parent)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "lines": content.count(b"\n")}
    before = [known for known in record.get(path.name, []) if known != entry]
    record[path.name] = [*before[-1:], entry]
    write_whole(path.parent / FILE, json.dumps(record, indent=1, sort_keys=True) + "\n")


def _read(folder: Path) -> dict[str, Any]:
    """The record of a folder; empty where there is none."""
    path = folder / FILE
    if not path.is_file():
        return {}
    record = read_mapping(path, mend="copy the run again, or delete this file")
    return {name: known for name, known in record.items() if isinstance(known, list) and all(map(_is_entry, known))}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict)
