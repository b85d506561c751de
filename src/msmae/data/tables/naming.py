"""Which image of a folder a cell of a table means, however it is written: a path, a name, an id, its beginning."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msmae.data.manifest import plain
from msmae.data.tables.listing import without_suffix

MOST = 0.8
"""Share of a column's cells that must name an image."""


class Names:
    """The images of a folder by all that a table may call them; ``splits`` are those that their folders name."""

    def __init__(self, paths: Sequence[str], splits: Sequence[str]) -> None:
        self.paths = [plain(path) for path in paths]
        self.splits = list(splits)
        self.beginnings = False
        self._named: dict[str, list[int]] = {}
        for number, path in enumerate(self.paths):
            name = path.rpartition("/")[2]
            for form in {name, without_suffix(name)}:
                self._named.setdefault(form, []).append(number)
        self._begun: dict[str, list[int]] = {}
        for number, path in enumerate(self.paths):
            name = without_suffix(path.rpartition("/")[2])
            for sign in re.finditer(r"[_\- ]", name):
                self._begun.setdefault(name[: sign.start()], []).append(number)

    def find(self, cell: str, *, split: str = "", begins: bool = False) -> int:
        """The number of the image; -1 where there is none, or more than one; ``split`` is that of the table.

        ``begins``: a name of which the file's has more, up to a sign, is meant, too.
        """
        path = plain(cell.strip().replace("\\", "/")).removeprefix("./")
        name = path.rpartition("/")[2]
        found = self._named.get(name, [])
        if begins and not found and len(name) >= 4:
            found = self._begun.get(name, [])
        if "/" in path:
            found = [number for number in found if _same_place(path, self.paths[number])]
        if len(found) > 1 and split:
            found = [number for number in found if self.splits[number] == split]
        return found[0] if len(found) == 1 else -1

    def column(self, cells: Sequence[str], *, split: str = "") -> list[int]:
        """The image of every cell, -1 for those without; empty where the column does not name images."""
        given = [cell for cell in cells if cell.strip()]
        if len(given) < 1 or any(len(cell) > 1000 for cell in given[:10]):
            return []
        for begins in (False, True):
            trial = [self.find(cell, split=split, begins=begins) for cell in given[:50]]
            if sum(number >= 0 for number in trial) < min(MOST, 0.5) * len(trial):
                continue  # most columns are settled by their first cells
            found = [self.find(cell, split=split, begins=begins) if cell.strip() else -1 for cell in cells]
            there = {number for number in found if number >= 0}
            if sum(number >= 0 for number in found) >= MOST * len(given) and len(there) >= 2:
                return found
        return []


def _same_place(written: str, path: str) -> bool:
    """Whether one of two paths is the end of the other, with or without the file's suffix."""
    for one in (path, without_suffix(path)):
        if f"/{one}".endswith(f"/{written.strip('/')}") or f"/{written}".endswith(f"/{one}"):
            return True
    return False
