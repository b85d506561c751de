"""experiments/keep.py: the control is a copy that is prepared for an even quarter; the run stays as it was."""

from __future__ import annotations

from pathlib import Path

import keep
import numpy as np

from msmae.runs.checkpoint import read_card
from msmae.statistics.predictions import read_predictions


def test_the_control_is_prepared_for_an_even_quarter(budgeted: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in budgeted.rglob("*") if file.is_file()}
    control = keep.write_even_quarter(budgeted, tmp_path / "control", 64)
    assert before == {file: file.read_bytes() for file in budgeted.rglob("*") if file.is_file()}
    card = read_card(control / "model")
    assert card.keep["selector"] == "grid"
    assert card.keep["presentations"] == read_card(budgeted / "model").keep["presentations"]
    quarter = read_predictions(control / "keep" / "predictions_quarter.csv")
    whole = read_predictions(budgeted / "predictions.csv")
    whole = whole[whole["split"] == "test"]
    assert [Path(path).name for path in quarter["image_path"]] == [Path(path).name for path in whole["image_path"]]
    assert not np.allclose(quarter["prob_level 0"], whole["prob_level 0"])
