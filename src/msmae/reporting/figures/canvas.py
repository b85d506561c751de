"""A matplotlib figure as an SVG that takes its colours and its font from the page it stands on.

Figures are drawn in placeholder colours; `to_svg` turns them into CSS variables, so one picture serves a light page,
a dark page and paper. The same data gives the same bytes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, GRID, PAPER = "#000011", "#000022", "#000033", "#000044"
SERIES = tuple(f"#0000a{number}" for number in range(1, 9))
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1)))
"""One a series: the curves can be told apart without colour."""

PAGE = {INK: "--ink", FAINT: "--faint", GRID: "--grid", PAPER: "--paper"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
"""Placeholder colour -> the CSS variable that a page must define."""

COLOURS = Path(__file__).parents[1] / "templates" / "palette.css"
"""The variables of our own pages, light and dark."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters stay letters: they can be searched, and use the page's font
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class called "$x$" is not a formula
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": True,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.75,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def panel(width: float = 4.3, height: float = 3.5) -> Iterator[Axes]:
    """An empty figure of one panel, in inches. Draw inside the ``with``, where the style holds (no pyplot)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        axes = Figure(figsize=(width, height)).add_subplot()
        axes.figure.subplots_adjust(left=0.72 / width, right=1 - 0.1 / width, bottom=0.5 / height, top=1 - 0.3 / height)
        yield axes


def unit_square(axes: Axes, *, x: str, y: str) -> None:
    """Both axes are shares from 0 to 1, drawn at one scale."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")
    axes.set(xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])


def to_svg(axes: Axes, *, alt: str) -> str:
    """The panel as an ``<svg>`` element that scales to the width it is given; ``alt`` describes it in words."""
    from matplotlib import rc_context

    stream, figure = StringIO(), axes.get_figure(root=True)
    assert figure is not None
    with rc_context({**STYLE, "svg.hashsalt": alt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # letters stay letters: see STYLE
        figure.savefig(stream, format="svg")
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg ([^>]*?) ?width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?) ?height="[^"]*"', r"<svg \1", svg)
    for colour, variable in PAGE.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = _drop_unused_names(svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt, quote=True)}" ', 1).strip()


def as_file(svg: str) -> str:
    """An ``<svg>`` of `to_svg` as a file of its own: with the colours of our pages, and paper beneath."""
    inside = svg.index(">") + 1
    style = (
        f"{COLOURS.read_text(encoding='utf-8')}text {{ font-family: 'DejaVu Sans', Verdana, sans-serif !important; }}\n"
    )
    paper = f'<style>\n{style}</style>\n<rect width="100%" height="100%" fill="var({PAGE[PAPER]})"/>'
    return f"{svg[:inside]}\n{paper}{svg[inside:]}\n"


def _drop_unused_names(svg: str) -> str:
    """Several figures share a page, where a name may stand once: only those that something points at are kept."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
