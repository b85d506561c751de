"""What must be known of a comparison's runs before its figures are believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from test_comparison_report import page_of, write_folder

from msmae.reporting.comparison.verdict import headline
from saved_run import put


def test_runs_of_different_software_are_named_as_such(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "moles", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    told = "not all made with the same software"
    assert told not in page_of(folder).text
    file = folder / "msmae" / "1" / "environment.json"
    record = json.loads(file.read_text())
    put(file, record | {"auto_precision": "16-mixed", "packages": {"torch": "2.1.0", "numpy": "2.0"}})
    assert f"{told} (torch differ)" in page_of(folder).text  # what the others do not tell is not compared
    put(file, record | {"went_on_with": ["msmae 0.2.0"]})
    assert f"{told} (msmae differ)" in page_of(folder).text


def test_a_test_split_of_one_class_is_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "moles", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    for file in folder.glob("*/*/metrics.json"):
        metrics = json.loads(file.read_text())
        nothing = {"value": None, "low": None, "high": None, "method": None, "reason": "every image is of one class, a"}
        metrics["splits"]["test"]["metrics"]["balanced_accuracy"] = nothing
        put(file, metrics)
    assert "In the test split every image is of one class, a: the figures that compare" in page_of(folder).text


def test_images_that_name_no_patient_are_not_called_patients(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "moles", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    for file in folder.glob("*/*/predictions.csv"):
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        tested = frame.index[frame["split"] == "test"]
        frame.loc[tested[:40], "patient_id"] = ""
        frame.to_csv(file, index=False)
    assert "Based on 2 seeds and 120 test images, of which 40 name no patient and count as one each." in (
        page_of(folder).text
    )


def test_a_comparison_of_tiny_models_says_that_it_is_a_smoke_test(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "moles", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0,))
    assert "smoke test" not in page_of(folder).text
    file = folder / "mae" / "0" / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"preset": "tiny"}))
    assert "is a smoke test" in page_of(folder).text


def test_one_planned_question_is_no_questions(tmp_path: Path) -> None:
    text = page_of(write_folder(tmp_path / "one", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0,))).text
    assert "1 planned question," in " ".join(text.split())


def test_why_a_lead_could_not_be_tested_is_said() -> None:
    def pair(second: str, reason: str) -> dict[str, Any]:
        entry = {"value": 0.1, "low": None, "high": None, "p_value": None, "p_holm": None, "reason": reason}
        return {"first": "best", "second": second, "metrics": {"balanced_accuracy": entry}}

    means = {arm: {"balanced_accuracy": {"value": 0.9 - at / 10}} for at, arm in enumerate(("best", "few", "one"))}
    told = headline({"arms": means}, [pair("few", "too few patients"), pair("one", "all alike")], "balanced_accuracy")
    assert "over “few” cannot be tested: too few patients. The lead over “one” cannot be tested: all alike." in told
