"""experiments/segmentation_ham10000.py on a small phantom: borrowed and own encoders, what is collected, the table."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import msmae
from msmae.data.phantom import make_phantom

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "experiments" / "segmentation_ham10000.py"


def run_script(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    given = ["--data", "phantom", "--encoders", "comparison", "--work", "work", "--results", "results"]
    places = [str(folder / word) if number % 2 else word for number, word in enumerate(given)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *places, "--preset", "tiny", *words])
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
def test_the_experiment_borrows_encoders_and_collects_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    make_phantom(tmp_path / "phantom", images=120, size=32)
    manifest = msmae.open_dataset(tmp_path / "phantom" / "manifest.csv")
    manifest.write(tmp_path / "comparison" / "manifest.csv")
    source = tmp_path / "comparison" / "msmae" / "0"  # pre-trained, not yet fine-tuned: no metrics.json
    msmae.pretrain(str(tmp_path / "comparison" / "manifest.csv"), out=str(source), preset="tiny")
    words = ["--arms", "msmae", "mae", "none", "--seeds", "0", "--presentations", "200"]
    run_script(tmp_path, monkeypatch, *words)
    told = capsys.readouterr().out
    assert "msmae − none" in told
    assert "msmae − mae" in told
    work, results = tmp_path / "work", tmp_path / "results"
    assert str(source / "pretrained") in (work / "msmae" / "0" / "loading.txt").read_text()
    assert not (work / "pretrained" / "msmae").exists(), "the comparison's encoder was there"
    assert (work / "pretrained" / "mae" / "0" / "pretrained").is_dir()
    collected = {path.name for path in results.rglob("*") if path.is_file()}
    kept = {
        "metrics.json",
        "config.yaml",
        "environment.json",
        "segmentation.csv",
        "comparison.json",
        "comparison_table.md",
        "table.csv",
    }
    assert collected == kept
    for path in results.rglob("*"):
        assert not path.is_file() or str(tmp_path) not in path.read_text(encoding="utf-8"), path
    run_script(tmp_path, monkeypatch, *words)
    assert "msmae/0: done before" in capsys.readouterr().out
    with pytest.raises(msmae.UserError, match=r"asked for differently \(budget\)"):
        run_script(tmp_path, monkeypatch, *words[:-1], "300")


def test_git_lets_the_collected_files_through_and_no_others() -> None:
    names = ["metrics.json", "config.yaml", "segmentation.csv", "panels/00-best.png", "loading.txt", "manifest.csv"]
    paths = [f"results/ham10000+segmentation/msmae/0/{name}" for name in names]
    asked = subprocess.run(["git", "check-ignore", *paths], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if asked.returncode == 128:
        pytest.skip("not a git checkout")
    assert asked.stdout.split() == paths[3:]
