"""The chain of a TIFF's pages, walked before a decoder is given the file: in a circle it would walk for ever."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from msmae.errors import UserError

MOST_PAGES = 1_000_000


def check_pages(path: Path) -> None:
    """UserError where a page follows one that came before it, or there are more than ``MOST_PAGES``."""
    with path.open("rb") as file:
        seen: set[int] = set()
        for at in _offsets(file):
            if at in seen or len(seen) == MOST_PAGES:
                raise UserError("its pages follow each other in a circle", where=str(path), mend="copy it again")
            seen.add(at)


def _offsets(file: BinaryIO) -> Iterator[int]:
    """Where each page's list of tags begins, in the order of the chain, until it ends or leaves the file."""
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = len(head) == 16 and struct.unpack(f"{order}H", head[2:4]) == (43,)
    number, offset, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    if len(head) < 8:
        return
    (at,) = struct.unpack(f"{order}{offset}", head[8:16] if big else head[4:8])
    size = file.seek(0, 2)
    while 0 < at < size:
        yield at
        file.seek(at)
        count = file.read(struct.calcsize(number))
        if len(count) < struct.calcsize(number):
            return
        file.seek(at + len(count) + struct.unpack(f"{order}{number}", count)[0] * entry)
        following = file.read(struct.calcsize(offset))
        if len(following) < struct.calcsize(offset):
            return
        (at,) = struct.unpack(f"{order}{offset}", following)
