"""Pictures have tests of their own (test_figures.py): in the others they are frames, which takes half the time."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import pytest


@pytest.fixture
def drawn() -> None:
    """A test that takes this has its pictures drawn."""


@pytest.fixture(autouse=True)
def frames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure is saved as an empty frame; what describes it stays."""

    def save(figure: Any, target: IO[str] | Path, **options: Any) -> None:
        if isinstance(target, Path):  # a panel, which is looked at by name alone
            target.write_bytes(b"")
        else:
            target.write('<svg width="1" height="1"></svg>')

    if "drawn" not in request.fixturenames and request.node.path.name != "test_figures.py":
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
