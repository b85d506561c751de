"""Two commands that predict into one folder: the second is told, and does not wait for ever."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from msmae.data.reading.images import ImageSource
from msmae.errors import UserError
from msmae.inference import bulk
from msmae.inference.bulk import Plan, Ranks
from msmae.inference.items import Item
from msmae.verbs.predict import in_parts

OPTIONS = {"overwrite": False, "dicom": False, "on_error": "stop"}


def begin(out: Path, rows: Any, ranks: Ranks | None = None) -> int | None:
    """Predict four images in parts of one."""
    plan = Plan([Item(ImageSource(f"{row}.png")) for row in range(4)], 1, {}, most=1)

    def read(items: list[Item]) -> torch.Tensor:
        return torch.zeros(len(items), 1, 2, 2)

    return in_parts("run", None, plan, out, ranks or Ranks(), OPTIONS, read=read, rows=rows, doing="predicting")


def answered(items: list[Item], images: torch.Tensor) -> pd.DataFrame:
    return pd.DataFrame({"image_path": [item.source.path for item in items], "predicted": "a"})


def test_a_second_command_is_told_who_works_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*_: Any) -> None:
        raise AssertionError("it waits for parts that nobody computes")

    monkeypatch.setattr(bulk.time, "sleep", waits)
    told = []

    def interrupted(items: list[Item], images: torch.Tensor) -> pd.DataFrame:
        if items[0].source.path == "2.png":  # two parts are there
            with pytest.raises(UserError, match="in use by") as stopped:
                begin(tmp_path / "out", answered)
            told.append(str(stopped.value))
        return answered(items, images)

    assert begin(tmp_path / "out", interrupted) == 4
    assert f"process {os.getpid()}" in told[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 4


def test_what_fails_leaves_no_folder_and_what_was_killed_goes_on(tmp_path: Path) -> None:
    def fails(items: list[Item], images: torch.Tensor) -> pd.DataFrame:
        raise UserError("this image cannot be read")

    with pytest.raises(UserError, match="cannot be read"):
        begin(tmp_path / "out", fails)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("{}")  # of a process that was killed
    assert begin(tmp_path / "out", answered) == 4
    assert not (tmp_path / "out" / ".lock").exists()


def test_the_processes_of_one_command_share_the_folder(tmp_path: Path) -> None:
    assert begin(tmp_path / "out", answered, Ranks(1, 2)) is None
    assert not (tmp_path / "out" / ".lock").exists()
    assert begin(tmp_path / "out", answered, Ranks(0, 2)) == 4
