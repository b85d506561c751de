"""`msmae budget`: preparing, measuring, choosing, telling; and `keep` wherever a model predicts."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import msmae
from msmae.errors import UserError
from msmae.evidence import budget as evidence
from msmae.evidence.predictions import read_predictions
from msmae.exchange.checkpoint import read_card, write_card
from msmae.look.selectors import Look
from msmae.method.vit import VisionTransformer
from msmae.stages.adapt import disagreement, fit_locator, glances, wanted_patches
from msmae.stages.budget import Point, budget, tell_on_test
from msmae.stages.packed import Packed, can_pack
from msmae.stages.precision import cpu_has_bfloat16
from msmae.stages.predictor import Model, load
from msmae.stages.prepare import prepare_again
from msmae.stages.verbs import evaluate, finetune
from saved_run import make_predictions, write_run
from spots import SPLITS, looking_at_bright_patches, of_the_bright, prepared_of, write_spots


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seconds, whose budget is measured."""
    folder = tmp_path_factory.mktemp("budget")
    settings: dict[str, Any] = {"finetune": {"epochs": 2}, "pretrain": {"epochs": 2, "uniform_epochs": 1}}
    msmae.run(str(write_spots(folder)), out=str(folder / "run"), preset="tiny", **settings)
    before = load(folder / "run").predict(images_of(folder / "run"))
    budget(str(folder / "run"), presentations=64, ratios=["0.25", "0.5"], margin=0.3)
    after = load(folder / "run").predict(images_of(folder / "run"))
    assert torch.equal(before, after)  # what the model says of whole images stays
    return folder / "run"


def test_what_is_told_of_test_is_calibrated_as_the_runs_own_evidence_is(finished: Path):
    prepared, whole = prepare_again(finished), Point("all", 1.0)
    asked: dict[str, Any] = {"classes": prepared.manifest.classes, "multilabel": False, "resamples": 100, "seed": 0}
    told = tell_on_test(load(finished), prepared, whole=whole, chosen=whole, margin=0.1, asked=asked)
    assert told is not None
    metrics = json.loads((finished / "metrics.json").read_text())["splits"]["test"]["metrics"]
    for name in ("ece", "auroc", "balanced_accuracy"):
        assert told[name] == pytest.approx(metrics[name]["value"], abs=1e-6)


def images_of(run: Path) -> list[str]:
    """The test images."""
    table = pd.read_csv(run / "manifest.csv")
    return [str(path) for path in table.loc[table["split"] == "test", "image_path"]]


def content_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "budget.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="the processor has no bfloat16")
@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_a_model_predicts_in_bfloat16(finished: Path, keep: float):
    images, exact, quick = images_of(finished), load(finished), load(finished, precision="bf16")
    assert {parameter.dtype for parameter in quick.look("locator").parameters()} == {torch.bfloat16}
    expected, found = (model.predict(images, keep) for model in (exact, quick))
    assert found.dtype == expected.dtype
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.05
    assert quick.attention(images).dtype == torch.float32


# --- the verb


def test_every_point_is_measured(finished: Path):
    found = content_of(finished)
    points = [(row["selector"], row["keep"]) for row in found["rows"]]
    names = ["random", "grid", "self", "early", "merge", "locator"]
    assert points == [("all", 1.0), *((name, share) for name in names for share in (0.25, 0.5))]
    for row in found["rows"]:
        assert {
            "gmacs",
            "images_per_s",
            "speedup",
            "balanced_accuracy",
            "auroc",
            "ece",
            "loss",
            "low",
            "high",
        } <= row.keys()
    whole = found["rows"][0]
    assert (whole["speedup"], whole["loss"]) == (1.0, 0.0)
    for row in found["rows"]:
        assert row["loss"] == pytest.approx(whole["balanced_accuracy"] - row["balanced_accuracy"])


def test_the_choice_is_one_of_the_points_and_is_told_by_class(finished: Path):
    choice = content_of(finished)["choice"]
    kept = {k: choice[k] for k in ("selector", "keep")}
    assert kept == read_card(finished / "model").keep["choice"]
    assert [row["class"] for row in choice["test"]["per_class"]] == [f"level {i}" for i in range(4)]
    assert sum(row["n"] for row in choice["test"]["per_class"]) == SPLITS.count("test")


def test_the_report_shows_it(finished: Path):
    page = (finished / "report.html").read_text(encoding="utf-8")
    rows, columns = load(finished).card.keep["glance"]
    assert f"The image seen from afar takes\n  {rows} × {columns} of the tokens" in page
    assert "Looking at less" in page
    assert "Balanced accuracy over speed" in page
    assert "What was looked at" in page
    assert page.count("data:image/png") >= 8


def test_a_measured_run_is_not_measured_again_unasked(finished: Path):
    with pytest.raises(UserError, match=r"measured already.*--overwrite"):
        budget(str(finished))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ratios": ["0"]}, "'0' is no share"),
        ({"ratios": ["1.5"]}, "'1.5' is no share"),
        ({"ratios": ["half"]}, "'half' is no share"),
        ({"selectors": ["best"]}, "no selector 'best'.*locator"),
        ({"selectors": ["all"]}, "no selector 'all'"),
        ({"margin": -0.1}, "negative"),
        ({"presentations": -1}, "negative"),
    ],
)
def test_what_cannot_be_asked_is_refused(finished: Path, asked: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        budget(str(finished), overwrite=True, **asked)
    assert (finished / "budget.json").is_file()


def test_a_run_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no model"):
        budget(str(tmp_path))


# --- keep, wherever a model predicts


def test_auto_is_what_was_chosen(finished: Path, tmp_path: Path):
    model, images = load(finished), images_of(finished)
    choose(model, "locator", 0.25)
    expected = model.predict(images, 0.25, selector="locator")
    assert torch.equal(model.predict(images, "auto"), expected)
    assert torch.equal(model.predict(images, 0.25), expected)  # the prepared selector is the default
    assert not torch.equal(model.predict(images), expected)


def choose(model: Model, selector: str, keep: float) -> None:
    """Have the model's card say so, in memory."""
    model.card = dataclasses.replace(
        model.card, keep={**model.card.keep, "choice": {"selector": selector, "keep": keep}}
    )


def test_predictions_come_of_packed_weights_and_say_what_the_plain_ones_say(finished: Path):
    model, images = load(finished), images_of(finished)
    for keep, plain in ((1.0, Look(model.network, selector="all")), (0.25, model.prepared)):
        found = model.predict(images, keep, calibrated=False)
        with torch.no_grad():
            expected = plain(model.to_scale(images), int(64 * keep)).softmax(dim=1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert isinstance(model.look("all").model.head, Packed if can_pack(model.network) else torch.nn.Linear)
    assert model.look("locator").model is model.look("grid").model  # packed once


def test_the_same_patches_are_shown_and_encoded(finished: Path):
    model, images = load(finished), images_of(finished)
    positions = model.looked_at(images, 0.25)
    coarse = model.prepared.coarse if model.prepared else 0
    assert positions.shape == (12, 16 - coarse)
    assert coarse in (4, 9)


def test_the_glance_that_answers_better_on_validation_goes_on(finished: Path):
    model, prepared = load(finished), prepare_again(finished)
    found = model.card.keep["glances"]
    assert set(found) == {"2x2", "3x3"}
    rows, columns = model.card.keep["glance"]
    assert found[f"{rows}x{columns}"] == min(found.values())
    ids = prepared.ids("val")
    answers = model.look("locator")(model.to_scale(torch.from_numpy(prepared.store.fetch(ids)).float()), 16)
    own = torch.nn.functional.cross_entropy(answers, torch.from_numpy(prepared.targets[ids]))
    assert own.item() == pytest.approx(model.card.keep["loss"], abs=1e-3)
    tried = {folder.name for folder in (finished / "keep").iterdir()}
    assert tried == {"2x2-1", "3x3-1", f"{rows}x{columns}-1-2"}  # epochs of each try, then of the one that goes on


def test_preparing_is_twice_as_long_as_fine_tuning_unless_told(tmp_path: Path):
    settings: dict[str, Any] = {"finetune": {"epochs": 2}, "pretrain": {"epochs": 2, "uniform_epochs": 1}}
    msmae.run(str(write_spots(tmp_path)), out=str(tmp_path / "run"), preset="tiny", **settings)
    budget(str(tmp_path / "run"), ratios=["0.25"], selectors=["grid"])
    assert load(tmp_path / "run").card.keep["presentations"] == 2 * 2 * SPLITS.count("train")


def test_a_model_fitted_anew_is_not_prepared_from_the_old_ones_trainings(finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "run")
    evaluate(str(tmp_path / "run"), keep=0.25)
    finetune(str(tmp_path / "run"), overwrite=True)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not left & {"keep", "budget.json", "looks", "metrics_keep.json", "predictions_keep.csv"}
    assert load(tmp_path / "run").prepared is None


def test_shares_that_leave_no_patch_are_refused(finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(UserError, match=r"leave no patch.*--ratios"):
        budget(str(tmp_path / "run"), ratios=["0.001"], presentations=0, overwrite=True)
    assert not (tmp_path / "run" / "budget.json").exists()


def test_an_evaluation_of_a_quarter_names_its_own_files(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(finished, tmp_path / "run")
    evaluate(str(tmp_path / "run"), keep=0.25, selector="grid")
    shown = capsys.readouterr().out
    assert "from 25 % of the tokens (grid)" in shown
    assert "predictions_keep.csv" in shown
    assert "predictions.csv" not in shown


@pytest.mark.parametrize(
    ("side", "expected"), [(224, [(4, 4), (5, 5)]), (128, [(2, 2), (3, 3)]), (64, [(1, 1)]), (32, [(1, 1)])]
)
def test_a_glance_leaves_patches_of_a_quarter(side: int, expected: list[tuple[int, int]]):
    encoder = VisionTransformer(image_size=(side, side), patch_size=16, channels=1, width=4, depth=1, heads=1)
    assert glances(encoder) == expected


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, float("nan"), "most"])
def test_a_share_outside_0_to_1_is_refused(finished: Path, keep: Any):
    with pytest.raises(UserError, match=r"keep is .*give a share above 0, at most 1"):
        load(finished).predict(images_of(finished), keep)


def test_a_share_that_leaves_no_patch_is_refused(finished: Path):
    with pytest.raises(UserError, match=r"keep 0.05 of 64 patches is 3, and the glance takes \d.*at least 0.\d"):
        load(finished).predict(images_of(finished), 0.05)
    with pytest.raises(UserError, match=r"keep 0.01 of 64 patches is none.*at least 0.0156"):
        load(finished).predict(images_of(finished), 0.01, selector="early")


def test_an_unknown_selector_is_refused(finished: Path):
    with pytest.raises(UserError, match=r"no selector 'best'.*locator"):
        load(finished).predict(images_of(finished), 0.5, selector="best")


def test_images_of_another_size_are_brought_to_the_models(finished: Path):
    model = load(finished)
    assert model.predict(torch.rand(2, 1, 50, 70) * 250, 0.25).shape == (2, 4)


def test_a_model_never_trained_with_dropping_warns_once_and_has_no_auto(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(finished / "model", copy)
    write_card(copy, dataclasses.replace(read_card(copy), keep={}))
    model, images = load(copy), images_of(finished)
    with caplog.at_level(logging.WARNING, "msmae"):
        model.predict(images, 0.25)
        model.predict(images, 0.5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "never prepared for dropping patches" in caplog.text
    with pytest.raises(UserError, match=r"nothing was chosen.*msmae budget"):
        model.predict(images, "auto")
    with pytest.raises(UserError, match="no locator"):
        model.predict(images, 0.5, selector="locator")


def test_damaged_weights_are_named(finished: Path, tmp_path: Path):
    copy = tmp_path / "model"
    shutil.copytree(finished / "model", copy)
    (copy / "keep.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot be read.*keep\.safetensors"):
        load(copy)
    (copy / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"card cannot be read.*config\.json"):
        load(copy)


def test_damaged_settings_are_named_and_a_folder_is_no_file_to_export_to(finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(UserError, match=r"is a folder.*--out"):
        msmae.export(str(finished), out=str(tmp_path))
    for content in ("a: [", "a: 1"):
        (tmp_path / "run" / "config.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"settings cannot be read.*config\.yaml"):
            evaluate(str(tmp_path / "run"))


@pytest.mark.parametrize(("keep", "selector"), [(0.25, "locator"), (0.5, "grid"), (0.25, "early")])
def test_every_measured_share_has_a_calibration_of_its_own(finished: Path, tmp_path: Path, keep: float, selector: str):
    """What a model says of a share is what the evaluation of that share says, whatever `auto` chose."""
    shutil.copytree(finished, tmp_path / "run")
    evaluate(str(tmp_path / "run"), keep=keep, selector=selector)
    told = read_predictions(tmp_path / "run" / "predictions_keep.csv")
    told = told[told["split"] == "test"].set_index("image_path").loc[images_of(finished)]
    said = load(finished).predict(images_of(finished), keep, selector=selector)
    expected = told[[f"prob_level {i}" for i in range(4)]].to_numpy(float)
    np.testing.assert_allclose(said.numpy(), expected, atol=2e-5)
    other = load(finished).calibrate(
        load(finished).predict(images_of(finished), keep, selector=selector, calibrated=False)
    )
    assert np.abs(other.numpy() - expected).max() > 1e-4  # that of all patches is another one


def test_a_file_smaller_than_a_patch_is_refused(finished: Path, tmp_path: Path):
    Image.fromarray(np.zeros((3, 9), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"3 x 9 pixels, less than one patch of 4.*small\.png"):
        load(finished).predict([tmp_path / "small.png"])


@pytest.mark.parametrize("device", ["foo", "mps", "cuda:7"])
def test_a_device_that_is_not_there_is_refused(finished: Path, device: str):
    with pytest.raises(UserError, match=f"no device '{device}'"):
        load(finished, device=device)


def test_evaluate_keeps_the_runs_evidence(finished: Path):
    before = (finished / "predictions.csv").read_bytes(), (finished / "metrics.json").read_bytes()
    metrics = evaluate(str(finished), keep=0.25)
    assert metrics["keep"] == {"selector": "locator", "keep": 0.25}
    assert before == ((finished / "predictions.csv").read_bytes(), (finished / "metrics.json").read_bytes())
    kept, whole = (read_predictions(finished / f"predictions{end}.csv") for end in ("_keep", ""))
    assert kept[["patient_id", "split", "label"]].equals(whole[["patient_id", "split", "label"]])
    assert not np.allclose(kept["prob_level 0"], whole["prob_level 0"])
    assert metrics["cost"]["gmacs_predict"] < 0.42 * content_of(finished)["rows"][0]["gmacs"]


def test_predict_takes_keep_from_the_command_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from msmae.cli import dispatch

    words = ["predict", str(finished), *images_of(finished)[:2], "--out", str(tmp_path / "a")]
    dispatch([*words, "--keep", "0.25"])
    assert "25% of the tokens kept by locator" in capsys.readouterr().out
    expected = load(finished).predict(images_of(finished)[:2], 0.25)
    frame = read_predictions(tmp_path / "a" / "predictions.csv")
    np.testing.assert_allclose(frame[[f"prob_level {i}" for i in range(4)]], expected, atol=1e-6)
    with pytest.raises(UserError, match="keep"):
        dispatch([*words[:-1], str(tmp_path / "b"), "--keep", "some"])


# --- preparing


def test_the_locator_learns_what_the_answers_hang_on(tmp_path: Path):
    """The classifier of these images reads the brightest patch; so the locator must find it, on images it never saw."""
    prepared = prepared_of(write_spots(tmp_path), finetune={"batch_size": 8})
    from msmae.look.locator import Locator
    from msmae.method.transfer import Classifier

    torch.manual_seed(0)
    encoder = looking_at_bright_patches((32, 32), 4)
    with torch.no_grad():
        encoder.blocks[0].attn.qkv.weight[8, 0] = 1
        encoder.blocks[0].attn.proj.weight.copy_(torch.eye(4))
        encoder.norm.weight.fill_(1)
    classifier = Classifier(encoder, classes=4).eval()
    torch.nn.init.normal_(classifier.head.weight)
    locator = Locator(encoder, width=16)
    images = torch.from_numpy(prepared.store.fetch(prepared.ids("test")).astype(np.float32))
    scaled = (images - prepared.mean[0]) / prepared.std[0]
    before = of_the_bright(images, locator(scaled).topk(16, dim=1).indices)[0]
    foreseen = fit_locator(locator, classifier, prepared, presentations=60)  # few: a rate too small shows
    after = of_the_bright(images, locator(scaled).topk(16, dim=1).indices)[0]
    assert after > 0.9 > before
    assert foreseen > 0.9


def test_what_is_wanted_is_the_same_for_a_mirror_image():
    encoder = looking_at_bright_patches((32, 32), 4)
    from msmae.method.transfer import Classifier

    classifier, images = Classifier(encoder, classes=2), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(wanted_patches(classifier, images), wanted_patches(classifier, images.flip(-1)).flip(-1))


def test_to_agree_with_the_teacher_is_best():
    taught, labels = torch.randn(5, 3), torch.zeros(5, dtype=torch.long)
    same = disagreement(taught, taught, labels)
    assert all(same < disagreement(taught + torch.randn(5, 3), taught, labels) for _ in range(10))
    several = torch.zeros(5, 3)
    assert disagreement(taught, taught, several) < disagreement(-taught, taught, several)


# --- the evidence


def worse(frame: pd.DataFrame, share: float, of: str | None = None) -> pd.DataFrame:
    """Predictions of which a share (of one class) is made wrong, the same in every split."""
    frame = frame.copy()
    classes = [name.removeprefix("prob_") for name in frame if name.startswith("prob_")]
    rows = frame.index[(frame["label"] == of) if of else frame["label"] != ""]
    for row in rows[:: round(1 / share)]:
        other = next(name for name in classes if name != frame.loc[row, "label"])
        frame.loc[row, "predicted"] = other
        for name in classes:
            frame.loc[row, f"prob_{name}"] = 0.8 if name == other else 0.2 / (len(classes) - 1)
    return frame


CLASSES = ("benign", "malignant", "normal")


def test_a_loss_is_paired_and_positive_where_it_is_worse():
    frame = make_predictions(patients=60)
    same, less = evidence.losses(frame, [frame, worse(frame, 1 / 3)], classes=CLASSES, resamples=200)
    assert (same["loss"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    assert less["loss"] > 0.05
    assert 0 < less["low"] < less["loss"] < less["high"]
    assert less["auroc_loss"]["value"] > 0


def row(selector: str, rate: float, *, loss: float = 0.0, high: float | None = None) -> dict[str, Any]:
    return {"selector": selector, "keep": 1.0, "images_per_s": rate, "loss": loss, "high": high}


def test_the_fastest_of_those_shown_not_to_be_worse_is_chosen():
    rows = [row("all", 1), row("grid", 9, loss=0.001, high=0.02), row("locator", 3, loss=0.001, high=0.004)]
    assert evidence.choose(rows, margin=0.005) == 2
    assert evidence.choose(rows, margin=0.02) == 1
    assert evidence.choose(rows, margin=0.001) == 0


def test_a_loss_without_an_interval_is_not_shown_to_be_small():
    assert evidence.choose([row("all", 1), row("grid", 2, high=0.0)], margin=0.0) == 1
    assert evidence.choose([row("all", 1), row("grid", 2)], margin=0.5) == 0
    assert evidence.choose([row("all", 1), {**row("grid", 2), "loss": None}], margin=0.5) == 0


def test_errors_that_cancel_are_not_equal_answers():
    """Thirteen patients, one of them of the rarest class: no interval, and two answers that differ both ways."""
    frame = make_predictions(patients=60)
    few = pd.concat([frame[frame["label"] == name].head(n) for name, n in zip(CLASSES, (6, 6, 1), strict=True)])
    few = few.assign(patient_id=[str(i) for i in range(len(few))], predicted=few["label"])
    first, second = few.index[:2]
    one, other = few.copy(), few.copy()
    one.loc[first, "predicted"] = other.loc[second, "predicted"] = CLASSES[1]
    (lost,) = evidence.losses(one, [other], classes=CLASSES, split=few["split"].iloc[0], resamples=200)
    assert lost["loss"] == pytest.approx(0.0, abs=1e-12)
    assert evidence.choose([row("all", 1), {**row("grid", 2), **lost}], margin=0.005) == 0


def test_slower_than_all_is_never_chosen():
    assert evidence.choose([row("all", 2), row("self", 1, high=-0.1)], margin=0.1) == 0


def test_what_one_class_loses_is_said():
    frame = make_predictions(patients=60)
    found = evidence.loss_by_class(frame, worse(frame, 0.5, of="malignant"), classes=CLASSES, resamples=200)
    lost = {entry["class"]: entry["loss"]["value"] for entry in found}
    assert lost["malignant"] > 0.2
    assert lost["benign"] == lost["normal"] == 0
    (sentence,) = evidence.cautions(found, margin=0.01)
    assert sentence.startswith("of malignant (")
    assert sentence.endswith("beyond chance")
    assert evidence.cautions(found, margin=0.9) == []


def test_a_run_without_a_budget_has_no_such_section(tmp_path: Path):
    from msmae.evidence.report import write_report

    page = write_report(write_run(tmp_path, make_predictions())).read_text(encoding="utf-8")
    assert "Looking at less" not in page


def test_a_model_that_has_predicted_can_be_copied_and_pickled(finished: Path):
    model, images = load(finished), images_of(finished)[:3]
    said = model.predict(images, keep=0.25)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.predict(images, keep=0.25), said)
