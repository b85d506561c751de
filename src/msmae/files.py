"""Writing files so that a kill, a full disk or a planted link never leaves half a file, or another file changed; and
reading the small ones that hold names and values, so that a hostile one is refused in one sentence.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 64 << 20
"""Bytes that a file of names and values may have."""
MOST_VALUES = 1_000_000
"""Values that it may hold, those that YAML's aliases repeat counted each time."""
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
    except BaseException as error:
        with suppress(FileNotFoundError):
            unfinished.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # what was written when the disk was full
        raise
    to_disk(path.parent)
    remove_left_over(path)


class Steady:
    """A file that takes whatever is written, and says at the end what failed: torch aborts where a write fails.

    Raises:
        OSError: at the end of its ``with`` block, what the first write that failed raised.
    """

    def __init__(self, path: Path) -> None:
        self.stream = path.open("wb")
        self.failed: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            if self.failed is None:
                self.stream.write(data)
        except OSError as error:
            self.failed = error
        return len(data)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self.failed = self.failed or error

    def __enter__(self) -> Steady:
        return self

    def __exit__(self, *raised: object) -> None:
        self.flush()
        with suppress(OSError):
            self.stream.close()
        if self.failed is not None:
            raise self.failed


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file whole or not at all; text as UTF-8, undecodable bytes of file names as backslashes."""
    with whole(path) as unfinished:
        unfinished.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
    return path


FORMULA = tuple("=+-@\t\r")
"""What a cell begins with that a spreadsheet takes for a formula."""


def safe_cell(cell: str) -> str:
    """A cell of text as a spreadsheet may be given it: with an apostrophe before what it would compute."""
    return (
        f"'{cell}" if cell.startswith(FORMULA) or (cell[:1] == "'" and cell[1:].startswith((*FORMULA, "'"))) else cell
    )


def own_cell(cell: str) -> str:
    """The cell that ``safe_cell`` was given."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith((*FORMULA, "'")) else cell


def fill_csv(path: Path, table: pd.DataFrame, *, float_format: str | None = None) -> None:
    """Fill a file with a table of people's names and paths as CSV: UTF-8, undecodable bytes of file names as they are,
    text as a spreadsheet may be given it (:func:`safe_cell`).
    """
    texts = [name for name in table if table[name].dtype.kind not in "biufc"]
    cells = {str(name): [safe_cell(cell) if isinstance(cell, str) else cell for cell in table[name]] for name in texts}
    returns = any("\r" in str(cell) for column in cells.values() for cell in column)  # left unquoted otherwise
    table.assign(**cells).to_csv(
        path, index=False, encoding="utf-8", errors="surrogateescape", lineterminator="\n", float_format=float_format,
        quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,
    )  # fmt: skip


def own_folder(folder: Path) -> Path:
    """Make a folder unless it is there. Raises ``UserError`` where it is a link: what is written would go elsewhere;
    and where no folder can be made."""
    if folder.is_symlink():
        raise UserError("is a link to another place", where=str(folder), mend="remove the link")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as in /proc
        raise UserError("no folder can be made here", where=str(folder), mend="choose another place") from error
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


def read_mapping(path: Path, *, mend: str, what: str | None = None) -> dict[str, Any]:
    """The names and values of a JSON file, or a YAML file by its suffix.

    Args:
        what: what cannot be read, in words; the file's name unless given.
        mend: how that is put right.

    Raises:
        UserError: the file is missing, too large, malformed, repeats itself without end, or holds no names.
    """
    import yaml

    def refused(reason: str) -> UserError:
        return UserError(f"{what or path.name} cannot be read ({reason})", where=str(path), mend=mend)

    try:
        if path.stat().st_size > LARGEST:
            raise refused("it is too large")
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except UserError:
        raise
    except OSError as error:
        raise refused(error.strerror or "it cannot be opened") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise refused(f"it is no YAML{f': line {mark.line + 1}' if mark else ''}") from None
    except Exception:  # PyYAML and json raise many kinds for what is malformed, or nested without end
        named = path.suffix in (".json", ".yaml", ".yml")
        raise refused("it is malformed" if named else "its name does not end in .yaml") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise refused("it holds no names and values")
    if _endless(content):
        raise refused("it repeats itself without end")
    return content


def _endless(content: Any) -> bool:
    """Whether nested values are more than ``MOST_VALUES``, because aliases repeat them, or hold themselves."""
    waiting, count = [content], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            return True
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set)):
            waiting += value
    return False
