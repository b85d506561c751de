"""experiments/segmentation_ham10000.py on a small phantom: borrowed and own encoders, what is collected, the table."""

from __future__ import annotations

import sys
from pathlib import Path

import packed
import pytest
import segmentation_ham10000

import msmae
from msmae.data.phantom import make_phantom


def run_script(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    given = ["--data", "phantom", "--encoders", "comparison", "--work", "work", "--results", "results"]
    places = [str(folder / word) if number % 2 else word for number, word in enumerate(given)]
    monkeypatch.setattr(sys, "argv", ["segmentation_ham10000.py", *places, "--preset", "tiny", *words])
    segmentation_ham10000.main()


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
    study = packed.read_study(results, segmentation_ham10000.NAME)
    kept = {"metrics.json", "config.yaml", "environment.json", "segmentation.csv", "comparison.json"}
    assert {file.rpartition("/")[2] for file in study.files()} == kept
    assert str(tmp_path) not in "".join(study.texts.values())
    assert set(study.tables["msmae/0/segmentation.csv"]["split"]) == {"test"}
    run_script(tmp_path, monkeypatch, *words)
    assert "msmae/0: done before" in capsys.readouterr().out
    with pytest.raises(msmae.UserError, match=r"asked for differently \(budget\)"):
        run_script(tmp_path, monkeypatch, *words[:-1], "300")
