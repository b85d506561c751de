"""Names drawn into pixels: in installed fonts that have their letters, or as numbers where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

USUAL = "DejaVu Sans"  # comes with matplotlib
BOXES = "Last Resort"  # so does this one, and draws a box for every letter


def drawable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names as they can be drawn, and the font families to draw them with.

    Where no installed font has the letters of a name, every name becomes ``class 1``, ``class 2``, ... in sorted order,
    so that no two look alike and none is a row of boxes.
    """
    letters = frozenset("".join(names)) - set(" \n\t")
    families = covering(letters)
    if families is not None:
        return list(names), families
    number = {name: place for place, name in enumerate(sorted(set(names)), start=1)}
    return [f"class {number[name]}" for name in names], [USUAL]


@lru_cache
def covering(letters: frozenset[str]) -> list[str] | None:
    """Installed font families that have all these letters together, the usual one first; None where there are none."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    usual = font_manager.findfont(USUAL)
    families, wanted = [USUAL], letters - _has(FT2Font(usual), letters)
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.name, font.fname)):
        if not wanted:
            break
        if entry.name in families or entry.name.startswith(BOXES) or not Path(entry.fname).is_file():
            continue
        found = _has(FT2Font(entry.fname), wanted)
        if found:
            families.append(entry.name)
            wanted -= found
    return None if wanted else families


def _has(font: object, letters: frozenset[str]) -> frozenset[str]:
    """The letters this font has a glyph for."""
    return frozenset(letter for letter in letters if font.get_char_index(ord(letter)))  # type: ignore[attr-defined]
