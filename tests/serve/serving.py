"""A server as a user starts it: the command, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass
class Served:
    """A running server."""

    url: str
    run: Path
    process: subprocess.Popen[str]
    log: Path
    temporary: Path
    token: str = ""

    def predict(self, *files: tuple[str, bytes], **fields: object) -> httpx.Response:
        """POST /predict."""
        parts = [("files", (name, content)) for name, content in files]
        data = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}
        return httpx.post(f"{self.url}/predict", files=parts, data=data, timeout=60)

    def get(self, path: str) -> httpx.Response:
        """GET."""
        return httpx.get(f"{self.url}{path}", timeout=60)


@contextmanager
def served(run: Path, *options: str, **environment: str) -> Iterator[Served]:
    """`msmae serve RUN --port 0 ...`, until the end of the block."""
    temporary = Path(tempfile.mkdtemp(prefix="temporary-", dir=run.parent))
    log = temporary.with_suffix(".log")
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), **environment}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "msmae", "serve", str(run), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=variables,
        )
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        line = next((line for line in lines if line.startswith("The page: ")), "")  # after a bar of progress
        found = re.match(r"The page: (http://\S+?)/(?:#token=(\S+))?\s", line)
        assert found, line + log.read_text()
        yield Served(found[1], run, process, log, temporary, found[2] or "")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
