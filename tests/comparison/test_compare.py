"""Comparisons on a small phantom: arms, baselines, seeds and folds, resumed, extended, and with equal budgets."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

import msmae
from msmae.cli import main
from msmae.comparison.baselines import build_network, network_macs, predict_majority, predict_pca_svm
from msmae.comparison.budgets import Price, prices_in_gmacs, prices_in_seconds, settings_of_arm
from msmae.config import make_settings
from msmae.data.opening import divide
from msmae.errors import UserError
from msmae.runs.lock import held
from msmae.statistics.predictions import read_predictions
from msmae.training.prepare import Prepared, prepare
from msmae.training.supervised import SupervisedModule
from msmae.verbs.report import report

ARMS = ["majority", "pca-svm", "small-cnn", "vit", "msmae"]
SEEDS = [3, 4]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(data: Path) -> Prepared:
    """The phantom as the arm msmae starts from it."""
    settings = make_settings("tiny")
    return prepare(divide(data, settings=settings, seed=0), settings=settings, method="msmae")


@pytest.fixture(scope="module")
def compared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison."""
    out = tmp_path_factory.mktemp("comparisons") / "first"
    msmae.compare(str(data), out=str(out), arms=ARMS, seeds=SEEDS, preset="tiny")
    return out


def test_every_run_is_tested_on_the_same_images(compared: Path) -> None:
    test = {}
    for arm in ARMS:
        for seed in SEEDS:
            frame = read_predictions(compared / arm / str(seed) / "predictions.csv")
            test[arm, seed] = set(frame.loc[frame["split"] == "test", "image_path"])
            metrics = json.loads((compared / arm / str(seed) / "metrics.json").read_text())
            assert (metrics["arm"], metrics["seed"]) == (arm, seed)
    assert len(test) == 10
    assert len({frozenset(images) for images in test.values()}) == 1


def test_the_page_and_the_table_are_there_and_report_builds_them_again(compared: Path) -> None:
    plan = json.loads((compared / "comparison.json").read_text())
    assert plan["missing"] == []
    assert (plan["arms"], plan["seeds"]) == (ARMS, SEEDS)
    before = {name: (compared / name).read_bytes() for name in ("report.html", "table.csv", "comparison_table.md")}
    for name in before:
        (compared / name).unlink()
    report(str(compared))
    assert before == {name: (compared / name).read_bytes() for name in before}


def test_the_table_holds_the_mean_over_seeds(compared: Path) -> None:
    table = pd.read_csv(compared / "table.csv")
    values = []
    for seed in SEEDS:
        frame = read_predictions(compared / "msmae" / str(seed) / "predictions.csv")
        rows = frame[frame["split"] == "test"]
        values.append(balanced_accuracy_score(rows["label"], rows["predicted"]))
    found = table[(table.astype(str) == "msmae").any(axis=1) & (table.astype(str) == "balanced_accuracy").any(axis=1)]
    assert any(np.isclose(found.select_dtypes("number"), np.mean(values), atol=1e-12).ravel())


def test_a_second_call_makes_nothing_anew_and_more_may_be_asked(
    compared: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {path: path.stat().st_mtime_ns for path in compared.rglob("predictions*.csv")}
    assert len(times) == 2 * 10 + 2 * 3 + 2  # patients too, and the cheap columns: three of msmae, a quarter of vit
    msmae.compare(str(data), out=str(compared), arms=["majority"], seeds=[5], preset="tiny")
    assert times == {path: path.stat().st_mtime_ns for path in times}
    plan = json.loads((compared / "comparison.json").read_text())
    assert (plan["arms"], plan["seeds"]) == (ARMS, [3, 4, 5])
    assert capsys.readouterr().out.count("done before") == 10
    assert (compared / "msmae" / "5" / "metrics.json").is_file()


def test_other_settings_are_refused_by_name(compared: Path, data: Path) -> None:
    with pytest.raises(UserError, match=r"pretrain\.epochs"):
        msmae.compare(str(data), out=str(compared), arms=ARMS, seeds=SEEDS, preset="tiny", pretrain={"epochs": 9})
    with pytest.raises(UserError, match="budget"):
        msmae.compare(str(data), out=str(compared), arms=ARMS, seeds=SEEDS, preset="tiny", budget="gmacs")


def test_what_was_made_before_a_setting_was_added_is_taken_up(compared: Path, data: Path) -> None:
    plan = json.loads((compared / "comparison.json").read_text())
    del plan["settings"]["dataset"]["ordinal"], plan["settings"]["segment"], plan["settings"]["pretrain"]["accumulate"]
    (compared / "comparison.json").write_text(json.dumps(plan))
    again = msmae.compare(str(data), out=str(compared), arms=["majority"], seeds=SEEDS, preset="tiny")
    assert "ordinal" in again["settings"]["dataset"]
    assert again["missing"] == []


def test_a_setting_that_was_added_stood_at_its_default_and_another_value_is_refused(
    compared: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(compared, tmp_path / "older")
    plan = json.loads((tmp_path / "older" / "comparison.json").read_text())
    del plan["settings"]["pretrain"]["accumulate"]
    (tmp_path / "older" / "comparison.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=r"other settings \(pretrain.accumulate\)"):
        msmae.compare(
            str(data), out=str(tmp_path / "older"), arms=["majority"], seeds=SEEDS, preset="tiny",
            pretrain={"accumulate": 2},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"arms": ["msmae", "mse"]}, "no arm 'mse'"),
        ({"seeds": ["1", "-2"]}, "'-2' is no seed"),
        ({"seeds": []}, "nothing to compare"),
        ({"folds": 1}, "1 fold"),
        ({"budget": "money"}, "no budget 'money'"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    asked: dict[str, Any], sentence: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        msmae.compare(str(data), out=str(tmp_path / "c"), preset="tiny", **asked)
    assert not (tmp_path / "c").exists()


def test_a_folder_of_something_else_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="holds something else"):
        msmae.compare(str(data), out=str(tmp_path), preset="tiny")


def test_folds_test_every_image_once_and_words_may_be_joined(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "folds"
    msmae.compare(str(data), out=str(out), arms=["majority,pca-svm"], seeds=["0"], folds=3, preset="tiny")
    for arm in ("majority", "pca-svm"):
        frames = [read_predictions(out / arm / f"0-fold{fold}" / "predictions.csv") for fold in (1, 2, 3)]
        tested = pd.concat([frame[frame["split"] == "test"] for frame in frames])
        assert len(tested) == 120
        assert tested["image_path"].is_unique


def test_a_run_that_another_process_makes_is_left_to_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shared"
    out.mkdir()
    (out / "comparison.json").write_text("{}")
    with held(out / "majority" / "0"):
        plan = msmae.compare(str(data), out=str(out), arms=["majority", "pca-svm"], seeds=[0], preset="tiny")
    assert plan["missing"] == ["majority/0"]
    assert "another process is at it" in capsys.readouterr().out
    assert not (out / "report.html").exists()


def test_encoders_of_another_comparison_are_fine_tuned(compared: Path, data: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "own", {"draw": "own"}
    settings: dict[str, Any] = {"preset": "tiny", "encoders": str(compared), "finetune": other, "columns": False}
    msmae.compare(str(data), out=str(out), arms=["msmae"], seeds=[3], **settings)
    weights = [root / "msmae" / "3" / "pretrained" / "model.safetensors" for root in (compared, out)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not (out / "msmae" / "3" / "logs" / "pretrain").exists()
    settings["model"] = {"width": 64}
    with pytest.raises(UserError, match="width"):
        msmae.compare(str(data), out=str(tmp_path / "wide"), arms=["msmae"], seeds=[3], **settings)


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "msmae", "compare", str(data), "--out", str(out), "--arms", "majority", "msmae"]
    command += ["--seeds", "0", "1", "--preset", "tiny", "--pretrain.epochs", "12"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    deadline = time.monotonic() + 120
    while not (out / "msmae" / "0" / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert (out / "majority" / "0" / "metrics.json").is_file()
    assert not (out / "msmae" / "1").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert "majority/0: done before" in again.stdout
    assert json.loads((out / "comparison.json").read_text())["missing"] == []


def test_majority_says_the_shares_of_training(prepared: Prepared) -> None:
    found = predict_majority(prepared, prepared.ids("test"))
    train = prepared.targets[prepared.ids("train")]
    np.testing.assert_allclose(found[0], [np.mean(train == c) for c in range(4)])
    assert (found == found[0]).all()


def test_pca_svm_learns_what_pixels_show(prepared: Prepared) -> None:
    """Labels that the mean grey value decides are found, on images that were not trained on."""
    rows = prepared.ids("test")
    grey = prepared.store.fetch(np.arange(len(prepared.manifest))).mean(axis=(1, 2, 3))
    bright = (grey > np.median(grey)).astype(np.int64)
    lit = dataclasses.replace(prepared)
    lit.__dict__["targets"] = bright
    found = predict_pca_svm(lit, rows)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.mean(found.argmax(axis=1) == bright[rows]) > 0.8


def test_macs_of_a_network_match_a_count_by_hand(prepared: Prepared) -> None:
    network = build_network(dataclasses.replace(prepared, method="small-cnn"))
    assert network_macs(network, (1, 32, 32)) == pytest.approx(hand_count(network), rel=0)
    assert network.training


def test_the_pretrained_cnn_sees_grey_images_as_three_equal_channels(prepared: Prepared) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    grey = build_network(dataclasses.replace(prepared, method="efficientnet-lite0")).eval()
    colour = copy.deepcopy(grey)
    colour._conv_stem.weight = torch.nn.Parameter(grey._conv_stem.weight.detach().expand(-1, 3, -1, -1) / 3)
    colour._conv_stem.in_channels = 3
    image = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(grey(image), colour(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert grey._conv_stem.weight.std() > 0.1, "the weights are those of the package, not drawn"
    with pytest.raises(UserError, match="channels"):
        build_network(replaced_channels(prepared, 4))


def test_a_baseline_is_trained_beside_arms_that_start_from_an_encoder(prepared: Prepared) -> None:
    started = dataclasses.replace(prepared, origin={"name": "an encoder"})
    for name in ("small-cnn", "efficientnet-lite0"):
        module = SupervisedModule(torch.nn.Identity(), dataclasses.replace(started, method=name))
        beside = SupervisedModule(torch.nn.Identity(), dataclasses.replace(started, method="vit"))
        assert module.balance.remedy == beside.balance.remedy


def replaced_channels(prepared: Prepared, channels: int) -> Prepared:
    images = np.zeros((len(prepared.manifest), channels, 32, 32), dtype=np.uint8)
    store = dataclasses.replace(prepared.store, images=images)
    return dataclasses.replace(prepared, method="efficientnet-lite0", store=store)


def hand_count(network: Any) -> float:
    """Convolutions at 16, 8 and 4 px sides, and the linear layer, from their weights' shapes."""
    sides = iter((16, 16, 16, 8, 8, 8, 4, 4, 4))
    macs = 0.0
    for weight in (p for p in network.parameters() if p.ndim == 4):
        macs += weight.numel() * next(sides) ** 2
    return macs + sum(p.numel() for p in network.parameters() if p.ndim == 2)


def test_equal_macs_leave_every_arm_the_same_sum(prepared: Prepared) -> None:
    arms = ["vit", "mae", "supmae", "msmae", "small-cnn", "majority"]
    prices = prices_in_gmacs(prepared, arms)
    assert "majority" not in prices
    pre, fine = prepared.settings.pretrain, prepared.settings.finetune
    assert pre.epochs is not None
    assert fine.epochs is not None
    spent = {}
    for arm in arms[:-1]:
        mine = settings_of_arm(prepared, arm, budget="gmacs", prices=prices)
        epochs = (mine.pretrain.epochs or 0, mine.finetune.epochs or 0)
        maps = 3 if arm == "msmae" else 0  # before epochs 2, 3 and 4
        spent[arm] = maps * prices[arm].map + epochs[0] * prices[arm].pretrain + epochs[1] * prices[arm].supervised
        step = prices[arm].pretrain or prices[arm].supervised
        reference = prices["msmae"]
        goal = 3 * reference.map + pre.epochs * reference.pretrain + fine.epochs * reference.supervised
        rounded = 1 if arm == "small-cnn" else 1 / 2  # of both stages, each to half a step
        if arm != "small-cnn" or step < goal:
            assert abs(spent[arm] - goal) <= rounded * step + 1e-9
    assert settings_of_arm(prepared, "mae", budget="epochs", prices=prices) == prepared.settings


def test_an_arm_of_as_many_epochs_keeps_the_schedule_that_was_asked_for(prepared: Prepared) -> None:
    asked = dataclasses.replace(prepared.settings.pretrain, uniform_epochs=3, refresh_every=1)
    mine = dataclasses.replace(prepared, settings=dataclasses.replace(prepared.settings, pretrain=asked))
    prices = {"msmae": Price(4.0, 2.0, 1.0), "amt": Price(4.0, 2.0, 1.1)}
    assert settings_of_arm(mine, "amt", budget="gmacs", prices=prices).pretrain == asked


def test_a_cheaper_arm_gets_more_epochs(prepared: Prepared) -> None:
    prices = {"msmae": Price(4.0, 2.0, 1.0), "supmae": Price(2.0, 2.0, 0.0), "vit": Price(0.0, 2.0, 0.0)}
    mine = settings_of_arm(prepared, "supmae", budget="seconds", prices=prices)
    assert abs(2 * (mine.pretrain.epochs or 0) - (4 * 4 + 3)) <= 1
    longer = settings_of_arm(prepared, "vit", budget="seconds", prices=prices)
    assert longer.finetune.epochs == 2 + round((4 * 4 + 3) / 2)


def test_a_network_spends_what_fine_tuning_costs_too(prepared: Prepared) -> None:
    """Four epochs of 4, three maps of 1 and two epochs of 2 are to be spent, on epochs of a half."""
    prices = {"msmae": Price(4.0, 2.0, 1.0), "small-cnn": Price(0.0, 0.5, 0.0)}
    mine = settings_of_arm(prepared, "small-cnn", budget="gmacs", prices=prices)
    assert mine.finetune.epochs == (4 * 4 + 3 * 1 + 2 * 2) / 0.5


def test_an_arm_of_dearer_maps_pays_for_each_of_them(prepared: Prepared) -> None:
    """Four epochs of 4 and three maps of 1 are to be spent, on epochs of 4 and maps of 3."""
    prices = {"msmae": Price(4.0, 2.0, 1.0), "msmae-released": Price(4.0, 2.0, 3.0)}
    mine = settings_of_arm(prepared, "msmae-released", budget="gmacs", prices=prices).pretrain
    assert mine.epochs is not None
    assert mine.uniform_epochs is not None
    assert mine.refresh_every is not None
    maps = len(range(mine.uniform_epochs, mine.epochs, mine.refresh_every))
    assert mine.epochs < 4
    assert 4 * 4 + 3 - (4 + 3) < mine.epochs * 4 + maps * 3 <= 4 * 4 + 3 + 4 / 2


def test_seconds_are_measured_for_every_arm(prepared: Prepared) -> None:
    prices = prices_in_seconds(prepared, ["vit", "small-cnn"])
    assert set(prices) == {"msmae", "vit", "small-cnn"}
    assert prices["vit"].pretrain == 0
    assert min(prices["msmae"].pretrain, prices["msmae"].map, prices["vit"].supervised) > 0


def test_copies_of_a_picture_stay_together_in_a_cut_and_in_folds(data: Path, tmp_path: Path) -> None:
    """Every picture twice, no split given: neither the cut nor a fold parts the two, so nothing leaks."""
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    once = table.assign(split="", image_path=[str(data.parent / path) for path in table["image_path"]]).head(60)
    again = once.assign(image_path=[str(tmp_path / f"copy{i}.png") for i in range(len(once))])
    for source, target in zip(once["image_path"], again["image_path"], strict=True):
        Path(target).write_bytes(Path(source).read_bytes())
    pd.concat([once, again]).drop(columns="mask_path").to_csv(tmp_path / "twice.csv", index=False)
    settings: dict[str, Any] = {"arms": ["majority"], "seeds": [0], "preset": "tiny"}
    msmae.compare(str(tmp_path / "twice.csv"), out=str(tmp_path / "cut"), **settings)
    msmae.compare(str(tmp_path / "twice.csv"), out=str(tmp_path / "folds"), folds=3, **settings)
    for audit in [tmp_path / "cut/audit.json", *sorted((tmp_path / "folds").glob("majority/*/audit.json"))]:
        found = json.loads(audit.read_text())
        assert (found["identical_pairs"], found["test_identical_to_pool"]) == (60, 0)


def test_the_seeds_need_not_be_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["compare", str(data), "--out", str(tmp_path / "c"), "--preset", "tiny", "--arms", "majority"])
    assert end.value.code == 0
    assert json.loads((tmp_path / "c" / "comparison.json").read_text())["seeds"] == [0, 1, 2]


def test_an_arm_that_cannot_do_several_labels_is_refused_before_any_training(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False).drop(columns="mask_path")
    labels = [f"{label};bright" if i % 2 else label for i, label in enumerate(table["label"])]
    paths = [str(data.parent / path) for path in table["image_path"]]
    table.assign(label=labels, image_path=paths).to_csv(tmp_path / "many.csv", index=False)
    out, settings = tmp_path / "many", {"seeds": [0], "preset": "tiny"}
    with pytest.raises(UserError, match="names one class an image"):
        msmae.compare(str(tmp_path / "many.csv"), out=str(out), arms=["majority", "pca-svm"], **settings)
    assert not out.exists()
    plan = msmae.compare(str(tmp_path / "many.csv"), out=str(out), arms=["majority"], **settings)
    assert plan["arms"] == ["majority"]


def test_an_arm_without_any_run_may_be_dropped_again(data: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "c", {"seeds": [0], "preset": "tiny"}
    msmae.compare(str(data), out=str(out), arms=["majority"], **settings)
    plan = json.loads((out / "comparison.json").read_text())
    (out / "comparison.json").write_text(json.dumps({**plan, "arms": ["majority", "resnet18"]}))
    assert msmae.compare(str(data), out=str(out), arms=["majority"], **settings)["arms"] == ["majority"]


def test_what_is_given_of_a_pretraining_keeps_its_share_of_another_number_of_epochs(data: Path) -> None:
    settings = make_settings("tiny", None, {"pretrain": {"epochs": 10, "uniform_epochs": 0, "refresh_every": 4}})
    base = prepare(divide(data, settings=settings, seed=0), settings=settings, method="msmae")
    prices = {"msmae": Price(2.0, 1.0, 0.0), "supmae": Price(1.0, 1.0, 0.0)}
    cheap = settings_of_arm(base, "supmae", budget="gmacs", prices=prices).pretrain
    assert (cheap.epochs, cheap.uniform_epochs, cheap.refresh_every) == (20, 0, 8)
    usual = {"epochs": 15, "uniform_epochs": 2}  # as decided where it is open
    open_ = make_settings("tiny", None, {"pretrain": usual})
    base = prepare(divide(data, settings=open_, seed=0), settings=open_, method="msmae")
    cheap = settings_of_arm(base, "supmae", budget="gmacs", prices=prices).pretrain
    assert (cheap.epochs, cheap.uniform_epochs) == (30, 4)
