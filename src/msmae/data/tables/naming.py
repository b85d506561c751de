"""Which image of a folder a cell of a table means, however it is written: a path, a name, an id, its beginning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from msmae.data.manifest import plain
from msmae.data.tables.listing import without_suffix
from msmae.data.tables.roles import kind_of, split_of

MOST = 0.8
"""Share of a column's cells that must name an image."""


class Names:
    """The images of a folder by all that a table may call them; ``splits`` are those that their folders name."""

    def __init__(self, paths: Sequence[str], splits: Sequence[str]) -> None:
        self.paths = [plain(path) for path in paths]
        self.splits = list(splits)
        self._named: dict[str, list[int]] = {}
        for number, path in enumerate(self.paths):
            name = path.rpartition("/")[2]
            for form in {name, without_suffix(name)}:
                self._named.setdefault(form, []).append(number)
        for number, path in enumerate(self.paths):
            name = without_suffix(path.rpartition("/")[2])
            if name.isdecimal() and str(int(name)) != name:  # 000012 is 12 where nothing is called 12
                self._named.setdefault(str(int(name)), []).append(number)

    def find(self, cell: str, *, split: str = "", folder: str = "", begins: bool = False) -> int:
        """The number of the image; -1 where there is none, or more than one; ``split`` is that of the table, ``folder``
        the one that it lies in.

        ``begins``: a name of which the file's has more, up to a sign, is meant, too.
        """
        path = plain(cell.strip().replace("\\", "/")).removeprefix("./")
        name = path.rpartition("/")[2]
        exact = self._named.get(name, [])
        found = exact or self._folded.get(name.casefold(), [])
        if begins and not found and len(name) >= 4:
            found = self._begun.get(name, [])
        if "/" in path:
            found = [number for number in found if _same_place(path, self.paths[number], folded=not exact)]
        if len(found) > 1 and folder:
            found = [number for number in found if self.paths[number].startswith(f"{folder}/")] or found
        if len(found) > 1 and split:
            found = [number for number in found if self.splits[number] == split]
        return found[0] if len(found) == 1 else -1

    def column(self, cells: Sequence[str], *, split: str = "", folder: str = "") -> list[int]:
        """The image of every cell, -1 for those without; empty where the column does not name images: most of its cells
        do, or most images are named in it."""
        given = [cell for cell in cells if cell.strip()]
        if not given or any(len(cell) > 1000 for cell in given[:10]):
            return []
        ends = {plain(cell.strip().replace("\\", "/").rpartition("/")[2]) for cell in given}
        folded = {end.casefold() for end in ends}
        for begins, some in ((False, folded & self._folded.keys()), (True, ends & self._begun.keys())):
            if not some:
                continue
            found = [self.find(cell, split=split, folder=folder, begins=begins) for cell in cells]
            there = {number for number in found if number >= 0}
            most = sum(number >= 0 for number in found) >= MOST * len(given)
            covers = len(there) >= MOST * len(self.paths) and not begins
            if len(there) >= 2 and (most or covers):
                return found
        return []

    def called(self, cell: str) -> list[str]:
        """The images of this name, in whatever folders."""
        name = plain(cell.strip().replace("\\", "/"))
        return [self.paths[number] for number in self._named.get(name, [])]

    def exactly(self, cells: Sequence[str]) -> tuple[int, int]:
        """How many files a column's cells name in full, and how many as they are written but for the suffix: a number
        that is taken for a file of more zeros is none of these."""
        ends = {plain(cell.strip().replace("\\", "/").rpartition("/")[2]) for cell in cells}
        return len(ends & self._files), len(ends & self._stems)

    @cached_property
    def _files(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.paths}

    @cached_property
    def _stems(self) -> set[str]:
        return {without_suffix(file) for file in self._files}

    def inside(self, cell: str, *, folder: str = "") -> list[int]:
        """The images in the folder that a cell names, by its name or its path; splits and kinds are no such folders.
        Where a table in ``folder`` names one below it, no other is meant."""
        path = plain(cell.strip().replace("\\", "/").strip("/"))
        name = path.rpartition("/")[2]
        found = self._inside.get(name, []) or self._numbered.get(name, [])
        found = [number for number in found if _in_folder(path, self.paths[number])] if "/" in path else found
        return [number for number in found if self.paths[number].startswith(f"{folder}/")] or found if folder else found

    @cached_property
    def _folded(self) -> dict[str, list[int]]:
        """As ``_named``, in small letters: ``IMG_1.JPG`` is img_1.jpg where nothing is called so."""
        folded: dict[str, list[int]] = {}
        for name, numbers in self._named.items():
            folded.setdefault(name.casefold(), []).extend(numbers)
        return folded

    @cached_property
    def _begun(self) -> dict[str, list[int]]:
        """What a file's name begins with, up to a sign -> the images."""
        begun: dict[str, list[int]] = {}
        for number, path in enumerate(self.paths):
            name = without_suffix(path.rpartition("/")[2])
            for sign in re.finditer(r"[_\- ]", name):
                begun.setdefault(name[: sign.start()], []).append(number)
        return begun

    @cached_property
    def _inside(self) -> dict[str, list[int]]:
        """Folder name -> the images anywhere below it."""
        inside: dict[str, list[int]] = {}
        for number, path in enumerate(self.paths):
            for name in path.split("/")[:-1]:
                if not (split_of(name) or kind_of(name)):
                    inside.setdefault(name, []).append(number)
        return inside

    @cached_property
    def _numbered(self) -> dict[str, list[int]]:
        """Number of a folder that is called by a letter and a number of four digits or more (s50414267) -> its images;
        nothing where several folders have it."""
        lettered: dict[str, list[str]] = {}
        for name in self._inside:
            if re.fullmatch(r"[A-Za-z]\d{4,}", name):
                lettered.setdefault(name[1:], []).append(name)
        return {number: self._inside[names[0]] for number, names in lettered.items() if len(names) == 1}

    def folders(self, cells: Sequence[str], *, folder: str = "") -> list[list[int]]:
        """The images in the folder that every cell names, where each names one of its own, as a patient's; empty where
        the column does not name folders. ``folder``: the one that the table lies in."""
        given = [cell.strip() for cell in cells if cell.strip()]
        if len(given) < 2 or len(set(given)) < len(given):
            return []
        found = [self.inside(cell, folder=folder) for cell in cells]
        named = {number for inside in found for number in inside}
        several = sum(map(bool, found))
        enough = several >= MOST * len(given) or len(named) >= MOST * len(self.paths)
        return found if several >= 2 and enough and sum(map(len, found)) == len(named) else []


def _in_folder(folder: str, path: str) -> bool:
    """Whether an image lies in a folder, of which the beginning may be written or not."""
    inside = path.rpartition("/")[0]
    return f"/{inside}/".find(f"/{folder}/") >= 0 or f"/{folder}".endswith(f"/{inside}")


def _same_place(written: str, path: str, *, folded: bool) -> bool:
    """Whether one of two paths is the end of the other, with or without the file's suffix; ``folded``: but for
    capitals."""
    written, path = (written.casefold(), path.casefold()) if folded else (written, path)
    for one in (path, without_suffix(path)):
        if f"/{one}".endswith(f"/{written.strip('/')}") or f"/{written}".endswith(f"/{one}"):
            return True
    return False
