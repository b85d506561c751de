"""What a terminal would obey or a spreadsheet compute is shown, and comes back as it was."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmae.cli import StandardError, main
from msmae.data.manifest import Manifest
from msmae.errors import visible
from msmae.files import own_cell, safe_cell
from msmae.statistics.predictions import read_predictions, write_predictions


@given(st.text(alphabet=st.sampled_from("=+-@'\t\rab1"), max_size=5))
def test_cells_are_no_formulas_and_come_back(cell: str) -> None:
    written = safe_cell(cell)
    assert not written.startswith(tuple("=+-@\t\r"))
    assert own_cell(written) == cell


def test_predictions_hold_no_formula_and_read_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"image_path": ["-a.png", "b.png"], "patient_id": ["=1+1", "'x"], "split": "test", "label": "@a",
         "predicted": "+b", "prob_@a": [0.25, -0.0], "prob_+b": [0.75, 1.0]}
    )  # fmt: skip
    write_predictions(frame, tmp_path / "p.csv")
    cells = [cell for line in (tmp_path / "p.csv").read_text().splitlines()[1:] for cell in line.split(",")[:5]]
    assert not any(cell.startswith(tuple("=+-@")) for cell in cells)
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.csv"), frame, check_dtype=False)


def test_control_characters_of_labels_and_messages_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"image_path": ["a.png", "b.png"], "label": ["\x1b[31mred", "plain é"]})
    manifest = Manifest.from_table(table, root=Path("."), layout="csv")
    assert list(manifest.table["label"]) == [r"\x1b[31mred", "plain é"]
    with pytest.raises(SystemExit):
        main(["\x1b[2Jcheck"])
    handler = StandardError()
    handler.emit(logging.makeLogRecord({"msg": "a\x9b31m\u202eb\nc"}))
    said = capsys.readouterr().err
    assert not any(letter in said for letter in "\x1b\x9b\u202e")
    assert r"\x1b[2Jcheck" in said
    assert visible("one\ttwo\nthree é") == "one\ttwo\nthree é"
