"""Fixtures of the experiments' tests; the scripts of experiments/ can be imported, and so can the helpers of tests/."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS.parent / "tests")]

import msmae  # noqa: E402
from budgeted import budgeted_run  # noqa: E402
from msmae.data.phantom import make_phantom  # noqa: E402


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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the arm msmae on a phantom, for all tests: they leave it as it is."""
    folder = tmp_path_factory.mktemp("runs")
    make_phantom(folder / "phantom", images=120, size=32)
    msmae.run(str(folder / "phantom" / "manifest.csv"), out=str(folder / "msmae"), preset="tiny")
    return folder / "msmae"
