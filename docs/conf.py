"""Sphinx: Markdown pages, no file from outside. `make docs` builds them into docs/_build/html."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import reference  # noqa: E402

import msmae  # noqa: E402

project, author, release = "msmae", "The MSMAE developers", msmae.__version__
copyright = "The MSMAE developers, MIT licence"
extensions = ["myst_parser"]
exclude_patterns = ["_build", "pictures", "reference.py"]
html_theme = "furo"
html_title = f"msmae {release}"
html_show_sphinx = False
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "toc.empty_glob"]  # docs/results may not have been built

PAGES = {"RESULTS.md": "/reference/results.md", "CHANGELOG.md": "/reference/changelog.md"}
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+((?:\w+\.md)|(?:src|benchmarks|experiments|tests)/[^)]*)\)")


def inside(match: "re.Match[str]") -> str:
    """A link out of docs/: to the copy of that page in the site, else the path alone."""
    text, target = match.groups()
    return f"[{text}]({PAGES[target]})" if target in PAGES else f"`{target}`"


def read_source(app: object, page: str, text: list[str]) -> None:
    """Links to files outside docs/ work in the repository; the site has no such files."""
    text[0] = OUTSIDE.sub(inside, text[0])


def setup(app: "sphinx.application.Sphinx") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Write the generated pages first, so that Sphinx finds them."""
    reference.write_pages(HERE / "reference")
    app.connect("source-read", read_source)
