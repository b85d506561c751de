"""The stages on a small phantom: the run contract, determinism, resuming, single stages, prediction and pictures."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import msmae
from msmae.data.manifest import Manifest
from msmae.errors import UserError
from msmae.statistics.predictions import read_predictions


def figures(run: Path) -> dict[str, Any]:
    """metrics.json without what is exempt from determinism."""
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["cost"]
    return metrics


def test_a_run_holds_what_the_contract_says(finished: Path, data: Path) -> None:
    for name in (
        "config.yaml", "manifest.csv", "environment.json", "checkpoints/last.ckpt", "model/model.safetensors",
        "model/config.json", "predictions.csv", "metrics.json", "report.html", "logs",
    ):  # fmt: skip
        assert (finished / name).exists(), name
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {"format_version", "task", "arm", "seed", "model_sha256", "data_sha256", "splits", "cost"} <= metrics.keys()
    test = metrics["splits"]["test"]
    assert set(test["metrics"]["accuracy"]) >= {"value", "low", "high"}
    for name in ("balanced_accuracy", "auroc", "auprc", "f1_macro", "mcc", "kappa", "brier", "ece"):
        assert name in test["metrics"]
    cost = metrics["cost"]
    for name in ("gmacs_train", "gmacs_predict", "images_per_s_predict", "seconds_pretrain", "seconds_finetune"):
        assert cost[name] > 0, name
    manifest = msmae.open_dataset(data)
    assert test["n"] == len(manifest.ids("test"))
    frame = read_predictions(finished / "predictions.csv")
    assert sorted(set(frame["split"])) == ["test", "val"]
    assert len(frame) == len(manifest.ids("test")) + len(manifest.ids("val"))
    sums = frame[[c for c in frame if c.startswith("prob_")]].sum(axis=1)
    assert np.allclose(sums, 1, atol=1e-9)
    tensorboard = list((finished / "logs").rglob("events.out.tfevents.*"))
    assert len(tensorboard) == 2


def test_the_model_is_used_as_the_contract_says(finished: Path, data: Path) -> None:
    model = msmae.load(finished)
    manifest = msmae.open_dataset(data)
    paths = [manifest.path(i) for i in manifest.ids("test")]
    probabilities = model.predict(paths)
    assert probabilities.shape == (len(paths), len(model.classes))
    frame = read_predictions(finished / "predictions.csv")
    stored = frame[frame["split"] == "test"][[f"prob_{c}" for c in model.classes]].to_numpy()
    assert np.allclose(probabilities.numpy(), stored, atol=1e-6)
    images = torch.rand(3, 1, 50, 70) * 255
    assert model.predict(images, keep=0.25).sum(dim=1).allclose(torch.ones(3))
    assert model.attention(images).shape == (3, *model.network.encoder.grid)
    for keep in (0, -1, 1.01, 1e-6):
        with pytest.raises(UserError, match="keep"):
            model.predict(images, keep=keep)
    with pytest.raises(UserError, match="not finite"):
        model.predict(images * math.nan)
    with pytest.raises(UserError, match="shape"):
        model.predict(torch.rand(3, 3, 32, 32))


@pytest.mark.slow
def test_a_second_run_from_a_runs_config_is_exact(finished: Path, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    msmae.run(str(data), out=str(first), preset="tiny", method="vit", seed=1)
    msmae.run(str(data), out=str(second), config=str(first / "config.yaml"))
    assert figures(second) == figures(first)
    assert (second / "predictions.csv").read_bytes() == (first / "predictions.csv").read_bytes()
    assert figures(first)["model_sha256"] != figures(finished)["model_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "vit",
        "mae",
        "supmae",
        "amt",
        "msmae-shuffled",
        "msmae-released",
    ],
)
def test_every_arm_runs(method: str, data: Path, tmp_path: Path) -> None:
    metrics = msmae.run(str(data), out=str(tmp_path / method), preset="tiny", method=method, finetune={"draw": "own"})
    assert metrics["arm"] == method
    assert metrics["cost"]["gmacs_train"] < 0.5 * metrics["cost"]["gmacs_predict"]
    assert (tmp_path / method / "pretrained").is_dir() == (method != "vit")


def test_the_maps_drawn_from_are_those_just_computed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released code's bank is all ones for ever: here the weights of the draw are the encoder's own maps."""
    from msmae.method.attention import patch_maps
    from msmae.training import pretrain

    seen: dict[int, list[torch.Tensor]] = {}

    class Watching(pretrain.PretrainModule):
        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            ids = torch.from_numpy(self.train_ids)
            images = self.normalise(torch.from_numpy(self.prepared.store.fetch(self.train_ids).astype("float32")))
            encoder = self.model.encoder.eval()
            with self.forward_precision():
                seen[self.current_epoch] = [self.bank[ids].clone(), patch_maps(encoder, images)]
            self.model.train()

    monkeypatch.setattr(pretrain, "PretrainModule", Watching)
    msmae.pretrain(str(data), out=str(tmp_path / "run"), preset="tiny")
    first, *later = (seen[epoch] for epoch in sorted(seen))
    assert (first[0] == 1).all(), "uniform before the first refresh"
    for bank, computed in later:
        assert torch.allclose(bank, computed, atol=2e-2)
        assert bank.std() > 0.01


def test_a_finished_run_is_not_overwritten_unless_told(finished: Path, data: Path) -> None:
    with pytest.raises(UserError, match="finished run"):
        msmae.run(str(data), out=str(finished), preset="tiny")


def test_an_unfinished_run_refuses_other_settings(finished: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "unfinished"
    shutil.copytree(finished, out)
    (out / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"other settings \(pretrain.epochs\)"):
        msmae.run(str(data), out=str(out), preset="tiny", pretrain={"epochs": 9})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="something else"):
        msmae.run(str(data), out=str(tmp_path / "mine"), preset="tiny", overwrite=True)


@pytest.mark.slow
def test_a_run_that_an_earlier_version_began_goes_on(finished: Path, data: Path, tmp_path: Path) -> None:
    """Settings that have been added since stand at their defaults; another value than that is other settings."""
    out = tmp_path / "unfinished"
    shutil.copytree(finished, out)
    (out / "metrics.json").unlink()
    config = yaml.safe_load((out / "config.yaml").read_text())
    del config["settings"]["pretrain"]["accumulate"], config["settings"]["segment"]
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    (out / "record.json").unlink()  # an earlier version kept none
    with pytest.raises(UserError, match=r"other settings \(pretrain.accumulate\)"):
        msmae.run(str(data), out=str(out), preset="tiny", pretrain={"accumulate": 2})
    msmae.run(str(data), out=str(out), preset="tiny")
    assert figures(out) == figures(finished)


@pytest.mark.slow
def test_pretrain_then_finetune_then_evaluate(data: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "steps"
    msmae.pretrain(str(data), out=str(out), preset="tiny")
    metrics = msmae.finetune(str(out), finetune={"epochs": 3})
    assert yaml.safe_load((out / "config.yaml").read_text())["settings"]["finetune"]["epochs"] == 3
    assert (out / "pretrained" / "model.safetensors").read_bytes() == (
        finished / "pretrained" / "model.safetensors"
    ).read_bytes()
    again = msmae.evaluate(str(out))
    assert again["splits"] == metrics["splits"]
    with pytest.raises(UserError, match="already"):
        msmae.finetune(str(out))


def test_predict_writes_a_row_an_image(finished: Path, data: Path, tmp_path: Path) -> None:
    frame = msmae.predict(str(finished), [str(data.parent / "images")], out=str(tmp_path / "p"))
    assert len(frame) == 120
    read = read_predictions(tmp_path / "p" / "predictions.csv")
    pd.testing.assert_frame_equal(
        read[["image_path", "predicted"]], frame[["image_path", "predicted"]], check_dtype=False
    )
    with pytest.raises(UserError, match="no such file"):
        msmae.predict(str(finished), [str(tmp_path / "none.png")], out=str(tmp_path / "q"))
    assert not (tmp_path / "q").exists()


def test_masks_says_where_the_lesions_went(finished: Path, tmp_path: Path) -> None:
    content = msmae.masks(str(finished), out=str(tmp_path), images=4)
    written = json.loads((tmp_path / "masks.json").read_text())
    assert written["images"] == content["images"]
    assert len(written["images"]) == 4
    for image in written["images"]:
        everything = sorted(image["keep"] + image["mask"] + image["throw"])
        assert everything == list(range(math.prod(written["grid"])))
    random = written["lesion"]["random"]
    counts = (28, 20, 16)
    for name, count in zip(("masked", "thrown", "kept"), counts, strict=True):
        assert abs(random[name] - count / 64) < 0.05
    assert (tmp_path / "masks.png").stat().st_size > 10_000


def test_masks_of_data_alone_are_random(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = msmae.masks(str(data), out=str(tmp_path), images=3, preset="tiny")
    said = capsys.readouterr().out
    assert "% dropped (random" in said
    assert "thrown" not in said
    assert content["lesion"]["guided"] == pytest.approx(content["lesion"]["random"], abs=0.06)
    assert np.unique(content["images"][0]["map"]) == [1.0]


@pytest.mark.slow
def test_rows_without_a_label_join_pretraining(data: Path, tmp_path: Path) -> None:
    manifest = msmae.open_dataset(data)
    labels = manifest.table["label"].to_numpy().copy()
    blank = manifest.ids("train")[::2]
    labels[blank] = ""
    manifest.with_columns({"label": labels}).write(data.parent / "half.csv")
    metrics = msmae.run(str(data.parent / "half.csv"), out=str(tmp_path / "half"), preset="tiny")
    assert metrics["splits"]["test"]["n"] == len(manifest.ids("test"))
    log = pd.read_csv(tmp_path / "half" / "logs" / "pretrain" / "csv" / "metrics.csv")
    steps_an_epoch = len(manifest.ids("train")) // 32
    assert log["step"].max() == 4 * steps_an_epoch - 1, "all training rows are shown"


@pytest.mark.slow
def test_multi_label_runs_through(data: Path, tmp_path: Path) -> None:
    manifest = msmae.open_dataset(data)
    labels = [f"{label};bright" if i % 3 == 0 else label for i, label in enumerate(manifest.table["label"])]
    manifest.with_columns({"label": np.array(labels, dtype=object)}).write(data.parent / "multi.csv")
    metrics = msmae.run(str(data.parent / "multi.csv"), out=str(tmp_path / "multi"), preset="tiny")
    assert metrics["task"] == "multi-label classification"
    assert metrics["splits"]["test"]["metrics"]["auroc"]["value"] > 0


def test_a_nan_loss_stops_with_step_paths_and_checkpoint(data: Path, tmp_path: Path) -> None:
    changes = {"base_lr": 1e30, "epochs": 10, "lr_warmup": 0.9}
    with pytest.raises(UserError) as caught:
        msmae.run(str(data), out=str(tmp_path / "nan"), preset="tiny", pretrain=changes)
    assert "at step" in str(caught.value)
    assert "images in the batch: " in str(caught.value)
    assert 1 <= str(caught.value).count(".png") <= 5


def test_a_nan_later_keeps_the_last_good_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msmae.training import pretrain

    whole = pretrain.msmae_loss

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        losses = whole(*args, **kwargs)
        return (
            losses._replace(total=losses.total * math.nan)
            if (tmp_path / "nan/checkpoints/last.ckpt").exists()
            else losses
        )

    monkeypatch.setattr(pretrain, "msmae_loss", poisoned)
    with pytest.raises(
        UserError, match=r"the loss is nan at step 2 .*epoch 2.*last good checkpoint is kept in .*last.ckpt"
    ):
        msmae.run(str(data), out=str(tmp_path / "nan"), preset="tiny")
    state = torch.load(tmp_path / "nan" / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())


def test_images_smaller_than_a_patch_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="less than one patch"):
        msmae.run(str(data), out=str(tmp_path / "r"), preset="tiny", model={"image_size": 128, "patch_size": 64})
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_rectangular_images_and_any_patch_size(data: Path, tmp_path: Path) -> None:
    changes = {"image_size": (24, 36), "patch_size": 6, "channels": 3}
    metrics = msmae.run(str(data), out=str(tmp_path / "r"), preset="tiny", model=changes)
    assert metrics["cost"]["patches"] == 24
    assert msmae.load(tmp_path / "r").card.channels == 3


@pytest.mark.slow
def test_starting_from_given_weights(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from msmae.runs.checkpoint import load_model, pretrained_part

    model, _ = load_model(finished / "pretrained")
    assert isinstance(model, msmae.MSMAE)
    torch.save({"model": pretrained_part(model)}, tmp_path / "encoder.pth")
    for method in ("vit", "mae"):
        msmae.run(
            str(data), out=str(tmp_path / method), preset="tiny", method=method, init=str(tmp_path / "encoder.pth"),
            model={"heads": 2},
        )  # fmt: skip
    assert "used" in capsys.readouterr().out


def test_the_saved_manifest_names_the_same_images(finished: Path, data: Path) -> None:
    saved: Manifest = msmae.open_dataset(finished / "manifest.csv")
    original = msmae.open_dataset(data)
    same = [os.path.samefile(saved.path(i), original.path(i)) for i in range(len(original))]
    assert all(same)
    assert list(saved.table["split"]) == list(original.table["split"])


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["none", "class_weights", "logit_adjustment", "sampling"])
def test_every_remedy_for_rare_classes_trains(balance: str, data: Path, tmp_path: Path) -> None:
    metrics = msmae.run(str(data), out=str(tmp_path / "r"), preset="tiny", method="vit", finetune={"balance": balance})
    assert metrics["splits"]["val"]["metrics"]["balanced_accuracy"]["value"] > 0


def test_balanced_sampling_shows_rare_classes_as_often() -> None:
    from msmae.data.loader import Batches
    from msmae.data.store import ImageStore
    from msmae.training.balance import sampling_weights

    targets = np.array([0] * 900 + [1] * 100)
    store = ImageStore(np.zeros((1000, 1, 2, 2), np.uint8), None)
    batches = Batches(store, targets, np.arange(1000), 50, shuffle=True, chances=sampling_weights(targets, classes=2))
    shown = torch.cat([batch.labels for batch in batches])
    assert len(shown) == 1000
    assert 0.4 < float(shown.float().mean()) < 0.6  # 6 standard deviations of a fair draw


def leaking(data: Path) -> Path:
    """The phantom's table with a training image's pixels also in the test split, under another name."""
    manifest = msmae.open_dataset(data)
    learned, tested = (manifest.path(int(manifest.ids(split)[0])) for split in ("train", "test"))
    copy = data.parent / "copies" / "copy.png"  # not among the images, which other tests count
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(learned, copy)
    paths = manifest.table["image_path"].str.replace(f"images/{tested.name}", "copies/copy.png", regex=False)
    assert (paths == "copies/copy.png").sum() == 1
    manifest.with_columns({"image_path": paths.to_numpy(dtype=object)}).write(data.parent / "leaking.csv")
    return data.parent / "leaking.csv"


@pytest.mark.slow
def test_leakage_into_test_stops_with_code_3(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from msmae.cli import main

    words = ["run", str(leaking(data)), "--out", str(tmp_path / "run"), "--preset", "tiny"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 3
    error = capsys.readouterr().err
    assert "1 test image" in error
    assert "--repair" in error
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit) as caught:
        main([*words, "--allow-leakage"])
    assert caught.value.code == 0
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["test_identical_to_pool"] == 1
    assert "leak" in (tmp_path / "run" / "report.html").read_text().lower()
