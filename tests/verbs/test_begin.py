"""How verbs begin: what is cheap is checked before an image is read; a finding of the audit is a line."""

from __future__ import annotations

from pathlib import Path

import pytest

import msmae
from msmae.data.audit.shortcuts import Shortcut
from msmae.errors import UserError
from msmae.verbs import begin

NOWHERE = "/no/such/data"
"""What stops at an image stops at this."""


def test_data_that_is_not_there_is_what_stops_a_run_that_is_right_otherwise(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such"):
        msmae.run(NOWHERE, out=str(tmp_path / "run"), preset="tiny")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"init": "none.pth"}, "no such file or folder of weights"),
        ({"trainer": {"accelerator": "warp"}}, "the training cannot be set up"),
        ({"segment": {"epochs": 3}}, "settings of segment have no effect here"),
        ({"seed": -1}, "-1 is negative"),
        ({"method": "msmae-twoview"}, "was retired"),
        ({"model": {"image_size": 30, "patch_size": 8}}, "not a multiple of the patch size 8"),
    ],
)
def test_what_is_cheap_is_checked_before_the_data(given: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        msmae.run(NOWHERE, out=str(tmp_path / "run"), preset="tiny", **given)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_told_before_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "SMALLEST_DISK", 2**80)
    with pytest.raises(UserError, match="MB are free"):
        msmae.pretrain(NOWHERE, out=str(tmp_path / "run"), preset="tiny")


def test_all_shortcuts_to_the_class_are_one_line() -> None:
    size = Shortcut("image size", "class", 0.48, 0.25, {"a": "1", "b": "2"})
    border = Shortcut("border", "class", 0.41, 0.25, {"a": "1", "b": "2"})
    device = Shortcut("device", "split", 0.9, 0.5, {"train": "1", "test": "2"})
    assert begin.shortcut_lines([border, size, device]) == [
        "the image size alone predicts the class (balanced accuracy 0.48, chance 0.25); so does 1 more trait: see the "
        "report",
        "the device alone predicts the split (balanced accuracy 0.90, chance 0.50)",
    ]
    assert begin.shortcut_lines([]) == []
