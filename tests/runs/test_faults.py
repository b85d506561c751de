"""What goes wrong around a training that runs: it goes on, or ends in a sentence; nothing that was written is lost."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import msmae
from msmae.data.opening import cache_folder
from msmae.data.phantom import make_phantom
from msmae.errors import UserError
from msmae.training.trainer import StageModule

SETTINGS: dict[str, Any] = {
    "preset": "tiny", "method": "supmae", "pretrain": {"epochs": 2, "batch_size": 8},
    "finetune": {"epochs": 2, "batch_size": 8}, "evaluate": {"resamples": 100},
    "trainer": {"accelerator": "cpu", "precision": "32-true", "checkpoint_minutes": 1e-6},
}  # fmt: skip
happened: list[int] = []
STEP = 5
"""At which something happens."""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small data set, and the weights of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("faults")
    make_phantom(folder / "data", images=60)
    msmae.run(str(folder / "data"), out=str(folder / "run"), **SETTINGS)
    return folder / "data", weights(folder / "run")


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def happening(monkeypatch: pytest.MonkeyPatch, what: Callable[[], None]) -> None:
    """Let something happen at a step of the first training, once."""
    plain, steps = StageModule.guard, iter(range(10_000))
    del happened[:]

    def guard(self: StageModule, *arguments: Any, **named: Any) -> Any:
        if next(steps) == STEP:
            what()
            happened.append(STEP)
        return plain(self, *arguments, **named)

    monkeypatch.setattr(StageModule, "guard", guard)


def test_a_cache_that_is_deleted_meanwhile_changes_nothing(
    world: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, undisturbed = world
    happening(monkeypatch, lambda: shutil.rmtree(cache_folder()))
    msmae.run(str(data), out=str(tmp_path / "run"), **SETTINGS)
    assert happened
    assert weights(tmp_path / "run") == undisturbed
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("jump", [-1e6, 1e8])
def test_a_clock_that_jumps_changes_nothing(
    world: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    data, undisturbed = world
    plain = time.time
    happening(monkeypatch, lambda: monkeypatch.setattr(time, "time", lambda: plain() + jump))
    msmae.run(str(data), out=str(tmp_path / "run"), **SETTINGS)
    assert happened
    assert weights(tmp_path / "run") == undisturbed


def test_images_that_vanish_or_change_meanwhile_change_nothing(
    world: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were decoded once; what is shown of them in the report is left out."""
    data, undisturbed = world
    mine = tmp_path / "data"
    shutil.copytree(data, mine)

    def spoil() -> None:
        for number, image in enumerate(sorted((mine / "images").iterdir())):
            image.unlink() if number % 2 else image.write_bytes(b"something else")

    happening(monkeypatch, spoil)
    msmae.run(str(mine), out=str(tmp_path / "run"), **SETTINGS)
    assert happened
    assert weights(tmp_path / "run") == undisturbed
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_disk_that_fills_meanwhile_ends_the_run_which_goes_on_when_there_is_room(
    world: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, undisturbed = world

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        happening(patched, lambda: patched.setattr(os, "fsync", full))
        with pytest.raises((UserError, OSError), match="No space left"):
            msmae.run(str(data), out=str(tmp_path / "run"), **SETTINGS)
    msmae.run(str(data), out=str(tmp_path / "run"), **SETTINGS)
    assert happened
    assert weights(tmp_path / "run") == undisturbed
    assert not list((tmp_path / "run").rglob("*.part"))
