"""Which answers a comparison's figures are of: balanced ones, and plain ones beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_comparison_report import CLASSES, page_of, write_folder

from msmae.statistics.predictions import read_predictions, write_predictions


def test_plain_answers_have_a_table_where_they_differ_from_the_balanced_ones(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", arms={"mae": 1.0, "supmae": 2.0}, seeds=(0,))

    def told(arm: str, change: bool) -> pd.DataFrame:
        frame = read_predictions(folder / arm / "0" / "predictions.csv")
        plain = frame["predicted"].where(np.arange(len(frame)) % 4 > 0, CLASSES[0]) if change else frame["predicted"]
        frame = frame.assign(answers="balanced", predicted_plain=plain)
        write_predictions(frame, folder / arm / "0" / "predictions.csv")
        return frame

    for arm in ("mae", "supmae"):
        told(arm, change=False)
    assert "plain answers" not in page_of(folder).text
    frame = told("supmae", change=True)
    shown = page_of(folder)
    expected = (frame["label"] == frame["predicted_plain"]).mean()
    assert expected != (frame["label"] == frame["predicted"]).mean()
    table = pd.read_csv(folder / "table.csv", keep_default_na=False).query("column == 'plain' and metric == 'accuracy'")
    assert table["first"].tolist() == ["mae", "supmae"]
    assert float(table.iloc[1]["value"]) == pytest.approx(expected, abs=1e-9)
    assert "Plain answers" in (folder / "comparison_table.md").read_text()
    assert "plain answers" in shown.text
