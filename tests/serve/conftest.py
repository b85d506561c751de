"""Servers that several tests ask; each is started when it is first used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served_run import write_run
from serving import Served, served


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Of a classifier of 8-bit images, with neighbours and small limits."""
    run = write_run(tmp_path_factory.mktemp("served") / "run")
    with served(run, "--neighbours", "--upload_mb", "4") as found:
        yield found


@pytest.fixture(scope="session")
def dicom_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Of a classifier of DICOM images."""
    run = write_run(tmp_path_factory.mktemp("served") / "run", numbers="float32")
    with served(run) as found:
        yield found


@pytest.fixture(scope="session")
def segment_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Of a segmenter."""
    run = write_run(tmp_path_factory.mktemp("served") / "run", kind="segmenter")
    with served(run) as found:
        yield found
