"""One command at a time in a run's folder: the second is told who holds it. A dead process holds nothing."""

from __future__ import annotations

import inspect
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from msmae.errors import UserError

LOCK = ".lock"

Verb = TypeVar("Verb", bound=Callable[..., Any])


def alone(argument: str) -> Callable[[Verb], Verb]:
    """A verb that holds the folder which this argument names, from its beginning to its end."""

    def hold(verb: Verb) -> Verb:
        signature = inspect.signature(verb)

        @wraps(verb)
        def holding(*arguments: Any, **named: Any) -> Any:
            with held(Path(signature.bind(*arguments, **named).arguments[argument])):
                return verb(*arguments, **named)

        return holding  # type: ignore[return-value]

    return hold


@contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder meanwhile; what was made for that, and stays empty, is removed. ``wait``: for the process that
    holds it.

    Raises:
        InUse: another process holds it. The sentence says which, where and since when.
    """
    from msmae.runs.folder import is_helper_process

    made = [place for place in (folder, *folder.parents) if not place.exists()]
    handle = None if is_helper_process() or not may_hold(folder) else take(folder / LOCK, wait=wait)
    try:
        yield
    finally:
        if handle is not None:
            (folder / LOCK).unlink(missing_ok=True)
            os.close(handle)
            with suppress(OSError):  # it holds something
                for place in made or [folder]:
                    place.rmdir()


def may_hold(folder: Path) -> bool:
    """Whether a folder is a run's or a comparison's, or may become one; it is made unless it is there."""
    if str(folder) in ("", "."):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
    except OSError:  # the verb says what is wrong with it
        return False
    return not names - {LOCK} or bool(names & {"config.yaml", "environment.json", "comparison.json"})


def take(path: Path, *, wait: bool = False) -> int | None:
    """The lock, as a handle that holds it; None where the file system or the system knows none."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError:  # a link, or nothing may be written: the verb says so
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = in_use(path.parent, os.read(handle, 1000))
            if not wait:
                os.close(handle)
                raise other from None
            print(f"{other.what}: waiting", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            os.close(handle)
            return None
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            break
        os.close(handle)  # its holder removed it meanwhile
    os.ftruncate(handle, 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(handle, json.dumps({"process": os.getpid(), "machine": platform.node(), "since": since}).encode())
    return handle


def is_held(folder: Path) -> bool:
    """Whether a process of this machine holds a folder now."""
    try:
        import fcntl

        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except (ImportError, OSError):  # Windows; or nobody does
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


class InUse(UserError):
    """Another process holds the folder."""


def in_use(folder: Path, who: bytes) -> InUse:
    """The error for a folder that another process holds, by what it wrote of itself."""
    try:
        told = json.loads(who)
        holder = f"process {int(told['process'])} on {str(told['machine'])[:80]!r} since {str(told['since'])[:30]!r}"
    except (ValueError, TypeError, KeyError):
        holder = "another process"
    return InUse(
        f"the folder is in use by {holder}", where=str(folder), mend="wait for it, end it, or choose another --out"
    )
