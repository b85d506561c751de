"""What a log is told of a long epoch: how long it will take, and a line at least every half minute."""

from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from msmae.runs.progress_lines import StageProgress


def test_a_long_epoch_has_a_line_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    trainer: Any = SimpleNamespace(
        current_epoch=0,
        max_epochs=2,
        num_training_batches=300,
        progress_bar_metrics={},
        is_global_zero=True,
        world_size=1,
    )
    line = StageProgress("finetune")
    line.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    told = []
    for batch in range(300):  # a second each
        line.on_train_batch_start()
        clock += 1
        line.on_train_batch_end(trainer, None, None, SimpleNamespace(ids=[0, 1]), batch)  # type: ignore[arg-type]
        if said := capsys.readouterr().out:
            told.append((clock - 1000, said))
    assert told[0][0] <= 10
    assert told[0][1].startswith("finetune: about 10.0 minutes for 2 epochs")
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(told)]
    assert max(gaps) <= 31
    assert min(gaps) >= 20, "and no flood of them"
    assert "finetune 1/2" in told[-1][1]
