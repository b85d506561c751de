"""``msmae segment`` on a small phantom: the run contract, resuming, prediction, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.ndimage import binary_erosion

import msmae
from msmae.cli import main
from msmae.errors import UserError
from msmae.method.segmenter import Segmenter
from msmae.training import segment as training
from msmae.training.cards import card_of
from msmae.verbs.segment import segment

pytestmark = pytest.mark.slow


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
    for said in (
        "Best, middle and worst",
        "by size",
        "Surface Dice",
        "no lesion, no outline",
        "Dice on lesion images",
        "fibrous",
    ):
        assert said in page, said
    assert "Attention" not in page
    assert "Subgroups" not in page
    panels = json.loads((finished / "panels" / "panels.json").read_text())["panels"]
    assert {panel["kind"] for panel in panels} == {"best", "median", "worst"}
    assert page.count("Dice <strong>") == len(panels) > 0
    assert "used:" in (finished / "loading.txt").read_text()


def test_evaluating_again_gives_the_same_figures(finished: Path) -> None:
    before = figures(finished)["splits"]
    msmae.evaluate(str(finished))
    assert figures(finished)["splits"] == before


def test_the_report_is_built_again_from_the_files(finished: Path) -> None:
    from msmae.verbs.report import report

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


def test_a_stopped_run_goes_on_from_its_last_step(
    finished: Path, data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, Any] = {"from_": str(pretrained), "out": str(tmp_path / "run"), "preset": "tiny"}
    words["trainer"] = {"checkpoint_minutes": 1e-6}
    plain = training.SegmentModule.on_train_batch_start

    def stop_in_the_third(module: training.SegmentModule, batch: Any, number: int) -> None:
        if (module.current_epoch, number) == (2, 1):
            raise RuntimeError("the power fails")
        plain(module, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(training.SegmentModule, "on_train_batch_start", stop_in_the_third)
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


def test_what_is_left_out_is_counted_in_the_report(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    place = table.index[(table["split"] == "train") & (table["mask_path"] != "")][0]
    table.loc[place, "mask_path"] = ""
    table.to_csv(data.parent / "lacking.csv", index=False)
    segment(
        str(data.parent / "lacking.csv"), from_="none", out=str(tmp_path / "run"), preset="tiny",
        segment={"epochs": 1}, dataset={"on_error": "skip"},
    )  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    assert "1 image of the train split left out: " in page
    assert Path(str(table.loc[place, "image_path"])).name in page


def test_another_size_and_the_papers_decoder(data: Path, pretrained: Path, tmp_path: Path) -> None:
    metrics = segment(
        str(data), from_=str(pretrained), out=str(tmp_path / "run"), decoder="setr-pup", preset="tiny",
        model={"image_size": 40}, segment={"epochs": 1},
    )  # fmt: skip
    assert metrics["measured_at"]["image_size"] == [40, 40]
    assert "resized:    1  pos_embed" in (tmp_path / "run" / "loading.txt").read_text()


def test_index_masks_of_two_classes(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    masked = table["mask_path"] != ""
    for number, row in table.iterrows():
        mask = np.zeros((32, 32), dtype=np.uint8)
        if row["mask_path"]:
            inside = np.asarray(Image.open(data.parent / row["mask_path"])) > 0
            mask[inside] = 1 + int(number) % 2  # type: ignore[call-overload]
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
        table.loc[number, ["image_path", "mask_path"]] = [str(data.parent / row["image_path"]), f"{number}.png"]  # type: ignore[index]
    table.to_csv(tmp_path / "two.csv", index=False)
    words = {"from_": "none", "preset": "tiny"}
    twos = table[(table["split"] == "train") & (table.index % 2 == 1) & masked]
    with pytest.raises(UserError, match=rf"values 0, 1, 2, and one class.*2 first for {twos['image_path'].iloc[0]}"):
        segment(str(tmp_path / "two.csv"), out=str(tmp_path / "x"), **words)
    with pytest.raises(UserError, match="no training mask shows c"):
        segment(str(tmp_path / "two.csv"), out=str(tmp_path / "x"), segment={"classes": "a,b,c"}, **words)
    metrics = segment(
        str(tmp_path / "two.csv"), out=str(tmp_path / "run"), segment={"classes": "a,b", "epochs": 1}, **words
    )
    assert list(metrics["splits"]["test"]["per_class"]) == ["a", "b"]
    assert msmae.load(tmp_path / "run").predict(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


@pytest.fixture(scope="module")
def overlapping(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom with two masks a lesion: the whole, and a core that lies in it."""
    folder = tmp_path_factory.mktemp("overlapping")
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    cells = []
    for number, row in table.iterrows():
        cell = ""
        if row["mask_path"]:
            core = binary_erosion(np.asarray(Image.open(data.parent / row["mask_path"])) > 0, iterations=2)
            Image.fromarray(core.astype(np.uint8) * 255).save(folder / f"{number}.png")
            cell = f"whole={data.parent / row['mask_path']};core={number}.png"
        cells.append(cell)
    first = next(number for number, cell in enumerate(cells) if cell)
    cells[first] = cells[first].partition(";")[0]  # no mask of the core
    table["mask_path"] = cells
    table["image_path"] = [str(data.parent / path) for path in table["image_path"]]
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def test_masks_of_classes_that_overlap(overlapping: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"from_": "none", "preset": "tiny"}
    with pytest.raises(UserError, match=r"masks are of core, whole, and segment\.classes names core"):
        segment(str(overlapping), out=str(tmp_path / "x"), segment={"classes": "core"}, **words)
    metrics = segment(str(overlapping), out=str(tmp_path / "run"), segment={"epochs": 4}, **words)
    healthy = int((pd.read_csv(overlapping, keep_default_na=False)["mask_path"] == "").sum())
    told = capsys.readouterr().out
    assert f"without a mask of core, read as showing none: {healthy + 1} of 120 images" in told
    assert f"without a mask of whole, read as showing none: {healthy} of 120 images" in told
    test = metrics["splits"]["test"]
    assert list(test["per_class"]) == ["core", "whole"]
    frame = pd.read_csv(tmp_path / "run" / "segmentation.csv").set_index(["image_path", "class"])["reference"].unstack()
    assert (frame["core"] <= frame["whole"]).all()
    assert (frame["core"] < frame["whole"]).any()
    model = msmae.load(tmp_path / "run")
    assert model.card.multilabel
    image = Path(pd.read_csv(overlapping)["image_path"][0])
    probabilities = model.predict([image])
    assert probabilities.shape == (1, 2, 32, 32)
    high = torch.tensor([0.9, 0.8]).view(1, 2, 1, 1)
    assert model.layers(high).all(), "a pixel may be of both"
    msmae.predict(str(tmp_path / "run"), [str(image)], out=str(tmp_path / "out"))
    cell = pd.read_csv(tmp_path / "out" / "predictions.csv")["mask"][0]
    assert [piece.partition("=")[0] for piece in cell.split(";")] == ["core", "whole"]
    for piece in cell.split(";"):
        with Image.open(tmp_path / "out" / piece.partition("=")[2]) as mask:
            assert mask.size == (32, 32)
    msmae.evaluate(str(tmp_path / "run"))
    assert figures(tmp_path / "run")["splits"]["test"] == test


def test_masks_with_and_without_a_class_are_not_mixed(overlapping: Path, tmp_path: Path) -> None:
    table = pd.read_csv(overlapping, dtype=str, keep_default_na=False)
    row = table.index[table["mask_path"] != ""][0]
    table.loc[row, "mask_path"] = table.loc[row, "mask_path"].partition("=")[2].partition(";")[0]
    table.to_csv(overlapping.parent / "mixed.csv", index=False)
    with pytest.raises(UserError, match="1 image with a mask that names no class, where others name core, whole"):
        segment(str(overlapping.parent / "mixed.csv"), from_="none", out=str(tmp_path / "x"), preset="tiny")


def test_what_the_loss_is_compared_with_is_what_the_masks_say(overlapping: Path) -> None:
    from msmae.config import make_settings
    from msmae.data.opening import divide
    from msmae.runs.checkpoint import build_model
    from msmae.training.segment_data import class_layers, prepare_masks

    settings = make_settings("tiny")
    prepared = prepare_masks(divide(overlapping, settings=settings), settings=settings, arm="none", seed=0)
    model = build_model(card_of(prepared, "segmenter"))
    assert isinstance(model, Segmenter)
    module = training.SegmentModule(model, prepared)
    ids = prepared.ids("train", labelled=False)
    target = module.target(torch.from_numpy(prepared.store.fetch_masks(ids)))
    assert torch.equal(target, torch.from_numpy(class_layers(prepared, ids)).float())
    assert (target[:, 0] * target[:, 1]).any(), "core and whole overlap"
    logits = torch.where(target > 0, 20.0, -20.0)
    assert float(module.loss(logits, target)) < 1e-3
    assert torch.equal(training.decide(logits, classes=2), target > 0)
    assert float(module.loss(-logits, target)) > 1


def test_piece_by_piece_sees_the_image_at_its_own_resolution(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = msmae.load(finished)
    monkeypatch.setattr(model, "forward", lambda images: images.sigmoid())  # what it says depends on the pixel alone
    images = torch.rand(1, 1, 70, 45) * 255
    expected = ((images - model.mean) / model.std).sigmoid()
    assert torch.allclose(model.predict(images, sliding=True), expected, atol=1e-5)
    assert not torch.allclose(model.predict(images), expected, atol=1e-2)


def test_pieces_are_blended_by_gaussian_weights(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = msmae.load(finished)
    ramp = torch.linspace(0, 1, 32).expand(32, 32)  # every piece says the same of its own left and right
    monkeypatch.setattr(model, "forward", lambda images: ramp.repeat(len(images), 1, 1, 1))
    found = model.predict(torch.rand(1, 1, 32, 48), sliding=True)[0, 0, 16]  # pieces at 0 and 16
    near_first, middle, near_second = float(found[17]), float(found[24]), float(found[30])
    assert near_first == pytest.approx(float(ramp[0, 17]), abs=0.1), "there the first piece's centre is near"
    assert near_second == pytest.approx(float(ramp[0, 14]), abs=0.1)
    assert middle == pytest.approx(0.5, abs=0.1), "halfway"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda mask: np.stack([mask, mask // 2, mask], axis=2), "the mask is in colour"),
        (lambda mask: mask // 255 * np.arange(32, dtype=np.uint8), "holds the values 0, "),
        (lambda mask: mask[:20], "the mask is 20 x 32 pixels"),
        (lambda mask: None, "the image has no mask"),
    ],
)
def test_a_bad_mask_is_named_or_left_out(
    spoil: Any, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    table["image_path"] = [str(data.parent / path) for path in table["image_path"]]
    row = table.index[(table["split"] == "test") & (table["mask_path"] != "")][0]
    worse = spoil(np.asarray(Image.open(data.parent / table.at[row, "mask_path"])))
    table["mask_path"] = [str(data.parent / path) if path else "" for path in table["mask_path"]]
    table.loc[row, "mask_path"] = "" if worse is None else "bad.png"
    if worse is not None:
        Image.fromarray(worse).save(tmp_path / "bad.png")
    table.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(UserError, match=r"1 of 120 images cannot be used") as caught:
        segment(str(tmp_path / "m.csv"), from_="none", out=str(tmp_path / "run"), preset="tiny")
    assert said in str(caught.value)
    assert (Path(table.at[row, "image_path"]).name if worse is None else "bad.png") in str(caught.value)
    assert not (tmp_path / "run").exists()
    words: dict[str, Any] = {"dataset": {"on_error": "skip"}, "segment": {"epochs": 1}}
    metrics = segment(str(tmp_path / "m.csv"), from_="none", out=str(tmp_path / "run"), preset="tiny", **words)
    assert metrics["splits"]["test"]["n"] == (table["split"] == "test").sum() - 1


def test_masks_that_cover_everything_or_nothing_are_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    table["image_path"] = [str(data.parent / path) for path in table["image_path"]]
    masked = table.index[table["mask_path"] != ""]
    table["mask_path"] = [str(data.parent / path) if path else "" for path in table["mask_path"]]
    Image.new("L", (32, 32), 255).save(tmp_path / "full.png")
    Image.new("L", (32, 32), 0).save(tmp_path / "empty.png")
    table.loc[masked[0], "mask_path"] = "full.png"
    table.loc[masked[1], "mask_path"] = "empty.png"
    table.to_csv(tmp_path / "m.csv", index=False)
    segment(str(tmp_path / "m.csv"), from_="none", out=str(tmp_path / "run"), preset="tiny", segment={"epochs": 1})
    told = capsys.readouterr().out
    assert f"1 of 120 masks cover the whole image: {table.at[masked[0], 'image_path']}" in told
    assert f"empty: {120 - len(masked) + 1} of 120 masks" in told
    table.loc[masked, "mask_path"] = "empty.png"
    table.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(UserError, match="no training mask shows lesion"):
        segment(str(tmp_path / "m.csv"), from_="none", out=str(tmp_path / "other"), preset="tiny")


@pytest.mark.parametrize("as_file", [False, True])
def test_a_mutated_encoder_is_refused_with_the_names(
    as_file: bool, data: Path, pretrained: Path, tmp_path: Path
) -> None:
    shutil.copytree(pretrained, tmp_path / "pre")
    file = tmp_path / "pre" / "pretrained" / "model.safetensors"
    weights = load_file(file)
    renamed, misshapen = "encoder.blocks.1.attn.qkv.bias", "encoder.norm.weight"
    weights["encoder.blocks.1.attn.qkv_bias"] = weights.pop(renamed)
    weights[misshapen] = torch.ones(5)
    prefix = "encoder." if as_file else ""
    if as_file:
        weights = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    save_file(weights, file)
    given = file if as_file else tmp_path / "pre"
    with pytest.raises(UserError) as caught:
        segment(str(data), from_=str(given), out=str(tmp_path / "run"), preset="tiny")
    for name in (renamed, "encoder.blocks.1.attn.qkv_bias", misshapen):
        assert name.removeprefix("encoder.") in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_bad_input_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run or file"):
        segment(str(data), from_=str(tmp_path / "none"), out=str(tmp_path / "r"), preset="tiny")
    with pytest.raises(UserError, match=r"2\d of 120 images cannot be used.*\n.*no mask|images cannot be used"):
        segment(str(data), from_="none", out=str(tmp_path / "r"), preset="tiny", segment={"healthy": "", "epochs": 1})
    with pytest.raises(UserError, match="decoder"):
        segment(str(data), from_="none", out=str(tmp_path / "r"), decoder="unet", preset="tiny")
    assert not (tmp_path / "r").exists()


def test_images_without_masks_are_told_where_masks_may_lie(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(data).drop(columns="mask_path")
    table.to_csv(data.with_name("maskless.csv"), index=False)
    with pytest.raises(UserError, match=r"the data has no masks .*: lay a_mask\.png beside a\.png, or masks/a\.png"):
        segment(str(data.with_name("maskless.csv")), from_="none", out=str(tmp_path / "run"), preset="tiny")
    assert "auditing" not in capsys.readouterr().out, "nothing was read for it"


def test_from_is_an_option_although_python_keeps_the_word() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["segment", "nowhere", "--from", "none", "--out", "r"])
    assert caught.value.code == 2
