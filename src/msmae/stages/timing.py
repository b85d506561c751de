"""One process measures, the others wait: a lock in the cache folder that trainings look at between their steps."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from msmae.stages.prepare import cache_folder

log = logging.getLogger("msmae")
OWN = "MSMAE_TIMING"
"""Set in the process that measures and in those it starts: they must not wait for themselves."""
SECONDS_BETWEEN_LOOKS = 0.5


def lock() -> FileLock:
    """The lock of this user's cache folder."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "timing.lock")


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock while something is timed; waits for another measurement to end. It goes with a killed process."""
    if OWN in os.environ:
        yield
        return
    with lock():
        os.environ[OWN] = str(os.getpid())
        time.sleep(2 * SECONDS_BETWEEN_LOOKS)  # steps that are under way end
        try:
            yield
        finally:
            del os.environ[OWN]


class Courtesy:
    """Lets a training stand still while somebody measures; :meth:`wait` looks at the lock twice a second at most."""

    def __init__(self) -> None:
        self.due = 0.0

    def wait(self) -> float:
        """Return at once, or when the measurement has ended; the seconds waited."""
        began = time.monotonic()
        if OWN in os.environ or began < self.due:
            return 0.0
        told = False
        held = lock()
        while True:
            try:
                held.acquire(timeout=0)
                held.release()
                break
            except Timeout:
                if not told:
                    log.info("waiting while a measurement has the machine to itself")
                    told = True
                time.sleep(SECONDS_BETWEEN_LOOKS)
        self.due = time.monotonic() + SECONDS_BETWEEN_LOOKS
        return time.monotonic() - began if told else 0.0
