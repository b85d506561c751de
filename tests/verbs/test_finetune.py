"""``msmae finetune --overwrite`` in several processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from msmae.verbs.finetune import OF_MODEL, forget_model


def test_the_main_process_removes_a_model_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun each had removed it, and the second ended in a traceback."""
    for name in ("model", "checkpoints"):
        (tmp_path / name).mkdir()
    for name in ("model/config.json", "metrics.json", "checkpoints/last.ckpt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("RANK", "1")
    helper = threading.Thread(target=forget_model, args=(tmp_path,))
    helper.start()
    time.sleep(0.3)
    assert helper.is_alive()
    assert (tmp_path / "model" / "config.json").is_file()
    monkeypatch.setenv("RANK", "0")
    forget_model(tmp_path)
    helper.join(5)
    assert not helper.is_alive()
    assert not [name for name in OF_MODEL if (tmp_path / name).exists()]
