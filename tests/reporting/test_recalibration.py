"""Every run is recalibrated on its validation images; the model keeps what was fitted, and its answers stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import msmae
from html_page import Page
from msmae.data.phantom import make_phantom
from msmae.evaluation.calibrate import weights_to_undo
from msmae.reporting.sections.results import calibration
from msmae.statistics.answers import PLAIN
from msmae.statistics.calibration import fit_calibrator
from msmae.statistics.predictions import read_predictions, to_arrays
from msmae.training.balance import Balance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run with class weights."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSMAE_CACHE", str(folder / "cache"))
        make_phantom(folder / "phantom", images=120, size=32)
        msmae.run(
            str(folder / "phantom" / "manifest.csv"),
            out=str(folder / "run"),
            preset="tiny",
            method="vit",
            finetune={"balance": "class_weights", "epochs": 3, "base_lr": 0.02},
        )
        yield folder / "run"


def test_the_calibrator_is_kept_with_the_model_and_applied(run: Path) -> None:
    card = json.loads((run / "model" / "config.json").read_text())
    record = json.loads((run / "metrics.json").read_text())["calibration"]
    assert card["calibration"] == {name: record[name] for name in card["calibration"]}
    assert record["temperature"] == pytest.approx(1 / card["calibration"]["scale"][0])
    assert record["balance"] == "class_weights"
    assert len(set(card["calibration"]["bias"])) > 1  # the weights are undone
    model = msmae.load(run)
    frame = read_predictions(run / "predictions.csv")
    phantom = run.parent / "phantom"
    paths = [phantom / path for path in frame["image_path"]]
    own = model.predict(paths, calibrated=False)
    stored = frame[[f"prob_{name}" for name in model.classes]].to_numpy()
    np.testing.assert_allclose(model.predict(paths).numpy(), stored, atol=1e-6)
    assert np.abs(own.numpy() - stored).max() > 1e-3
    assert frame["predicted"].tolist() == [model.classes[i] for i in own.argmax(dim=1)]
    assert model.classify(paths, answers="balanced") == frame["predicted"].tolist()


def test_a_run_keeps_the_figures_of_both_rules(run: Path, tmp_path: Path) -> None:
    model, frame = msmae.load(run), read_predictions(run / "predictions.csv")
    stored = frame[[f"prob_{name}" for name in model.classes]].to_numpy()
    likeliest = [model.classes[i] for i in stored.argmax(axis=1)]
    assert frame["predicted_plain"].tolist() == likeliest != frame["predicted"].tolist()
    paths = [str(run.parent / "phantom" / path) for path in frame["image_path"]]
    assert model.classify(paths) == likeliest
    metrics = json.loads((run / "metrics.json").read_text())
    test = frame[frame["split"] == "test"]
    for figures, column in ((metrics["splits"]["test"], "predicted"), (metrics["splits"]["test"]["plain"], PLAIN)):
        assert figures["metrics"]["accuracy"]["value"] == pytest.approx((test["label"] == test[column]).mean())
    assert metrics["answers"] == "plain"
    for rule, column in (("plain", PLAIN), ("balanced", "predicted")):
        table = msmae.predict(str(run), paths, out=str(tmp_path / rule), answers=rule)
        assert table["predicted"].tolist() == frame[column].tolist()
        assert set(table["answers"]) == {rule}


def test_a_threshold_is_kept_with_the_run(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    rare = msmae.load(copy).classes[-1]
    metrics = msmae.evaluate(str(copy), threshold=f"{rare}=0.01")
    assert metrics["thresholds"] == msmae.load(copy).card.thresholds == {rare: 0.01}
    frame = read_predictions(copy / "predictions.csv")
    assert (frame[PLAIN] == rare).equals(frame[f"prob_{rare}"] >= 0.01)
    assert metrics["splits"]["test"]["plain"]["per_class"][rare]["sensitivity"]["value"] > 0.9
    assert f"{rare} from 0.01" in Page(copy / "report.html").text
    assert msmae.evaluate(str(copy))["thresholds"] == {rare: 0.01}
    assert msmae.evaluate(str(copy), threshold="none")["thresholds"] == {}


def test_it_was_fitted_on_the_validation_images_alone(run: Path) -> None:
    model, frame = msmae.load(run), read_predictions(run / "predictions.csv")
    validation = frame[frame["split"] == "val"]
    truth = to_arrays(validation, classes=model.classes, multilabel=False).truth
    own = model.predict([run.parent / "phantom" / path for path in validation["image_path"]], calibrated=False)
    counts = np.array([(msmae.open_dataset(run / "manifest.csv").table.query("split == 'train'")["label"] == c).sum()
                       for c in model.classes])  # fmt: skip
    fitted = fit_calibrator(own.double().numpy(), truth, class_weights=(1 / counts).tolist())
    np.testing.assert_allclose(fitted.scale, model.card.calibration["scale"], rtol=1e-3)
    bias = np.array(model.card.calibration["bias"])
    np.testing.assert_allclose(np.diff(fitted.bias), np.diff(bias), atol=1e-3)


def test_evaluating_again_changes_nothing(run: Path) -> None:
    card, frame = (run / "model" / "config.json").read_bytes(), read_predictions(run / "predictions.csv")
    msmae.evaluate(str(run))
    assert (run / "model" / "config.json").read_bytes() == card
    again = read_predictions(run / "predictions.csv")
    assert again.drop(columns="image_path").equals(frame.drop(columns="image_path"))


def test_the_first_figures_are_held_against_what_each_rule_is_for(run: Path) -> None:
    """Plain answers against the commonest class, balanced ones against chance."""
    text = " ".join(Page(run / "report.html").text.split())
    split = json.loads((run / "metrics.json").read_text())["splits"]["test"]
    right = split["plain"]["metrics"]["accuracy"]["value"]
    assert f"test images classified correctly: {100 * right:.1f} %" in text
    assert "the commonest class here, is right for" in text
    balanced = split["metrics"]["balanced_accuracy"]["value"]
    assert f"Balanced accuracy of the balanced answers: {100 * balanced:.1f} %" in text
    assert "chance: 25.0 %" in text


def test_the_report_says_what_was_done(run: Path) -> None:
    text = Page(run / "report.html").text
    assert "Calibration" in text
    assert "The training loss gave rare classes more weight" in text
    assert "Two ways to answer" in text
    assert "plain (largest calibrated probability)" in text
    assert "One temperature" in text
    assert "On the test images the calibration error changed from" in text
    for name in ("model_card.md", "claim_2024.md", "tripod_ai.md"):
        assert (run / name).is_file()
    assert "One temperature" in (run / "tripod_ai.md").read_text() + (run / "claim_2024.md").read_text()


def test_a_model_of_before_has_no_calibrator(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run / "model", tmp_path / "model")
    card = json.loads((folder / "config.json").read_text())
    del card["calibration"]
    (folder / "config.json").write_text(json.dumps(card))
    model = msmae.load(folder)
    images = torch.rand(3, 1, 32, 32) * 255
    assert torch.equal(model.predict(images), model.predict(images, calibrated=False))


@pytest.mark.parametrize(
    ("remedy", "multilabel", "undone"),
    [
        ("none", False, None),
        ("logit_adjustment", False, [1.25, 5.0]),
        ("class_weights", False, [2.0, 0.5]),
        ("class_weights", True, [2.0, 0.5]),
        ("sampling", False, [3.0, 1.0]),
        ("sampling", True, None),
    ],
)
def test_which_weights_are_undone(remedy: str, multilabel: bool, undone: list[float] | None) -> None:
    shift = torch.tensor([0.8, 0.2]).log()  # the frequencies of the classes
    balance = Balance(remedy, "", torch.tensor([2.0, 0.5]), shift, torch.tensor([3.0, 1.0]))
    found = weights_to_undo(balance, multilabel=multilabel)
    assert (None if found is None else found.tolist()) == (None if undone is None else pytest.approx(undone))


def test_sentences_without_a_record() -> None:
    assert calibration({}, "test") == []
    told = calibration({"calibration": {"method": "none", "reason": "there is no labelled validation image"}}, "test")
    assert told == ["The probabilities are not calibrated: there is no labelled validation image."]
