"""The door of every reader: what a decoder says is neither printed nor kept, and what it raises is one sentence.

Decoders quote what a file's header holds, and a damaged header holds a patient's name where a number should stand. So
their words go nowhere: a sentence here says what kind of damage it is, and names the file.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msmae.errors import UserError

LIBRARIES = ("pydicom", "nibabel", "nibabel.global", "tifffile", "PIL")
"""Their loggers are silent while a file is read, and so are warnings that come from them."""
WARN = r"(pydicom|nibabel|tifffile|PIL|numpy|zipfile|gzip|contextlib|msmae\.data\.(reading|tables|audit))(\.|$)"
SAID = {
    "less than expected": "it holds fewer pixels than its header announces",
    "truncated": "it is cut short",
    "more data in file": "it is cut short",
    "imagecodecs": "its compression needs the package imagecodecs",
    "missing dependencies": "no decoder here knows its compression",
    "not supported": "no decoder here knows its kind",
}
"""What a decoder's words hold -> what is said of it. Nothing else of them is passed on."""


class Silence:
    """Keeps libraries quiet while any thread reads: the first in turns them down, the last out turns them up again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.before: list[tuple[logging.Logger, int]] = []
        self.filters: Any = None

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside > 1:
                return
            loggers = [logging.getLogger(name) for name in LIBRARIES]
            self.before = [(logger, logger.level) for logger in loggers]
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            self.filters = warnings.catch_warnings()
            self.filters.__enter__()
            warnings.filterwarnings("ignore", module=WARN)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside:
                return
            for logger, level in self.before:
                logger.setLevel(level)
            self.filters.__exit__(None, None, None)


SILENCE = Silence()


@contextmanager
def door(path: str | Path, *, what: str = "image", mend: str | None = None) -> Iterator[None]:
    """Read a file in here: whatever a decoder raises becomes a ``UserError`` that names the file, and the cause in
    words of ours. A ``UserError`` passes as it is.
    """
    with SILENCE:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # decoders raise every kind; their words may quote the file, so they end here
            raise UserError(f"the {what} cannot be read: {cause(error)}", where=str(path), mend=mend) from None


def cause(error: Exception) -> str:
    """What is wrong with a file by what a decoder raised, in words that quote nothing of it."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, EOFError):
        return "it is cut short"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error).lower()
    known = next((ours for theirs, ours in SAID.items() if theirs in said), None)
    return known or f"it is damaged, or of a kind that is not known here ({type(error).__name__})"
