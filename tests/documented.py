"""Pages of documentation as programs: their code blocks in order, run in one folder as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced pieces of a page, in order."""
    return [Block(*match.groups()) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(text: str) -> list[tuple[list[str], int]]:
    """The `msmae` commands of a shell block: their words after the name, and the exit code that a comment announces."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        command, _, comment = line.partition(" #")
        words = shlex.split(command, comments=True)
        while words and words[0] in ("srun", "docker"):
            words = words[1:]
        if words and words[0].rpartition("/")[2] == "msmae":
            code = re.search(r"exit code (\d+)", comment)
            found.append((words[1:], int(code.group(1)) if code else 0))
    return found


def run_page(page: Path, folder: Path, small: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a page's Python and msmae commands in ``folder``; return the names its Python has made.

    ``small`` says which texts are put in whose place, so that a test takes seconds: each must occur.
    """
    from msmae.cli import main

    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": page.stem}
    unused = set(small)
    for block in blocks(page):
        text = block.text
        for word, instead in small.items():
            if word in text:
                unused.discard(word)
                text = text.replace(word, instead)
        if block.language == "python":
            exec(compile(text, f"{page.name}", "exec"), names)
        elif block.language == "sh":
            for words, expected in commands(text):
                with pytest.raises(SystemExit) as ended:
                    main(words)
                assert ended.value.code == expected, f"msmae {' '.join(words)}"
    assert not unused, f"{page.name} no longer holds {unused}"
    assert os.getcwd() == str(folder)
    return names
