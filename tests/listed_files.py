"""Files to be found by their names alone, and what was found of them; for the tests of folders and tables."""

from __future__ import annotations

from pathlib import Path

from msmae.data.manifest import Manifest


def touch(root: Path, *paths: str) -> Path:
    """Make files that have a name and nothing in them: no layout opens an image."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def rows(manifest: Manifest, *columns: str) -> list[tuple[str, ...]]:
    return list(manifest.table[list(columns)].itertuples(index=False, name=None))


def write(root: Path, name: str, *lines: str) -> None:
    """A text file of these lines."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n")


def noted(manifest: Manifest, text: str) -> bool:
    """Whether a note of the manifest holds the text."""
    return any(text in note for note in manifest.notes)
