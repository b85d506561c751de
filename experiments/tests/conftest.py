"""Fixtures of the experiments' tests; the scripts of experiments/ can be imported, and so can the helpers of tests/."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS.parent / "tests")]

from budgeted import budgeted_run  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of decoded images of this test session's own: the user's is neither read nor filled."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSMAE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seconds, whose budget is measured, for all tests: they leave it as it is."""
    return budgeted_run(tmp_path_factory.mktemp("budget"))
