"""`msmae budget`: measuring, choosing, telling."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from budgeted import content_of
from msmae.errors import UserError
from msmae.evaluation.keep import Point, tell_on_test
from msmae.inference.model import load
from msmae.runs.checkpoint import load_model, read_card, save_model
from msmae.statistics import token_shares
from msmae.training.prepare import prepare_again
from msmae.verbs.budget import budget
from msmae.verbs.evaluate import evaluate
from msmae.verbs.finetune import finetune
from saved_run import make_predictions, write_run
from spots import SPLITS


def test_what_is_told_of_test_is_calibrated_as_the_runs_own_evidence_is(budgeted: Path):
    prepared, whole = prepare_again(budgeted), Point("all", 1.0)
    asked: dict[str, Any] = {"classes": prepared.manifest.classes, "multilabel": False, "resamples": 100, "seed": 0}
    told = tell_on_test(load(budgeted), prepared, whole=whole, chosen=whole, margin=0.1, asked=asked)
    assert told is not None
    metrics = json.loads((budgeted / "metrics.json").read_text())["splits"]["test"]["metrics"]
    for name in ("ece", "auroc", "balanced_accuracy"):
        assert told[name] == pytest.approx(metrics[name]["value"], abs=1e-6)


def test_every_point_is_measured(budgeted: Path):
    found = content_of(budgeted)
    points = [(row["selector"], row["keep"]) for row in found["rows"]]
    names = ["random", "grid", "self", "early", "merge", "smaller", "locator"]
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


def test_the_choice_is_one_of_the_points_and_is_told_by_class(budgeted: Path):
    choice = content_of(budgeted)["choice"]
    kept = {k: choice[k] for k in ("selector", "keep")}
    assert kept == read_card(budgeted / "model").keep["choice"]
    assert [row["class"] for row in choice["test"]["per_class"]] == [f"level {i}" for i in range(4)]
    assert sum(row["n"] for row in choice["test"]["per_class"]) == SPLITS.count("test")


def test_the_report_shows_it(budgeted: Path):
    page = (budgeted / "report.html").read_text(encoding="utf-8")
    rows, columns = load(budgeted).card.keep["glance"]
    assert f"The coarse image takes\n  {rows} × {columns} tokens" in page
    assert "Token share" in page
    assert "Balanced accuracy over speed" in page
    assert "Encoded patches" in page
    assert page.count("data:image/png") >= 8


def test_what_preparing_went_on_from_is_removed_and_its_curves_stay(budgeted: Path):
    assert not list((budgeted / "keep").rglob("*.ckpt"))
    assert list((budgeted / "keep").rglob("metrics.csv"))


def test_a_measured_run_is_not_measured_again_unasked(budgeted: Path):
    with pytest.raises(UserError, match=r"measured already.*--overwrite"):
        budget(str(budgeted))


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
def test_what_cannot_be_asked_is_refused(budgeted: Path, asked: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        budget(str(budgeted), overwrite=True, **asked)
    assert (budgeted / "budget.json").is_file()


def test_a_run_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"no saved model here .*a finished run"):
        budget(str(tmp_path))


def test_a_model_that_answers_the_same_for_every_image_is_refused(budgeted: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(budgeted, run)
    model, card = load_model(run / "model")
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    model.head.bias.data[1] = 1.0
    save_model(run / "model", model, replace(card, keep={}))
    with pytest.raises(UserError, match=f"the model answers '{card.classes[1]}' for every validation image"):
        budget(str(run), overwrite=True, presentations=0)
    assert (run / "budget.json").is_file(), "nothing is removed before"


def test_a_model_fitted_anew_is_not_prepared_from_the_old_ones_trainings(budgeted: Path, tmp_path: Path):
    shutil.copytree(budgeted, tmp_path / "run")
    evaluate(str(tmp_path / "run"), keep=0.25)
    finetune(str(tmp_path / "run"), overwrite=True)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not left & {"keep", "budget.json", "looks", "metrics_keep.json", "predictions_keep.csv"}
    assert load(tmp_path / "run").prepared is None


def test_the_locator_alone_is_refused_where_nothing_will_be_prepared(budgeted: Path, tmp_path: Path):
    shutil.copytree(budgeted, tmp_path / "run")
    with pytest.raises(UserError, match="without preparing there is no locator"):
        budget(str(tmp_path / "run"), selectors=["locator"], presentations=0, overwrite=True)
    assert load(tmp_path / "run").prepared is not None
    (tmp_path / "run" / "budget.json").unlink()  # as if killed after preparing
    with pytest.raises(UserError, match="leave no patch"):
        budget(str(tmp_path / "run"), selectors=["locator"], presentations=0, ratios=["0.1"])


@pytest.mark.parametrize(
    ("ratio", "asked"),
    [("0.001", {"presentations": 0}), ("0.001", {}), ("0.14", {"selectors": ["locator"]})],  # 8 tokens; a glance has 9
)
def test_shares_that_leave_no_patch_are_refused_before_anything_is_removed(
    budgeted: Path, tmp_path: Path, ratio: str, asked: dict[str, Any]
):
    shutil.copytree(budgeted, tmp_path / "run")
    with pytest.raises(UserError, match=r"leave no patch.*--ratios"):
        budget(str(tmp_path / "run"), ratios=[ratio], overwrite=True, **asked)
    assert (tmp_path / "run" / "budget.json").exists()
    assert load(tmp_path / "run").prepared is not None


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
    same, less = token_shares.losses(frame, [frame, worse(frame, 1 / 3)], classes=CLASSES, resamples=200)
    assert (same["loss"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    assert less["loss"] > 0.05
    assert 0 < less["low"] < less["loss"] < less["high"]
    assert less["auroc_loss"]["value"] > 0


def row(selector: str, rate: float, *, loss: float = 0.0, high: float | None = None) -> dict[str, Any]:
    return {"selector": selector, "keep": 1.0, "images_per_s": rate, "loss": loss, "high": high}


def test_the_fastest_of_those_shown_not_to_be_worse_is_chosen():
    rows = [row("all", 1), row("grid", 9, loss=0.001, high=0.02), row("locator", 3, loss=0.001, high=0.004)]
    assert token_shares.choose(rows, margin=0.005) == 2
    assert token_shares.choose(rows, margin=0.02) == 1
    assert token_shares.choose(rows, margin=0.001) == 0


def test_a_loss_without_an_interval_is_not_shown_to_be_small():
    assert token_shares.choose([row("all", 1), row("grid", 2, high=0.0)], margin=0.0) == 1
    assert token_shares.choose([row("all", 1), row("grid", 2)], margin=0.5) == 0
    assert token_shares.choose([row("all", 1), {**row("grid", 2), "loss": None}], margin=0.5) == 0


def test_errors_that_cancel_are_not_equal_answers():
    """Thirteen patients, one of them of the rarest class: no interval, and two answers that differ both ways."""
    frame = make_predictions(patients=60)
    few = pd.concat([frame[frame["label"] == name].head(n) for name, n in zip(CLASSES, (6, 6, 1), strict=True)])
    few = few.assign(patient_id=[str(i) for i in range(len(few))], predicted=few["label"])
    first, second = few.index[:2]
    one, other = few.copy(), few.copy()
    one.loc[first, "predicted"] = other.loc[second, "predicted"] = CLASSES[1]
    (lost,) = token_shares.losses(one, [other], classes=CLASSES, split=few["split"].iloc[0], resamples=200)
    assert lost["loss"] == pytest.approx(0.0, abs=1e-12)
    assert token_shares.choose([row("all", 1), {**row("grid", 2), **lost}], margin=0.005) == 0


def test_slower_than_all_is_never_chosen():
    assert token_shares.choose([row("all", 2), row("self", 1, high=-0.1)], margin=0.1) == 0


def test_what_one_class_loses_is_said():
    frame = make_predictions(patients=60)
    found = token_shares.loss_by_class(frame, worse(frame, 0.5, of="malignant"), classes=CLASSES, resamples=200)
    lost = {entry["class"]: entry["loss"]["value"] for entry in found}
    assert lost["malignant"] > 0.2
    assert lost["benign"] == lost["normal"] == 0
    (sentence,) = token_shares.cautions(found, margin=0.01)
    assert sentence.startswith("sensitivity for malignant (")
    assert sentence.endswith("(significant)")
    assert token_shares.cautions(found, margin=0.9) == []
    rest = frame[frame["label"] != "normal"]
    lacking = token_shares.loss_by_class(rest, rest, classes=CLASSES, resamples=20)[CLASSES.index("normal")]
    assert (lacking["n"], lacking["all"], lacking["loss"]["value"]) == (0, None, None)


def test_a_run_without_a_budget_has_no_such_section(tmp_path: Path):
    from msmae.reporting.report import write_report

    page = write_report(write_run(tmp_path, make_predictions())).read_text(encoding="utf-8")
    assert "Token share" not in page


def test_the_smaller_image_stands_beside_what_drops_patches_and_the_better_is_named() -> None:
    def row(selector: str, loss: float, speedup: float) -> dict[str, Any]:
        return {"selector": selector, "keep": 0.25, "loss": loss, "speedup": speedup, "images_per_s": speedup}

    ahead = token_shares.rival([row("smaller", 0.01, 4.0), row("grid", 0.05, 4.0), row("self", 0.02, 0.8)])
    assert len(ahead) == 1
    assert ahead[0].endswith("take a smaller image")
    assert "self loses 2.0 points" in ahead[0]
    behind = token_shares.rival([row("smaller", 0.03, 4.0), row("locator", 0.01, 3.4)])
    assert behind[0].endswith("take locator")
    assert token_shares.rival([row("locator", 0.01, 3.4)]) == []
    assert token_shares.rival([row("smaller", 0.01, 3.4)]) == []


def test_a_model_of_mixed_shares_is_measured_as_it_is(
    budgeted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(budgeted, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["settings"]["finetune"] |= {"draw": "half", "share": "mixed"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "record.json").unlink(missing_ok=True)
    found = budget(str(run), ratios=["0.25"], selectors=["grid", "smaller"], overwrite=True)
    assert "measured as it is" in capsys.readouterr().out
    assert found["prepared"] is None
    assert load(run).prepared is None
    assert [row["selector"] for row in found["rows"]] == ["all", "grid", "smaller"]
    assert len(found["rival"]) == 1
