"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores (`make test`): each, and what it starts, has one
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import msmae
from budgeted import budgeted_run
from msmae.data.phantom import make_phantom

REPOSITORY = Path(__file__).resolve().parents[1]
hypothesis.settings.register_profile("msmae", deadline=None)  # how long a case takes says nothing on a busy machine
hypothesis.settings.load_profile("msmae")


SLOW = {"budgeted", "dicom_server", "segment_server"}
"""Fixtures that take many seconds: what needs one of them is slow. (A run, and one server, `make quick` has.)"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a slow fixture."""
    for item in items:
        if SLOW & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public research data, where this machine has it; otherwise the test is skipped and says why."""
    folder = Path(os.environ.get("MSMAE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: neither MSMAE_DATA nor {REPOSITORY.parent / 'shared' / 'data'} is a folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of decoded images of this test session's own: the user's is neither read nor filled."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSMAE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a phantom of 120 images at 32 px, for all tests; other tables may be written beside it."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, images=120, size=32)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder's pre-training on that phantom, for all tests."""
    out = tmp_path_factory.mktemp("runs") / "pre"
    msmae.pretrain(str(data), out=str(out), preset="tiny")
    return out


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the arm msmae on that phantom, for all tests: they leave it as it is."""
    out = tmp_path_factory.mktemp("runs") / "msmae"
    msmae.run(str(data), out=str(out), preset="tiny")
    return out


@pytest.fixture(scope="session")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seconds, whose budget is measured, for all tests: they leave it as it is."""
    return budgeted_run(tmp_path_factory.mktemp("budget"))
