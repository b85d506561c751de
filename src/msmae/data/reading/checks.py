"""What every reader refuses in the same words: files that are not there, images too large, bombs, planes not chosen."""

from __future__ import annotations

import math
import os
import stat
import zlib
from pathlib import Path

from msmae.errors import UserError


def check_file(path: Path) -> None:
    """UserError unless ``path`` is a file that can be opened and holds something."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError("no such image", where=str(path), mend="check the path") from None
    except (OSError, ValueError) as error:  # a loop of links, a name too long or with a zero byte, a closed folder
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"the path leads to no image ({reason})", where=str(path)) from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError("a folder stands where an image was expected", where=str(path))
    if not os.access(path, os.R_OK):
        raise UserError("the file may not be read", where=str(path), mend="ask for the right to read it")
    if status.st_size == 0:
        raise UserError("the file is empty (0 bytes)", where=str(path), mend="copy it again from its source")


def check_size(shape: tuple[int, ...], *, limit: int, path: Path) -> None:
    """UserError where an image of this shape has more pixels than ``limit``; asked before it is unpacked."""
    if min(shape, default=0) < 1:
        raise UserError("the image has no pixels", where=str(path), mend="copy it again from its source")
    if math.prod(shape) > limit:
        raise UserError(
            f"the image unfolds to {by(shape)} pixels, more than the limit of {limit:,}",
            where=str(path),
            mend="raise max_pixels if that is meant",
        )


def choose_plane(chosen: int | None, count: int, *, column: str, path: Path) -> int:
    """The plane to read of ``count``; None will do where there is only one. ``column`` is where a manifest says it."""
    if chosen is None and count > 1:
        raise UserError(
            f"the file holds {count} images where one was expected",
            where=str(path),
            mend=f"say which in a manifest column {column} (0 to {count - 1})",
        )
    if chosen is not None and not 0 <= chosen < count:
        raise UserError(f"{column} {chosen} is not among 0 to {count - 1}", where=str(path), mend="count from 0")
    return chosen or 0


def by(shape: tuple[int, ...]) -> str:
    """``(480, 640)`` -> ``"480 x 640"``."""
    return " x ".join(str(side) for side in shape)


RATIO = 100
"""Times its packed size that a file may unfold to, where that is more numbers than an image may have pixels."""
_PIECE = 1 << 20


def check_unfolding(packed: int, unfolded: int, *, limit: int, path: Path) -> None:
    """UserError where so many packed bytes are a bomb: they announce more bytes than ``limit`` and ``RATIO`` allow."""
    if unfolded > max(limit, RATIO * packed):
        raise bomb(limit, path)


LARGE = 50_000_000
"""Pixels up to which a picture takes little memory, whatever its file holds."""
FLATTEST = 10_000
"""Pixels that a byte of a picture file holds at most: one of a single colour, of 1 bit a pixel, has 8,256 in a PNG."""


def check_holds(path: Path, shape: tuple[int, int], *, numbers: int = 0) -> None:
    """UserError where a large picture, or the ``numbers`` it is read in, is more than the file's bytes can hold: it is
    damaged, or a bomb."""
    packed = path.stat().st_size
    if max(math.prod(shape), numbers) > max(LARGE, FLATTEST * packed):
        raise UserError(
            f"{packed:,} bytes cannot hold a picture of {by(shape)} pixels",
            where=str(path),
            mend="copy it again from its source, or save it as PNG",
        )


def bomb(limit: int, path: Path) -> UserError:
    """The error for a file that unfolds to much more than it holds."""
    return UserError(
        f"the file unfolds to more than the limit of {limit:,} bytes, and than {RATIO} times its size",
        where=str(path),
        mend="raise max_pixels if that is meant",
    )


def check_stream(stream: bytes, *, limit: int, path: Path, wbits: int = zlib.MAX_WBITS) -> None:
    """UserError where a deflated stream unfolds to more than ``limit`` bytes; it is unpacked piece by piece."""
    if len(stream) * 1032 <= limit:  # deflate makes no more of a byte
        return
    unpack = zlib.decompressobj(wbits)
    total, rest = 0, stream
    while rest and not unpack.eof:
        total += len(unpack.decompress(rest, _PIECE))
        rest = unpack.unconsumed_tail
        if total > limit:
            raise bomb(limit, path)
