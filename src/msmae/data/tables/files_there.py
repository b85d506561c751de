"""What a table's file holds, in whatever encoding; which file a cell of it means, however it is written; and where that
is not there, which one may be meant."""

from __future__ import annotations

import difflib
import gzip
import os
import re
import zlib
from collections import Counter
from functools import cached_property
from pathlib import Path

from msmae.data.manifest import plain
from msmae.data.tables.listing import count, list_folder, without_suffix
from msmae.errors import UserError

LARGEST = 200_000_000  # bytes of a table, unpacked
ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+?\d+")
"""A number that a spreadsheet rounded: ``1,2E+05``."""


class FilesThere:
    """Finds the files that a table's cells name, relative to ``root``, and remembers by what rule."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.looked_up: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def find(self, cell: str) -> str | None:
        """The path as the file system knows it; None where there is no such file.

        Taken as they come: stray spaces, ``\\``, other Unicode forms, and an id without suffix or without its folder
        where one file alone is called so.
        """
        match = next((form for form in _spellings(cell) if exists(self.root, form)), None)
        if match is not None:
            return match
        name = plain(cell.strip().replace("\\", "/"))
        if name.startswith("/") or re.match(r"[A-Za-z]:", name):
            return None
        found = {path for path in self._named.get(name.rpartition("/")[2], ()) if plain(path).endswith(name)}
        found = found or {path for path in self._stems.get(name, ()) if "/" not in name}
        if len(found) != 1:
            return None
        (path,) = found
        rule = "suffix or folder"
        self.looked_up[rule] += 1
        self.examples.setdefault(rule, f"{name} is {path}")
        return path

    def notes(self) -> list[str]:
        """How files were found that are written without suffix or folder."""
        return [
            f"{count(number, 'path')} without {rule}, found by name: {self.examples[rule]}"
            for rule, number in self.looked_up.items()
        ]

    def nearest(self, cell: str) -> str:
        """What to do about a file that is not there: the one that may be meant, or ``""``."""
        if ROUNDED.fullmatch(cell.strip()):
            return "a spreadsheet rounded these numbers: save the table again from its source, with ids as text"
        if whole := self._stems.get(whole_number(cell)):
            return f"did you mean {whole[0]}? a program made decimal numbers of the ids: write them as text"
        folder, _, name = plain(cell.strip().replace("\\", "/")).removeprefix("./").rpartition("/")
        beside = {plain(path.rpartition("/")[2]): path for path in self._listed if _folder(path) == folder}
        alike = [path for other, path in beside.items() if _loosely(other) == _loosely(name)]
        alike += [beside[other] for other in difflib.get_close_matches(name, list(beside), n=1, cutoff=0.75)]
        if alike:
            return f"did you mean {alike[0]}? paths are taken relative to the folder of this table"
        elsewhere = [path for other, paths in self._named.items() if other.lower() == name.lower() for path in paths]
        if len(elsewhere) != 1:  # of several, or merely similar ones in other folders, none is likelier
            return ""
        return f"a file of this name is {elsewhere[0]}; paths are taken relative to the folder of this table"

    @cached_property
    def _listed(self) -> tuple[str, ...]:
        return list_folder(self.root).images if self.root.is_dir() else ()

    @cached_property
    def _named(self) -> dict[str, list[str]]:
        """File name -> the images of that name, anywhere below the table."""
        names: dict[str, list[str]] = {}
        for path in self._listed:
            names.setdefault(plain(path.rpartition("/")[2]), []).append(path)
        return names

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = {}
        for path in self._listed:
            stems.setdefault(plain(without_suffix(path.rpartition("/")[2])), []).append(path)
        return stems


def whole_number(cell: str) -> str:
    """``7`` of ``7.0`` and ``7,00``, as programs write whole numbers; else ``""``."""
    match = re.fullmatch(r"(\d+)[.,]0+", cell.strip())
    return match[1] if match else ""


def exists(folder: Path, path: str) -> bool:
    """Whether there is such a file, or for ``a.npz#train/17`` its archive."""
    container, mark, _ = path.partition(".npz#")
    return os.path.exists(os.path.join(folder, container + ".npz" if mark else path))


def readable(cell: str) -> str:
    """Turn bytes that are not UTF-8 into the letters they are in Windows-1252."""
    if cell.isascii() or not re.search("[\udc80-\udcff]", cell):
        return cell
    return cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _spellings(path: str) -> list[str]:
    """The ways in which a file of this name may be known to the file system, likeliest first."""
    import unicodedata

    forms = [path, path.strip(), path.strip().replace("\\", "/"), readable(path).strip()]
    forms += [unicodedata.normalize(form, path.strip()) for form in ("NFC", "NFD") if not path.isascii()]
    return list(dict.fromkeys(forms))


def _folder(path: str) -> str:
    return plain(path.rpartition("/")[0])


def _loosely(path: str) -> str:
    return without_suffix(path.rpartition("/")[2]).casefold()


def raw_bytes(source: Path) -> bytes:
    """What a table's file holds, unpacked where it is gzipped. Raises ``UserError`` for a damaged or huge one."""
    if source.suffix.lower() != ".gz":
        return source.read_bytes()
    try:
        with gzip.open(source) as stream:
            raw = stream.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError("this table is damaged", where=str(source), mend="copy it again") from error
    if len(raw) > LARGEST:
        raise UserError("this table is too large", where=str(source), mend="write its columns that are needed as CSV")
    return raw


def decoded(source: Path) -> tuple[str, list[str]]:
    """The text of a table's file, and how it was read where that is not plain."""
    try:
        raw = raw_bytes(source)
    except PermissionError:
        raise UserError("this table may not be read", where=str(source), mend="ask for the right to read it") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace"), []
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        note = "the table is not UTF-8: file names are taken byte by byte, other cells as Windows-1252"
        return raw.decode("utf-8-sig", "surrogateescape"), [note]
