"""`keep` wherever a model predicts."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import msmae
from budgeted import content_of, images_of, names_of
from msmae.errors import UserError
from msmae.inference.model import Model, load
from msmae.inference.packed import Packed, can_pack
from msmae.machine import cpu_has_bfloat16
from msmae.runs.checkpoint import read_card, write_card
from msmae.selection.selectors import Selection
from msmae.statistics.predictions import read_predictions
from msmae.verbs.evaluate import evaluate


def choose(model: Model, selector: str, keep: float) -> None:
    """Have the model's card say so, in memory."""
    model.card = dataclasses.replace(
        model.card, keep={**model.card.keep, "choice": {"selector": selector, "keep": keep}}
    )


def test_auto_is_what_was_chosen(budgeted: Path, tmp_path: Path):
    model, images = load(budgeted), images_of(budgeted)
    choose(model, "locator", 0.25)
    expected = model.predict(images, 0.25, selector="locator")
    assert torch.equal(model.predict(images, "auto"), expected)
    assert torch.equal(model.predict(images, 0.25), expected)  # the prepared selector is the default
    assert not torch.equal(model.predict(images), expected)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="the processor has no bfloat16")
@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_a_model_predicts_in_bfloat16(budgeted: Path, keep: float):
    images, exact, quick = images_of(budgeted), load(budgeted), load(budgeted, precision="bf16")
    assert {parameter.dtype for parameter in quick.selection("locator").parameters()} == {torch.bfloat16}
    expected, found = (model.predict(images, keep) for model in (exact, quick))
    assert found.dtype == expected.dtype
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.05
    assert quick.attention(images).dtype == torch.float32
    shown = [model.looked_at(images, 0.25, selector="random") for model in (exact, quick)]
    assert torch.equal(*shown)


def test_predictions_come_of_packed_weights_and_say_what_the_plain_ones_say(budgeted: Path):
    model, images = load(budgeted), images_of(budgeted)
    for keep, plain in ((1.0, Selection(model.network, selector="all")), (0.25, model.prepared)):
        found = model.predict(images, keep, calibrated=False)
        with torch.no_grad():
            expected = plain(model.to_scale(images), int(64 * keep)).softmax(dim=1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert isinstance(model.selection("all").model.head, Packed if can_pack(model.network) else torch.nn.Linear)
    assert model.selection("locator").model is model.selection("grid").model  # packed once


def test_the_same_patches_are_shown_and_encoded(budgeted: Path):
    model, images = load(budgeted), images_of(budgeted)
    positions = model.looked_at(images, 0.25)
    coarse = model.prepared.coarse if model.prepared else 0
    assert positions.shape == (12, 16 - coarse)
    assert coarse in (4, 9)


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, float("nan"), "most"])
def test_a_share_outside_0_to_1_is_refused(budgeted: Path, keep: Any):
    with pytest.raises(UserError, match=r"keep is .*give a share above 0, at most 1"):
        load(budgeted).predict(images_of(budgeted), keep)


def test_a_share_that_leaves_no_patch_is_refused(budgeted: Path):
    with pytest.raises(UserError, match=r"keep 0.05 of 64 patches is 3, and the glance takes \d.*at least 0.\d"):
        load(budgeted).predict(images_of(budgeted), 0.05)
    with pytest.raises(UserError, match=r"keep 0.01 of 64 patches is none.*at least 0.0157"):
        load(budgeted).predict(images_of(budgeted), 0.01, selector="early")


def test_an_unknown_selector_is_refused(budgeted: Path):
    with pytest.raises(UserError, match=r"no selector 'best'.*locator"):
        load(budgeted).predict(images_of(budgeted), 0.5, selector="best")


def test_images_of_another_size_are_brought_to_the_models(budgeted: Path):
    model = load(budgeted)
    assert model.predict(torch.rand(2, 1, 50, 70) * 250, 0.25).shape == (2, 4)


def test_a_model_never_trained_with_dropping_warns_once_and_has_no_auto(
    budgeted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    copy = tmp_path / "model"
    shutil.copytree(budgeted / "model", copy)
    write_card(copy, dataclasses.replace(read_card(copy), keep={}))
    model, images = load(copy), images_of(budgeted)
    with caplog.at_level(logging.WARNING, "msmae"):
        model.predict(images, 0.25)
        model.predict(images, 0.5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "never prepared for dropping patches" in caplog.text
    with pytest.raises(UserError, match=r"nothing was chosen.*msmae budget"):
        model.predict(images, "auto")
    with pytest.raises(UserError, match="no locator"):
        model.predict(images, 0.5, selector="locator")


def test_damaged_weights_are_named(budgeted: Path, tmp_path: Path):
    copy = tmp_path / "model"
    shutil.copytree(budgeted / "model", copy)
    (copy / "keep.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"not those that were saved.*keep\.safetensors"):
        load(copy)
    (copy / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"description cannot be read.*config\.json"):
        load(copy)


def test_damaged_settings_are_named_and_a_folder_is_no_file_to_export_to(budgeted: Path, tmp_path: Path):
    shutil.copytree(budgeted, tmp_path / "run")
    with pytest.raises(UserError, match=r"is a folder.*--out"):
        msmae.export(str(budgeted), out=str(tmp_path))
    for content in ("a: [", "a: 1"):
        (tmp_path / "run" / "config.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"settings cannot be read.*config\.yaml"):
            evaluate(str(tmp_path / "run"))


def test_a_share_that_was_evaluated_is_predicted_as_it_was_measured(budgeted: Path, tmp_path: Path):
    """Also where `msmae budget` did not measure it."""
    shutil.copytree(budgeted, tmp_path / "run")
    evaluate(str(tmp_path / "run"), keep=0.375, selector="grid")
    told = read_predictions(tmp_path / "run" / "predictions_keep.csv").set_index("image_path").loc[names_of(budgeted)]
    said = load(tmp_path / "run").predict(images_of(budgeted), 0.375, selector="grid")
    np.testing.assert_allclose(said.numpy(), told[[f"prob_level {i}" for i in range(4)]].to_numpy(float), atol=2e-5)
    assert len(load(tmp_path / "run").card.keep["calibrations"]) == 1 + len(load(budgeted).card.keep["calibrations"])


@pytest.mark.parametrize(("keep", "selector"), [(0.25, "locator"), (0.5, "grid"), (0.25, "early")])
def test_every_measured_share_has_a_calibration_of_its_own(budgeted: Path, tmp_path: Path, keep: float, selector: str):
    """What a model says of a share is what the evaluation of that share says, whatever `auto` chose."""
    shutil.copytree(budgeted, tmp_path / "run")
    evaluate(str(tmp_path / "run"), keep=keep, selector=selector)
    told = read_predictions(tmp_path / "run" / "predictions_keep.csv")
    told = told[told["split"] == "test"].set_index("image_path").loc[names_of(budgeted)]
    said = load(budgeted).predict(images_of(budgeted), keep, selector=selector)
    expected = told[[f"prob_level {i}" for i in range(4)]].to_numpy(float)
    np.testing.assert_allclose(said.numpy(), expected, atol=2e-5)
    other = load(budgeted).calibrate(
        load(budgeted).predict(images_of(budgeted), keep, selector=selector, calibrated=False)
    )
    assert np.abs(other.numpy() - expected).max() > 1e-4  # that of all patches is another one


def test_a_file_smaller_than_a_patch_is_refused(budgeted: Path, tmp_path: Path):
    Image.fromarray(np.zeros((3, 9), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"3 x 9 pixels, less than one patch of 4.*small\.png"):
        load(budgeted).predict([tmp_path / "small.png"])


@pytest.mark.parametrize("device", ["foo", "mps", "cuda:7"])
def test_a_device_that_is_not_there_is_refused(budgeted: Path, device: str):
    with pytest.raises(UserError, match=f"no device '{device}'"):
        load(budgeted, device=device)


def test_evaluate_keeps_the_runs_evidence(budgeted: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(budgeted, run)
    before = (run / "predictions.csv").read_bytes(), (run / "metrics.json").read_bytes()
    metrics = evaluate(str(run), keep=0.25)
    assert metrics["keep"] == {"selector": "locator", "keep": 0.25}
    assert before == ((run / "predictions.csv").read_bytes(), (run / "metrics.json").read_bytes())
    kept, whole = (read_predictions(run / f"predictions{end}.csv") for end in ("_keep", ""))
    assert kept[["patient_id", "split", "label"]].equals(whole[["patient_id", "split", "label"]])
    assert not np.allclose(kept["prob_level 0"], whole["prob_level 0"])
    assert metrics["cost"]["gmacs_predict"] < 0.42 * content_of(budgeted)["rows"][0]["gmacs"]


def test_an_evaluation_of_a_quarter_names_its_own_files(
    budgeted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(budgeted, tmp_path / "run")
    evaluate(str(tmp_path / "run"), keep=0.25, selector="grid")
    shown = capsys.readouterr().out
    assert "from 25 % of the patches (grid)" in shown
    assert "predictions_keep.csv" in shown
    assert "predictions.csv" not in shown


def test_predict_takes_keep_from_the_command_line(budgeted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from msmae.cli import dispatch

    words = ["predict", str(budgeted), *images_of(budgeted)[:2], "--out", str(tmp_path / "a")]
    dispatch([*words, "--keep", "0.25"])
    assert "25 % of the patches kept by locator" in capsys.readouterr().out
    expected = load(budgeted).predict(images_of(budgeted)[:2], 0.25)
    frame = read_predictions(tmp_path / "a" / "predictions.csv")
    np.testing.assert_allclose(frame[[f"prob_level {i}" for i in range(4)]], expected, atol=1e-6)
    with pytest.raises(UserError, match="keep"):
        dispatch([*words[:-1], str(tmp_path / "b"), "--keep", "some"])


def test_a_model_that_has_predicted_can_be_copied_and_pickled(budgeted: Path):
    model, images = load(budgeted), images_of(budgeted)[:3]
    said = model.predict(images, keep=0.25)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.predict(images, keep=0.25), said)


def test_a_selector_of_all_tokens_is_an_option_without_effect(budgeted: Path):
    with pytest.raises(UserError, match="no effect where all tokens are kept"):
        load(budgeted).predict(images_of(budgeted)[:1], selector="grid")
    assert load(budgeted).predict(images_of(budgeted)[:1], selector="all").shape == (1, 4)
