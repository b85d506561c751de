"""The errors a person can mend: they name what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Text whose control characters, which a terminal would obey, are shown: ``\\x1b[31m``. Lines and tabs stay."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class UserError(Exception):
    """The user's input is wrong; the command line prints it as one sentence and exits with code 2.

    ``what`` is wrong, ``where`` (a path, a column, a flag), ``mend`` says how to put it right.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        super().__init__(what)

    def __str__(self) -> str:
        sentence = self.what if self.where is None else f"{self.what} ({self.where})"
        if self.mend is None:
            return sentence
        return f"{sentence}\n{self.mend}" if "\n" in sentence else f"{sentence}: {self.mend}"


class LeakageError(UserError):
    """Test images or patients also occur in training or validation; exit code 3."""

    exit_code = 3


def installing(extra: str) -> str:
    """How an optional part is installed."""
    return f"where msmae was cloned: .venv/bin/pip install -e '.[{extra}]'"


def count(number: int, thing: str) -> str:
    """``1 image``, ``2 images``, ``2 classes``, ``2 copies``, ``2 images of one colour``."""
    return f"{number:,} {things(number, thing)}"


def things(number: int, thing: str) -> str:
    """``image`` of 1, else ``images``; ``pairs of images`` from ``pair of images``: what follows the ``of`` stays."""
    noun, of, whose = thing.partition(" of ")
    if number != 1:
        noun = f"{noun}es" if noun.endswith("s") else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{noun}{of}{whose}"


def nearest(name: Any, known: Iterable[str]) -> str:
    """``did you mean 'epochs'?``, or all the known names where none is near."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1) or [
        other for other in names if str(name) in other.split("_")
    ]
    if near:
        return f"did you mean {' or '.join(repr(other) for other in near)}?"
    return f"known are {', '.join(names)}"
