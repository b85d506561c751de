"""Exports: each file says what the model says, for every way of choosing patches, whatever the number of images."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import served_run
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from msmae.errors import UserError
from msmae.inference.exported import STATIC, ExportedClassifier, exported
from msmae.inference.hub_folder import write_folder
from msmae.inference.model import Model, load
from msmae.inference.onnx_file import write_onnx
from msmae.inference.proof import largest_difference
from msmae.inference.timm_file import TimmFile, pretrained_encoder, reread, write_timm
from msmae.method.classifier import Classifier
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import build_model, load_model
from msmae.selection.locator import Glance, Locator
from msmae.selection.selectors import Selection
from msmae.verbs.export import export

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "onnx.md"
CARD = dataclasses.replace(
    served_run.CARD, image_size=(16, 24), patch_size=4, width=24, depth=4, heads=3, mean=[100.0], std=[50.0]
)
CALIBRATION = {"scale": [0.5, 0.8, 1.3], "bias": [0.4, 0.0, -0.7]}


def look_of(selector: str) -> Selection:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(16, 24), patch_size=4, channels=1, width=24, depth=4, heads=3)
    model = Classifier(encoder, classes=3)
    torch.nn.init.normal_(model.head.weight)
    if selector != "locator":
        return Selection(model, selector=selector).eval()
    return Selection(model, selector=selector, locator=Locator(encoder, width=8), glance=Glance(encoder, (1, 2))).eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of random weights, with a calibration and images; tests leave it as it is."""
    return served_run.write_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_run.write_run(tmp_path_factory.mktemp("export") / "segmenter", kind="segmenter")


@pytest.mark.slow
@pytest.mark.parametrize("selector", STATIC)
def test_the_file_says_what_the_model_says(selector: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    kept = 24 if selector == "all" else 10
    model = ExportedClassifier(look_of(selector), kept=kept, card=CARD, calibration=CALIBRATION).eval()
    write_onnx(tmp_path / "model.onnx", model, image_shape=(1, 16, 24), metadata={"classes": ["a", "b", "c"]})
    assert [record for record in caplog.records if record.name.startswith("torch.onnx")] == []
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for images in (torch.rand(count, 1, 16, 24) * 255 for count in (1, 3, 64)):
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, model(images).numpy(), atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["a", "b", "c"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize("multilabel", [False, True])
def test_probabilities_of_a_file_are_calibrated_as_the_models_are(multilabel: bool):
    calibration = {"method": "temperature", "multilabel": multilabel, "images": 9, **CALIBRATION}
    card = dataclasses.replace(CARD, multilabel=multilabel, calibration=calibration)
    selection = look_of("all")
    model, images = Model(selection.model, card), torch.rand(5, 1, 16, 24) * 255
    network, about = exported(model)
    found, own = network(images), model.predict(images, calibrated=False)
    assert (found - own).abs().max() > 0.01
    torch.testing.assert_close(found, model.predict(images), atol=1e-6, rtol=0)
    assert about["calibrated"]
    logits = torch.tensor([[40.0, -40.0, 0.0], [17.5, 3.0, -110.0]])  # float32 ends at 0 and 1
    assert isinstance(network, ExportedClassifier)
    ends = logits.sigmoid() if multilabel else logits.softmax(dim=1)
    torch.testing.assert_close(network.probabilities(logits), model.calibrate(ends), atol=1e-5, rtol=0)


def test_random_patches_are_not_exported(run: Path):
    with pytest.raises(UserError, match="'random' cannot be exported"):
        export(str(run), format="torch", keep=0.5, selector="random")
    assert not (run / "model" / "model.pt2").exists()


def test_a_file_that_answers_otherwise_is_refused():
    images = torch.rand(5, 1, 8, 8)

    def answers(x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(1, 2, 3))[:, None]

    assert largest_difference(images, lambda x: answers(x) + 2e-5, answers) == pytest.approx(2e-5, rel=0.1)
    for wrong in (2e-4, float("nan")):
        with pytest.raises(UserError, match="differ from the model's"):
            largest_difference(images, lambda x, wrong=wrong: answers(x) + wrong, answers)
    only_alone = lambda x: answers(x) + (len(x) == 3)  # noqa: E731
    with pytest.raises(UserError, match="differ"):
        largest_difference(images, only_alone, answers)


def test_a_failed_export_leaves_the_file_of_before(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("msmae.inference.proof.LARGEST", -1.0)
    (tmp_path / "vit.safetensors").write_text("before")
    with pytest.raises(UserError, match="differ"):
        export(str(run), format="timm", out=str(tmp_path / "vit.safetensors"), overwrite=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("vit.safetensors", "before")]


@pytest.mark.slow
def test_a_torch_program_says_what_the_model_says(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = export(str(run), format="torch", out=str(tmp_path / "model.pt2"))
    assert "6 train images of the run" in capsys.readouterr().out
    extra = {"msmae.json": ""}
    with open(path, "rb") as stream:
        program = torch.export.load(stream, extra_files=extra).module()
    assert json.loads(extra["msmae.json"])["classes"] == served_run.CLASSES
    images = torch.rand(7, 1, 32, 32) * 255
    torch.testing.assert_close(program(images), load(run).predict(images), atol=1e-5, rtol=0)


def test_a_hub_folder_predicts_the_same(run: Path, tmp_path: Path):
    folder = Path(export(str(run), format="hub", out=str(tmp_path / "mine")))
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    images = torch.rand(3, 1, 32, 32) * 255
    assert torch.equal(load(folder).predict(images), load(run).predict(images))
    assert str(run) not in "".join(file.read_text() for file in folder.glob("*.*") if file.suffix != ".safetensors")
    assert (folder / "README.md").read_text().startswith("---\n")
    with pytest.raises(UserError, match="--overwrite"):
        export(str(run), format="hub", out=str(folder))
    export(str(run), format="hub", out=str(folder), overwrite=True)
    (folder / "mine.txt").touch()
    with pytest.raises(UserError, match="something else of this name"):
        export(str(run), format="hub", out=str(folder), overwrite=True)


def test_the_readme_of_a_tested_run_is_its_model_card(finished: Path, tmp_path: Path):
    folder = Path(export(str(finished), format="hub", out=str(tmp_path / "mine")))
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "model-index" in text
    assert "msmae.load(" in text
    images = torch.rand(3, load(finished).card.channels, 32, 32) * 255
    assert torch.equal(load(folder).predict(images), load(finished).predict(images))


PARTS: list[dict[str, Any]] = [
    {},
    {"image_size": (16, 16), "pool": "mean"},
    {"encoder": {"registers": 4, "layer_scale": True}},
    {"encoder": {"reads": "norm-of-mean"}},
    {"encoder": {"mlp": "swiglu", "layer_scale": True}},
    {"encoder": {"class_token": False, "reads": "mean"}},
    {"multilabel": True},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_timm_names_hold_the_whole_classifier(parts: dict[str, Any], tmp_path: Path):
    """timm itself reads the file where it is installed; else the reader that its published weights are read by."""
    card = dataclasses.replace(CARD, **parts)
    torch.manual_seed(1)
    network = build_model(card).eval()
    assert isinstance(network, Classifier)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    path = tmp_path / "vit.safetensors"
    write_timm(path, network, card, metadata={"classes": card.classes})
    images = torch.rand(3, 1, *card.image_size) * 255
    expected = Model(network, card).predict(images, calibrated=False)
    assert expected.std(dim=0).max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(TimmFile(path, card, network)(images), expected, atol=1e-5, rtol=0)
        logits = reread(path, card, network).eval()((images - 100) / 50)
    found = logits.sigmoid() if card.multilabel else logits.softmax(dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    header = safe_open(path, "pt").metadata()
    assert json.loads(header["model_args"])["embed_dim"] == card.width
    if "registers" in card.encoder:  # timm's have no position of their own
        assert load_file(path)["pos_embed"].shape[1] == 24


def test_what_timm_does_not_have_is_refused(run: Path, segmenter: Path, tmp_path: Path):
    for place, options, said in (
        (segmenter, {}, "no segmenters"),
        (run, {"keep": 0.5}, "the whole model"),
    ):
        with pytest.raises(UserError, match=said):
            export(str(place), format="timm", out=str(tmp_path / "x"), **options)
    card = dataclasses.replace(CARD, pool="both")
    with pytest.raises(UserError, match="no head that reads 'both'"):
        write_timm(tmp_path / "x", build_model(card), card, metadata={})
    assert not list(tmp_path.iterdir())


def test_a_pre_trained_encoder_goes_out_without_a_head(run: Path, tmp_path: Path):
    (tmp_path / "pre").mkdir()
    shutil.copytree(run / "pretrained", tmp_path / "pre" / "model")
    with pytest.raises(UserError, match="--format timm exports the encoder alone"):
        export(str(tmp_path / "pre"))
    path = Path(export(str(tmp_path / "pre"), format="timm"))
    assert not any(name.startswith(("head.", "decoder")) for name in load_file(path))
    with safe_open(path, "pt") as stream:
        assert json.loads(stream.metadata()["model_args"])["num_classes"] == 0
    tokens = load_model(run / "pretrained")[0].encoder((images := torch.rand(2, 1, 32, 32) * 255) / 50 - 80 / 50)
    ours = pretrained_encoder(run / "pretrained").predict(images)
    torch.testing.assert_close(ours, tokens[:, 0].detach(), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_segmenter_is_exported_and_proved_on_phantoms(
    segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = export(str(segmenter), out=str(tmp_path / "model.onnx"))
    assert "phantom images" in capsys.readouterr().out
    images = torch.rand(3, 1, 32, 32) * 255
    (found,) = onnxruntime.InferenceSession(path).run(["probabilities"], {"images": images.numpy()})
    assert found.shape == (3, 1, 32, 32)
    np.testing.assert_allclose(found, load(segmenter).predict(images).numpy(), atol=1e-4)


def test_the_readme_of_a_segmenter_says_nothing_of_a_classifier(segmenter: Path, tmp_path: Path):
    """It had a linear head, probabilities that sum to one, and settings of a fine-tuning that never was."""
    run = shutil.copytree(segmenter, tmp_path / "run")
    entry = {"value": 0.81, "low": 0.7, "high": 0.9}
    split = {"n": 20, "patients": None, "metrics": {"dice": entry}, "per_class": {"lesion": {"n": 20}}, "notes": []}
    metrics = {"task": "segmentation", "arm": "vit", "seed": 0, "splits": {"test": split}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "config.yaml").write_text("from: runs/dinov2\nsettings: {finetune: {epochs: 2, balance: auto}}\n")
    write_folder(run, tmp_path / "hub", load(run).card)
    told = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert "0.810" in told
    assert "dinov2" in told
    assert not [
        word for word in ("summing", "head", "scratch", "random weights", "epoch", "attention(") if word in told
    ]


@pytest.mark.slow
@pytest.mark.parametrize("numbers", ["uint8", "uint16"])
def test_the_recipe_of_the_docs_ends_where_predict_ends(numbers: str, tmp_path: Path):
    run = served_run.write_run(tmp_path / "run", numbers=numbers)
    export(str(run), out=str(tmp_path / "model.onnx"))
    pixels = served_run.pixels(3, (75, 100)).astype(numbers) * (20 if numbers == "uint16" else 1)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    script = re.findall(r"```python\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert "msmae" not in script
    shown = subprocess.run(
        [sys.executable, "-c", script + "\nprint(json.dumps(probabilities.tolist()))"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(shown.stdout.splitlines()[-1])
    expected = load(run).predict([tmp_path / "scan.png"])
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)
