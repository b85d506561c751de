"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public research data, where this machine has it; otherwise the test is skipped and says why."""
    folder = Path(os.environ.get("MSMAE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: neither MSMAE_DATA nor {REPOSITORY.parent / 'shared' / 'data'} is a folder")
    return folder
