"""An HTML page as its reader meets it: text, headings, pictures, links, and in a browser; for the tests of reports."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from msmae.reporting.report import write_report

VOID = {"meta", "link", "br", "img"}


INLINE = {"strong", "code", "sup", "a"}


class Page(HTMLParser):
    """What a browser would see: the elements, their attributes, the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag not in INLINE:
            self.pieces.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        if tag not in INLINE:
            self.pieces.append(" ")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]


def page_of(run: Path) -> Page:
    page = Page(write_report(run))
    assert page.open == []
    return page


OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--virtual-time-budget=10000",
    "--dump-dom",
]
PROBE = """<iframe id=page width=WIDTH height=900 src=PAGE></iframe><p id=out></p><script>
document.getElementById("page").onload = (event) => {
  const width = event.target.contentDocument.documentElement.scrollWidth;
  const requests = event.target.contentWindow.performance.getEntriesByType("resource").length;
  document.getElementById("out").textContent = `scroll=${width} requests=${requests}`;
}</script>"""


def in_a_browser(folder: Path, page: str, *, width: int) -> tuple[int, int]:
    """What a headless Chromium makes of ``page`` in ``folder``, in a window of this width: the width that its content
    takes in pixels, and how many files it asked for. Skips the test where there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    (folder / "frame.html").write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", page))
    command = [browser, *OPTIONS, f"--user-data-dir={folder / 'profile'}", str(folder / "frame.html")]
    seen = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"scroll=(\d+) requests=(\d+)", seen)
    assert found, seen[-500:]
    return int(found[1]), int(found[2])
