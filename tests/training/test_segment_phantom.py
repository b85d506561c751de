"""A segmenter learns to outline the phantom's lesions."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmae.data.phantom import make_phantom
from msmae.verbs.segment import segment

pytestmark = pytest.mark.slow


def test_a_phantom_is_outlined(tmp_path: Path) -> None:
    """Shorter training outlines something in every healthy image, which counts as Dice 0."""
    make_phantom(tmp_path / "phantom", images=400, size=32)
    metrics = segment(
        str(tmp_path / "phantom" / "manifest.csv"), from_="none", out=str(tmp_path / "run"), preset="tiny",
        segment={"presentations": 15_000},
    )  # fmt: skip
    assert metrics["splits"]["test"]["metrics"]["dice"]["value"] > 0.7
