"""The tutorials and the README do what they say: their code is run, in a small form here and as printed in `make long`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from documented import REPOSITORY, run_page

LONG = os.environ.get("MSMAE_LONG") == "1"
TUTORIALS = REPOSITORY / "docs" / "tutorials"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def test_a_first_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"images=3000": "images=120, size=32", "--preset demo": "--preset tiny"}
    names = run_page(TUTORIALS / "first-model.md", tmp_path, {} if LONG else small, monkeypatch)
    metrics = json.loads((tmp_path / "runs" / "first" / "metrics.json").read_text(encoding="utf-8"))
    assert names["accuracy"] == metrics["splits"]["test"]["metrics"]["balanced_accuracy"]
    assert names["model"].classes == ["fibrous", "healthy", "lamellar", "reticular"]
    for made in ("report.html", "masks/masks.png"):
        assert (tmp_path / "runs" / "first" / made).stat().st_size > 1000
    rows = (tmp_path / "predicted" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3
    if LONG:
        assert names["accuracy"]["value"] > 0.9


def test_is_my_test_split_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(TUTORIALS / "clean-split.md", tmp_path, {}, monkeypatch)
    assert "5 before, 0 after" in capsys.readouterr().out
    audit = json.loads((tmp_path / "audit" / "audit.json").read_text(encoding="utf-8"))
    assert "new-0.png" in json.dumps(audit)
    assert (tmp_path / "runs" / "clean" / "report.html").is_file()
