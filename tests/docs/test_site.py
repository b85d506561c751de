"""`make docs`: every page is built without a warning, and no page loads anything from outside."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from documented import REPOSITORY, blocks, commands
from msmae.cli import VERBS, find_function
from msmae.config import GROUPS
from msmae.options import options_of, parse_words

DOCS = REPOSITORY / "docs"
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"), ("object", "data")}


class Loads(HTMLParser):
    """What a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        rel = dict(attrs).get("rel") or ""
        if tag == "link" and not re.search(r"stylesheet|icon|preload|prefetch|preconnect|dns-prefetch|import", rel):
            return
        self.found += [value for name, value in attrs if (tag, name) in LOADED and value]


def loads(text: str, suffix: str) -> list[str]:
    """The addresses that a page, a style sheet or a script fetches."""
    if suffix == ".html":
        parser = Loads()
        parser.feed(text)
        return parser.found + loads("".join(re.findall(r"<style.*?</style>", text, re.DOTALL)), ".css")
    if suffix == ".css":
        return re.findall(r"""(?:url\(|@import\s+)\s*(?:url\()?["']?([^"')\s;]+)""", text)
    return re.findall(r"""(?:fetch|import|importScripts)\(\s*["']([^"']+)""", text)


def outside(address: str) -> bool:
    """Whether an address leaves the site."""
    return bool(re.match(r"(?:https?:)?//", address))


def test_what_loads_from_outside_would_be_seen() -> None:
    page = (
        '<link rel="stylesheet" href="//fonts.example/a.css"><a href="https://arxiv.org"><script src="a.js"></script>'
    )
    assert [address for address in loads(page, ".html") if outside(address)] == ["//fonts.example/a.css"]
    assert loads("@import url('https://fonts.example/b.css');", ".css") == ["https://fonts.example/b.css"]
    assert loads("fetch('https://example.org/x')", ".js") == ["https://example.org/x"]


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_outside(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".html", ".css", ".js")]
    assert len(files) > 25
    fetched = {(file.name, a) for file in files for a in loads(file.read_text(encoding="utf-8"), file.suffix)}
    assert len(fetched) > 25
    assert not {(name, address) for name, address in fetched if outside(address)}
    reference = {
        name: (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8") for name in ("commands", "settings")
    }
    assert all(f"## msmae {verb}\n" in reference["commands"] for verb in VERBS)
    for group, kind in GROUPS.items():
        for field in dataclasses.fields(kind):
            assert f"`--{group}.{field.name}`" in reference["settings"]


def shown_commands() -> list[tuple[str, list[str]]]:
    """Every msmae command in README.md and docs/, with its page."""
    pages = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
    return [
        (str(page.relative_to(REPOSITORY)), words)
        for page in pages
        if page.relative_to(DOCS.parent).parts[:2] not in (("docs", "_build"), ("docs", "reference"))
        for block in blocks(page)
        if block.language == "sh"
        for words, _ in commands(block.text)
    ]


@pytest.mark.parametrize(
    ("page", "words"), shown_commands(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_every_command_that_a_page_shows_is_one(page: str, words: list[str]) -> None:
    """Its verb is there and its options are parsed; what it would do is not done."""
    given = parse_words(words[1:], options_of(find_function(words[0]), VERBS[words[0]].groups))
    assert given or len(words) == 1
