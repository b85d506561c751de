"""What a terminal would obey or a spreadsheet compute is shown, and comes back as it was."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import msmae
from msmae.cli import StandardError, main
from msmae.data.manifest import Manifest, printable
from msmae.errors import visible
from msmae.files import fill_csv, own_cell, safe_cell
from msmae.statistics.predictions import read_predictions, read_text_table, write_predictions
from msmae.verbs.show import show_result


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


def test_a_table_of_names_is_no_formula_and_reads_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "image_path": ["=cmd()", "a\rb.png", "f\udcff.png"],
            "reason": ["@x", "-1", "plain, with a comma"],
            "n": [-1, 2, 3],
        }
    )
    fill_csv(tmp_path / "t.csv", frame)
    found = read_text_table(tmp_path / "t.csv")
    assert found["image_path"].tolist() == ["'=cmd()", "a\rb.png", "f\udcff.png"]
    assert found["reason"].tolist() == ["'@x", "'-1", "plain, with a comma"]
    assert found["n"].tolist() == ["-1", "2", "3"]
    assert found.map(own_cell)["image_path"].tolist() == frame["image_path"].tolist()


def test_every_table_is_written_by_this_function() -> None:
    package = Path(msmae.__file__).parent
    others = {path.name for path in package.rglob("*.py") if ".to_csv(" in path.read_text(encoding="utf-8")}
    assert others == {"files.py", "prepare.py"}  # the latter for a check sum


def test_what_the_audit_names_is_shown() -> None:
    assert printable("a\x1b[31m\udcff.png") == r"a\x1b[31m\xff.png"


def test_a_folder_in_brackets_is_printed_whole(tmp_path: Path) -> None:
    run, shown = tmp_path / "[red]runs", io.StringIO()
    run.mkdir()
    (run / "metrics.json").touch()
    show_result({"arm": "vit", "seed": 0, "splits": {}}, run, console=Console(file=shown))
    assert str(run / "metrics.json") in shown.getvalue()


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
