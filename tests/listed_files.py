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
