"""Images that prediction leaves out because they cannot be read: found one by one, named, and written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from msmae.data.listing import count
from msmae.data.manifest import write_rows
from msmae.errors import UserError

T = TypeVar("T")
FILE = "left_out.csv"


class LeftOut:
    """The files that could not be used so far, and why; ``skip=False``: the first one is an error."""

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.reasons: dict[Path, str] = {}

    def attempt(self, work: Callable[[list[Path]], T], files: list[Path]) -> Iterator[tuple[list[Path], T]]:
        """The files with what ``work`` makes of them: all together, or, where one cannot be used, each that can.

        Raises:
            UserError: one cannot be used, and none is to be left out.
        """
        try:
            yield files, work(files)
        except UserError as error:
            if not self.skip:
                raise
            if len(files) == 1:
                self.reasons[files[0]] = " ".join(str(error).split())
                return
            for file in files:
                yield from self.attempt(work, [file])

    def check_any(self, used: Sequence[Path]) -> None:
        """Raise ``UserError`` where every file was left out."""
        if not used:
            first, reason = next(iter(self.reasons.items()))
            raise UserError(f"none of {count(len(self.reasons), 'image')} can be used ({reason})", where=str(first))

    def write(self, out: Path) -> None:
        """Write OUT/left_out.csv and say so, where a file was left out."""
        if self.reasons:
            rows = [["image_path", "reason"], *([str(file), reason] for file, reason in self.reasons.items())]
            write_rows(out / FILE, rows)
            print(f"{count(len(self.reasons), 'image')} left out, each with its reason: {out / FILE}")
