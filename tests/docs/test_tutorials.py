"""The tutorials and the README do what they say: run here in a small form, and as printed in `make long`."""

from __future__ import annotations

import json
import os
import re
import shutil
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


LEARNS = "--preset tiny --finetune.epochs 5 --finetune.base_lr 0.01 --finetune.batch_size 8 --finetune.ema 0"
"""Training in seconds after which a model tells the classes of :func:`write_easy` apart."""


def write_easy(folder: Path) -> None:
    """A phantom whose classes are of a brightness each."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from msmae.data.phantom import make_phantom

    make_phantom(folder, images=120, size=32, seed=1)
    table = pd.read_csv(folder / "manifest.csv")
    for path, number in zip(table["image_path"], table["label"].astype("category").cat.codes, strict=True):
        pixels = np.asarray(Image.open(folder / path)).astype(int) // 4 + 60 * int(number)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / path)


def test_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands in their order, on folders of the names that it uses; settings that take seconds are added."""
    from msmae.data.phantom import make_phantom

    write_easy(tmp_path / "DATA")
    make_phantom(tmp_path / "OTHER_DATA", images=60, size=32, seed=2)
    table = tmp_path / "OTHER_DATA" / "manifest.csv"  # its patients are others, though a phantom's names are alike
    table.write_text(re.sub(r",p(\d{5}),", r",q\1,", table.read_text(encoding="utf-8")), encoding="utf-8")
    (tmp_path / "NEW_IMAGES").mkdir()
    shutil.copy(tmp_path / "OTHER_DATA" / "images" / "000003.png", tmp_path / "NEW_IMAGES")
    small = {
        "--out runs/mine ": f"--out runs/mine {LEARNS} ",
        "encoders get dinov2-small": "encoders",  # no network in tests
        "--init dinov2-small --minutes 30": "--init runs/mine --preset tiny",
        "--out runs/outlines": "--out runs/outlines --preset tiny --segment.epochs 1",
        "--arms supmae msmae small-cnn --seeds 0 1 2": "--arms supmae small-cnn --seeds 0 --preset tiny",
        "budget runs/mine": "budget runs/mine --presentations 64 --selectors locator --ratios 0.5",
    }
    run_page(REPOSITORY / "README.md", tmp_path, small, monkeypatch)
    for made in ("runs/mine/report.html", "tested/report.html", "runs/outlines/report.html", "runs/arms/report.html"):
        assert (tmp_path / made).stat().st_size > 10_000
    assert (tmp_path / "runs" / "mine" / "budget.json").is_file()
    shutil.copy(tmp_path / "NEW_IMAGES" / "000003.png", tmp_path / "scan.png")
    (line,) = re.findall(r"In Python: `(.*)`", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    import msmae

    assert eval(line, {"msmae": msmae}).shape == (1, 4)
