"""How much one request and all of them together may ask for; beyond it the answer is one sentence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that are checked before anything is decoded, and those that a decoding process is held to."""

    upload: int = 64 * 2**20
    """Bytes of a request's body, all files together."""
    files: int = 32
    """Images of one patient."""
    pixels: int = 40_000_000
    """Pixels of one image, read from its header."""
    memory: int = 2 * 2**30
    """Bytes that decoding one file may take."""
    decoding: float = 20.0
    """Seconds that decoding one file may take."""
    silence: float = 10.0
    """Seconds that a client may take to begin a request, or to send the next piece of one."""
    sending: float = 120.0
    """Seconds that a client may take to send a whole request."""
    waiting: int = 256
    """Requests that are received or answered at a time."""
    batch: int = 32
    """Images that the model is given at a time."""


class Refused(Exception):
    """A request that is answered with a status, a code and one sentence.

    ``files``: place, name and reason of each that cannot be used.
    """

    def __init__(self, status: int, code: str, sentence: str, files: list[tuple[int, str, str]] | None = None) -> None:
        self.status, self.code, self.sentence, self.files = status, code, sentence, files or []
        super().__init__(sentence)
