"""A run that starts from a pretrained encoder: one flag, and everything after it knows where it came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import msmae
from encoders.families import HEADS, LAYOUTS, PATCH, WIDTH, state_of
from msmae.errors import LeakageError, UserError
from msmae.verbs.evaluate import evaluate
from msmae.verbs.predict import predict
from msmae.verbs.run import run

SIDE = 4 * PATCH


def images(folder: Path) -> Path:
    """Bright and dark squares of two classes, grey, 8 bits."""
    generator = np.random.default_rng(0)
    for name, level in (("bright", 160), ("dark", 60)):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            pixels = level + generator.integers(-40, 40, (SIDE, SIDE))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.slow
def test_a_run_from_a_pretrained_encoder_and_a_run_from_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    start = tmp_path / "start"
    start.mkdir()
    save_file(state_of(LAYOUTS["Hugging Face DINOv2 with registers"]), start / "model.safetensors")
    (start / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    data, first = images(tmp_path / "data"), tmp_path / "first"
    metrics = run(str(data), out=str(first), init=str(start), preset="tiny")
    shown = capsys.readouterr().out
    assert metrics["arm"] == "vit"
    assert "0 to 255 taken for 0 to 1" in shown

    card = json.loads((first / "model" / "config.json").read_text())
    assert (card["width"], card["heads"], card["encoder"]["registers"]) == (WIDTH, HEADS, 4)
    assert card["mean"] == pytest.approx([255 * np.mean((0.485, 0.456, 0.406))])
    assert card["start"]["path"] == str(start)
    assert "resized" in (first / "loading.txt").read_text()

    model = msmae.load(first)
    pictures = [str(data / "bright" / "0.png"), str(data / "dark" / "0.png")]
    whole, part = model.predict(pictures), model.predict(pictures, keep=0.5, selector="grid")
    assert torch.allclose(whole.sum(dim=1), torch.ones(2))
    assert part.shape == (2, 2)
    assert model.attention(pictures).shape == (2, 8, 8)  # small files are enlarged to 8 x 8 patches
    again = evaluate(str(first))
    assert again["splits"]["test"]["metrics"] == metrics["splits"]["test"]["metrics"]
    predict(str(first), pictures, out=str(tmp_path / "predicted"))
    assert (tmp_path / "predicted" / "predictions.csv").is_file()

    second = tmp_path / "second"
    with pytest.raises(LeakageError, match="the encoder was trained on"):
        run(str(data), out=str(second), init=str(first), preset="tiny", seed=1)
    run(str(first / "manifest.csv"), out=str(second), init=str(first), preset="tiny")
    follows = json.loads((second / "model" / "config.json").read_text())
    assert follows["encoder"] == card["encoder"]
    assert follows["mean"] == pytest.approx(card["mean"])


def test_minutes_without_an_encoder_are_refused_before_the_data_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for minutes, said in ((1.0, "pretrained encoder"), (-3.0, "more than 0")):
        with pytest.raises(UserError, match=said):
            msmae.run("phantom", out=str(tmp_path / "run"), preset="tiny", minutes=minutes)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"method": "vit", "finetune": {"lora": 2}}, "no pretrained encoder"),
        ({"method": "probe-knn"}, "needs a pretrained encoder"),
        ({"method": "probe", "finetune": {"freeze": 1}}, "head only"),
        ({"method": "supmae", "finetune": {"freeze": 9}}, "has 2 blocks"),
    ],
)
def test_what_would_keep_nothing_of_an_encoder_is_refused(
    words: dict[str, Any], complaint: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=complaint):
        msmae.run(str(data), out=str(tmp_path / "run"), preset="tiny", **words)
    assert not (tmp_path / "run").exists()


def test_a_finished_demo_is_shown_again_and_says_that_it_trained_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "demo"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("pretrained"))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    metrics = msmae.demo(out=str(run))
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert "not trained again" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
