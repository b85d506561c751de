"""Compressed DICOM frames are decoded in a process of its own: a decoder that ends its process, or never ends, costs
one image and no more.

The processes start when they are needed, are kept for the next frame, and end with this one.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from msmae.errors import UserError

START = 120.0
"""Seconds that a process may take to start."""
SECONDS = 4.0
"""Seconds that any frame may take, to which one a million pixels is added."""
MEMORY = 1 << 30
"""Bytes that decoding may take, to which 16 a pixel are added."""
_CODE = "from msmae.data.reading.apart import answer; answer()"


class Ended(Exception):
    """The process has ended, or takes too long."""


class Child:
    """A process that decodes, and the pipes to it."""

    def __init__(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        self.line(START)

    def ask(self, path: Path, frame: int, pixels: int) -> dict[str, Any]:
        """What it answers: the shape and type of an array, whose bytes follow, or what is wrong."""
        assert self.process.stdin is not None
        asked = {"path": os.path.abspath(path), "frame": frame, "memory": MEMORY + 16 * pixels}
        try:
            self.process.stdin.write(json.dumps(asked).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise Ended from None
        self.until = time.monotonic() + SECONDS + pixels / 1e6
        answered: dict[str, Any] = json.loads(self.line(self.until - time.monotonic()))
        return answered

    def line(self, seconds: float) -> bytes:
        """The next line."""
        found = b""
        until = time.monotonic() + seconds
        while not found.endswith(b"\n"):
            found += self.some(1, until)
        return found

    def array(self, shape: list[int], kind: str) -> np.ndarray:
        """The array whose bytes follow."""
        made = np.empty(shape, np.dtype(kind))
        view, at = made.reshape(-1).view(np.uint8).data, 0
        while at < len(view):
            piece = self.some(min(len(view) - at, 1 << 20), self.until)
            view[at : at + len(piece)] = piece
            at += len(piece)
        return made

    def some(self, count: int, until: float) -> bytes:
        """At most so many of the bytes that come next."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise Ended
        piece = os.read(self.process.stdout.fileno(), count)
        if not piece:
            raise Ended
        return piece

    def end(self) -> None:
        """End the process and close the pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was still to be written cannot be
                    pipe.close()


class Children:
    """Processes that wait for work; each is used by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: list[Child] = []
        self.owner = os.getpid()

    def take(self) -> Child:
        """One that waits, or a new one."""
        with self.lock:
            if self.owner != os.getpid():  # a fork of the process that started them
                self.idle, self.owner = [], os.getpid()
            if self.idle:
                return self.idle.pop()
        return Child()

    def give_back(self, child: Child) -> None:
        with self.lock:
            self.idle.append(child)

    def end(self) -> None:
        """End those that wait."""
        with self.lock:
            waiting, self.idle = (self.idle if self.owner == os.getpid() else []), []
        for child in waiting:
            child.end()


CHILDREN = Children()
atexit.register(CHILDREN.end)


def decode_apart(path: Path, frame: int, *, pixels: int) -> np.ndarray:
    """Stored numbers of one frame of ``pixels`` pixels, as ``dicom.decode`` gives them, from a process of its own.

    Raises UserError where the frame cannot be decoded, or ends the process, or takes too long.
    """
    child = CHILDREN.take()
    try:
        answered = child.ask(path, frame, pixels)
        if "shape" in answered:
            array = child.array(answered["shape"], answered["dtype"])
    except (Ended, ValueError):
        child.end()
        raise UserError(
            "its decoder breaks down over it", where=str(path), mend="copy it again, or leave it out"
        ) from None
    except BaseException:  # an answer that nobody reads must not be the next one's
        child.end()
        raise
    CHILDREN.give_back(child)
    if "shape" in answered:
        return array
    raise UserError(answered["what"], where=str(path), mend=answered["mend"])


def answer() -> None:
    """What such a process does: a line of JSON in, a line and an array out, until there is no more."""
    out = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # decoders print what they meet
    from msmae.data.reading.dicom import decode, read_header
    from msmae.data.reading.door import door

    import_decoders()
    say(out, {})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        path = Path(asked["path"])
        limit_memory(asked["memory"])
        try:
            with door(path, what="DICOM image"):
                array = np.ascontiguousarray(decode(path, read_header(path), asked["frame"]))
        except UserError as error:
            say(out, {"what": error.what, "mend": error.mend})
            continue
        say(out, {"shape": array.shape, "dtype": array.dtype.str}, array)


def import_decoders() -> None:
    """What decoding imports, before memory is limited."""
    import gdcm  # noqa: F401
    import pydicom.pixels.decoders
    import pydicom.pixels.utils  # noqa: F401


def say(out: IO[bytes], answered: dict[str, Any], array: np.ndarray | None = None) -> None:
    """Write an answer."""
    out.write(json.dumps(answered).encode() + b"\n")
    if array is not None:
        out.write(array.reshape(-1).view(np.uint8).data)
    out.flush()


def limit_memory(more: int) -> None:
    """Let this process have so many bytes more than it has; where a system cannot tell, as many as it likes."""
    import resource

    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = taken + more if hard == resource.RLIM_INFINITY else min(taken + more, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    except (OSError, ValueError):
        return
