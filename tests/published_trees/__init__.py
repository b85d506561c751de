"""Folder trees of published data sets, made from their documented layouts: names and shapes only, a few files a folder.

A row says what a careful researcher expects of the set; the tool is held to it, and not the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Read:
    """What a tree is to be read as. ``classes``: images of each; ``patients``: how many are told apart, 0 for none;
    ``splits``: images of each that is given; ``masked``: images with masks; ``mask_classes``: as masks are named;
    ``cells``: the end of a path -> cells of its row."""

    images: int
    classes: Mapping[str, int] = field(default_factory=dict)
    patients: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    masked: int = 0
    mask_classes: tuple[str, ...] = ()
    cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """A data set's files. ``refused``: a piece of the message where it cannot be known what is meant, which must name
    the options that then read it (``options``, of ``data`` below the root)."""

    name: str
    files: tuple[str, ...]
    read: Read
    tables: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    data: str = "."


def lines(*rows: str) -> str:
    """The text of a table."""
    return "\n".join(rows) + "\n"
