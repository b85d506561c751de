"""experiments/collect.py: what goes to results/ and comes back, on another machine too."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "collect.py"


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="collect")


def finished_run(work: Path, paths: list[str]) -> Path:
    run = work / "msmae" / "0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{}")
    pd.DataFrame({"image_path": paths, "label": "a"}).to_csv(run / "predictions.csv", index=False)
    return run


def test_what_is_restored_names_the_images_of_this_machine(script: dict[str, Any], tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for root in (there, here):
        (root / "moles").mkdir(parents=True)
        (root / "moles" / "a.png").touch()
        (root / "chests.npz").touch()
    finished_run(tmp_path / "work", [f"{there}/moles/a.png", f"{there}/chests.npz#train/3"])
    script["collect"](tmp_path / "work", tmp_path / "results", roots=[there])
    collected = (tmp_path / "results" / "msmae" / "0" / "predictions.csv").read_text()
    assert collected == "image_path,label\nmoles/a.png,a\nchests.npz#train/3,a\n"
    script["restore"](tmp_path / "results", tmp_path / "again", roots=[tmp_path / "empty", here])
    back = pd.read_csv(tmp_path / "again" / "msmae" / "0" / "predictions.csv")["image_path"].tolist()
    assert back == [f"{here}/moles/a.png", f"{here}/chests.npz#train/3"]
    script["collect"](tmp_path / "again", tmp_path / "results", roots=[here])
    assert (tmp_path / "results" / "msmae" / "0" / "predictions.csv").read_text() == collected


def test_a_run_that_is_here_is_not_replaced(script: dict[str, Any], tmp_path: Path) -> None:
    finished_run(tmp_path / "results", ["old.png"])
    run = finished_run(tmp_path / "work", ["new.png"])
    script["restore"](tmp_path / "results", tmp_path / "work", roots=[tmp_path])
    assert "new.png" in (run / "predictions.csv").read_text()


def test_runs_restored_before_name_their_images_in_full_too(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    finished_run(tmp_path / "results", ["a.png"])
    run = finished_run(tmp_path / "work", ["a.png", f"{tmp_path}/a.png", "elsewhere.png"])
    for _ in range(2):
        script["restore"](tmp_path / "results", tmp_path / "work", roots=[tmp_path])
        paths = pd.read_csv(run / "predictions.csv")["image_path"].tolist()
        assert paths == [f"{tmp_path}/a.png", f"{tmp_path}/a.png", "elsewhere.png"]


def test_what_is_named_in_full_already_is_not_written_again(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    finished_run(tmp_path / "results", ["a.png"])
    file = finished_run(tmp_path / "work", [f"{tmp_path}/a.png"]) / "predictions.csv"
    before = file.stat().st_mtime_ns, file.stat().st_ino
    script["restore"](tmp_path / "results", tmp_path / "work", roots=[tmp_path])
    assert before == (file.stat().st_mtime_ns, file.stat().st_ino)
    assert [path.name for path in file.parent.iterdir() if "predictions" in path.name] == ["predictions.csv"]
