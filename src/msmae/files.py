"""Writing files so that a kill, a full disk or a planted link never leaves half a file, or another file changed."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from msmae.errors import UserError

LEFT_OVER = 3600.0
"""Seconds after which an unfinished file is what a killed process left, and goes."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new empty file beside ``path`` to be filled; at the end it is on the disk and takes the place of ``path``.

    The new file's name cannot be foreseen and it is never opened through a link. A link at ``path`` is replaced, not
    followed. If filling it fails, ``path`` stays as it was.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))
    try:
        yield unfinished
        to_disk(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(FileNotFoundError):
            unfinished.unlink()
        raise
    to_disk(path.parent)
    remove_left_over(path)


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file whole or not at all; text as UTF-8, undecodable bytes of file names as backslashes."""
    with whole(path) as unfinished:
        unfinished.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
    return path


def own_folder(folder: Path) -> Path:
    """Make a folder unless it is there. Raises ``UserError`` where it is a link: what is written would go elsewhere."""
    if folder.is_symlink():
        raise UserError("is a link to another place", where=str(folder), mend="remove the link")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # some systems open no folders
        return
    try:
        with suppress(OSError):  # nor can every file system be asked to
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_left_over(path: Path) -> None:
    """Remove what killed processes left of earlier tries to write ``path``."""
    for old in path.parent.glob(f".{escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - old.lstat().st_mtime > LEFT_OVER:
                old.unlink()
