"""Files that prediction leaves out because they cannot be read: found one by one, named, and written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

from msmae.data.tables.listing import all_or_file
from msmae.errors import UserError

FILE = "left_out.csv"
Thing = TypeVar("Thing")
"""What is read: a path, or an image as a manifest names it."""


def offering_to_skip(error: UserError) -> UserError:
    """The same error, which also says how prediction goes on without such files."""
    offer = "leave out what cannot be used with --on-error skip"
    return UserError(error.what, where=error.where, mend=offer if error.mend is None else f"{error.mend}; or {offer}")


class Unreadable(Generic[Thing]):
    """The files that could not be read so far, and why; ``skip=False``: the first batch with one is an error."""

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.reasons: dict[Thing, str] = {}

    def read(self, files: list[Thing], read: Callable[[list[Thing]], Tensor]) -> tuple[list[Thing], list[Tensor]]:
        """The files that can be read, and their images [B, channels, H, W] in pieces: all of them together, or, where
        one cannot be read, each by itself.

        Raises:
            UserError: a file cannot be read, and none is to be left out.
        """
        try:
            return files, [read(files)]
        except UserError as error:
            if not self.skip and len(files) > 1:
                raise offering_to_skip(error) from error
            if not self.skip:
                raise
            if len(files) == 1:
                self.reasons[files[0]] = " ".join(str(error).split())
                return [], []
        found = [self.read([file], read) for file in files]
        return [file for some, _ in found for file in some], [piece for _, pieces in found for piece in pieces]

    def check_any(self, readable: int) -> None:
        """Raise ``UserError`` where every file was left out."""
        if not readable:
            lines = all_or_file(list(self.reasons.values()), separator="\n  ")
            raise UserError(f"none of the files can be used ({len(self.reasons):,}):\n  {lines}")
