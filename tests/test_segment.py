"""``msmae segment`` on a small phantom: the run contract, resuming, leakage, prediction, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import msmae
from msmae.cli import main, make_parser, plain_words
from msmae.data.phantom import make_phantom
from msmae.errors import LeakageError, UserError
from msmae.stages import segment_module
from msmae.stages.segment import segment


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of decoded images of this test session's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSMAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a phantom of 120 images at 32 px."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, images=120, size=32)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pre"
    msmae.pretrain(str(data), out=str(out), preset="tiny")
    return out


@pytest.fixture(scope="module")
def finished(data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "seg"
    segment(str(data), from_=str(pretrained), out=str(out), preset="tiny", segment={"epochs": 3})
    return out


def figures(run: Path) -> dict[str, Any]:
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["cost"]
    return metrics


def test_the_run_contract(finished: Path, data: Path) -> None:
    for name in (
        "config.yaml", "manifest.csv", "environment.json", "checkpoints/last.ckpt", "model/model.safetensors",
        "segmentation.csv", "metrics.json", "report.html", "loading.txt", "panels/panels.json",
    ):  # fmt: skip
        assert (finished / name).is_file(), name
    metrics = figures(finished)
    assert metrics["task"] == "segmentation"
    assert metrics["arm"] == "msmae"
    test = metrics["splits"]["test"]
    for name in ("dice", "iou", "hd95", "nsd"):
        assert {"value", "low", "high"} <= test["metrics"][name].keys()
    manifest = msmae.open_dataset(data)
    assert test["n"] == len(manifest.ids("test"))
    frame = pd.read_csv(finished / "segmentation.csv")
    assert len(frame) == len(manifest.ids("test")) + len(manifest.ids("val"))
    counts = test["counts"]["lesion"]
    healthy = (manifest.table["label"][manifest.ids("test")] == "healthy").sum()
    assert counts["both_empty"] + counts["false_alarms"] == healthy
    page = (finished / "report.html").read_text()
    for said in ("Best, middle and worst", "by size", "Surface Dice"):
        assert said in page
    assert "used:" in (finished / "loading.txt").read_text()


def test_evaluating_again_gives_the_same_figures(finished: Path) -> None:
    before = figures(finished)["splits"]
    msmae.evaluate(str(finished))
    assert figures(finished)["splits"] == before


def test_the_report_is_built_again_from_the_files(finished: Path) -> None:
    from msmae.stages.report import report

    before = (finished / "report.html").read_bytes()
    report(str(finished))
    assert (finished / "report.html").read_bytes() == before


def test_the_model_gives_probabilities_of_the_images_size(finished: Path, data: Path) -> None:
    model = msmae.load(finished)
    images = torch.rand(2, 1, 50, 70) * 255
    found = model.predict(images)
    assert found.shape == (2, 1, 50, 70)
    assert 0 <= found.min() <= found.max() <= 1
    pieces = model.predict(images, sliding=True)
    assert pieces.shape == found.shape
    assert not torch.allclose(pieces, found)
    manifest = msmae.open_dataset(data)
    assert model.predict([manifest.path(0)]).shape == (1, 1, 32, 32)
    with pytest.raises(UserError, match="shape"):
        model.predict(torch.rand(1, 3, 32, 32))


def test_predict_writes_masks_of_the_inputs_size_and_overlays(finished: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, shape in (("a.png", (40, 33)), ("b.png", (32, 32))):
        Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / name)
    msmae.predict(str(finished), [str(tmp_path)], out=str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    for mask, size in zip(table["mask"], ((33, 40), (32, 32)), strict=True):
        image = Image.open(tmp_path / "out" / mask)
        assert image.size == size
        assert set(np.unique(np.asarray(image))) <= {0, 255}
        assert (tmp_path / "out" / "overlays" / Path(mask).name).is_file()


def test_a_stopped_run_goes_on_from_its_last_epoch(
    finished: Path, data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"from_": str(pretrained), "out": str(tmp_path / "run"), "preset": "tiny"}
    plain = segment_module.SegmentModule.on_train_epoch_start

    def stop_at_the_third(module: segment_module.SegmentModule) -> None:
        if module.current_epoch == 2:
            raise RuntimeError("the power fails")
        plain(module)

    with monkeypatch.context() as patch:
        patch.setattr(segment_module.SegmentModule, "on_train_epoch_start", stop_at_the_third)
        with pytest.raises(RuntimeError, match="the power fails"):
            segment(str(data), **words, segment={"epochs": 3})
    assert not (tmp_path / "run" / "model").exists()
    with pytest.raises(UserError, match="other settings"):
        segment(str(data), **words, segment={"epochs": 4})
    segment(str(data), **words, segment={"epochs": 3})
    assert (
        figures(tmp_path / "run")["model_sha256"] == json.loads((finished / "metrics.json").read_text())["model_sha256"]
    )
    with pytest.raises(UserError, match="finished run"):
        segment(str(data), **words, segment={"epochs": 3})


def test_testing_on_what_the_encoder_has_seen_is_refused(data: Path, pretrained: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    table["split"] = table["split"].map({"train": "test", "test": "train", "val": "val"})
    table["patient_id"] = ""
    table.to_csv(data.parent / "swapped.csv", index=False)
    words = {"from_": str(pretrained), "out": str(tmp_path / "run"), "preset": "tiny"}
    with pytest.raises(LeakageError, match=r"by their pixels.*manifest\.csv") as caught:
        segment(str(data.parent / "swapped.csv"), **words)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run").exists()


def test_another_size_and_the_papers_decoder(data: Path, pretrained: Path, tmp_path: Path) -> None:
    metrics = segment(
        str(data), from_=str(pretrained), out=str(tmp_path / "run"), decoder="setr-pup", preset="tiny",
        model={"image_size": 40}, segment={"epochs": 1},
    )  # fmt: skip
    assert metrics["measured_at"]["image_size"] == [40, 40]
    assert "resized:    1  pos_embed" in (tmp_path / "run" / "loading.txt").read_text()


def test_index_masks_of_two_classes(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    for number, row in table.iterrows():
        mask = np.zeros((32, 32), dtype=np.uint8)
        if row["mask_path"]:
            inside = np.asarray(Image.open(data.parent / row["mask_path"])) > 0
            mask[inside] = 1 + int(number) % 2  # type: ignore[call-overload]
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
        table.loc[number, ["image_path", "mask_path"]] = [str(data.parent / row["image_path"]), f"{number}.png"]  # type: ignore[index]
    table.to_csv(tmp_path / "two.csv", index=False)
    words = {"from_": "none", "preset": "tiny"}
    with pytest.raises(UserError, match="values 0, 1, 2, and one class"):
        segment(str(tmp_path / "two.csv"), out=str(tmp_path / "x"), **words)
    with pytest.raises(UserError, match="no training mask shows c"):
        segment(str(tmp_path / "two.csv"), out=str(tmp_path / "x"), segment={"classes": "a,b,c"}, **words)
    metrics = segment(
        str(tmp_path / "two.csv"), out=str(tmp_path / "run"), segment={"classes": "a,b", "epochs": 1}, **words
    )
    assert list(metrics["splits"]["test"]["per_class"]) == ["a", "b"]
    assert msmae.load(tmp_path / "run").predict(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_bad_input_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run or file"):
        segment(str(data), from_=str(tmp_path / "none"), out=str(tmp_path / "r"), preset="tiny")
    with pytest.raises(UserError, match=r"2\d of 120 images cannot be used.*\n.*no mask|images cannot be used"):
        segment(str(data), from_="none", out=str(tmp_path / "r"), preset="tiny", segment={"healthy": "", "epochs": 1})
    with pytest.raises(UserError, match="decoder"):
        segment(str(data), from_="none", out=str(tmp_path / "r"), decoder="unet", preset="tiny")
    assert not (tmp_path / "r").exists()


def test_from_is_an_option_although_python_keeps_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain_words(["d", "--from", "none", "--out=r"], segment) == ["d", "--from_", "none", "--out=r"]
    parser = make_parser("segment", segment, ["d", "--from_", "none", "--out", "r", "--preset", "tiny"])
    assert "--from FROM" in parser.format_usage()
    with pytest.raises(SystemExit) as caught:
        main(["segment", "nowhere", "--from", "none", "--out", "r"])
    assert caught.value.code == 2


@pytest.mark.slow
def test_a_phantom_is_outlined(tmp_path: Path) -> None:
    """Shorter training outlines something in every healthy image, which counts as Dice 0."""
    make_phantom(tmp_path / "phantom", images=400, size=32)
    metrics = segment(
        str(tmp_path / "phantom" / "manifest.csv"), from_="none", out=str(tmp_path / "run"), preset="tiny",
        segment={"presentations": 15_000},
    )  # fmt: skip
    assert metrics["splits"]["test"]["metrics"]["dice"]["value"] > 0.7
