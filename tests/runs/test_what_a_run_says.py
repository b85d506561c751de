"""What was understood stands in each file of a run; a report says what it wrote."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest
import yaml

from msmae.verbs.report import report

pytestmark = pytest.mark.slow


def test_what_was_understood_is_in_the_audit_the_settings_and_the_report(finished: Path) -> None:
    audit = json.loads((finished / "audit.json").read_text())["understood"]
    assert yaml.safe_load((finished / "config.yaml").read_text())["understood"] == audit
    assert {"layout", "classes", "patients", "splits", "masks"} <= {fact["about"] for fact in audit["facts"]}
    page = html.unescape((finished / "report.html").read_text())
    for fact in audit["facts"]:
        assert fact["said"] in page


def test_a_report_says_what_it_wrote(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(str(shutil.copytree(finished, tmp_path / "run")))
    said = capsys.readouterr().out
    for name in ("report.html", "model_card.md", "claim_2024.md", "tripod_ai.md"):
        assert str(tmp_path / "run" / name) in said
