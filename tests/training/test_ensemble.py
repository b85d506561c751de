"""Models that answer together: each validated on images of its own, and none judged by what it learned from."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import msmae
from msmae.data.phantom import make_phantom
from msmae.errors import UserError
from msmae.files import read_mapping
from msmae.inference.exported import exported
from msmae.inference.model import load
from msmae.method.classifier import Classifier
from msmae.method.cost import classifier_macs
from msmae.method.ensemble import Ensemble
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import write_card
from msmae.runs.folder import read_run
from msmae.training.balance import decide_balance
from msmae.training.ensemble import COLUMN, folder_of, member, with_one_remedy
from msmae.training.finetune import finetune_model
from msmae.training.prepare import Prepared, prepare_again
from msmae.verbs.embed import embed

pytestmark = pytest.mark.slow
FOLDS = 3
ASKED: dict[str, Any] = {"method": "vit", "preset": "tiny", "finetune": {"epochs": 1}, "evaluate": {"resamples": 100}}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble") / "phantom"
    make_phantom(folder, images=96, size=32)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def run(images: Path) -> Path:
    """An ensemble of three, trained for an epoch: the tests leave it as it is."""
    out = images.parent.parent / "run"
    msmae.run(str(images), out=str(out), folds=FOLDS, ensemble=True, **ASKED)
    return out


def probabilities(frame: pd.DataFrame) -> np.ndarray:
    return frame[[name for name in frame if name.startswith("prob_")]].to_numpy(dtype=float)


def of(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    return frame[frame["split"] == split].reset_index(drop=True)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows, by the names of their files."""
    return frame.set_index(frame["image_path"].map(lambda path: Path(path).name))


def built(count: int, *, several: bool, mirrored: bool = False) -> tuple[list[Classifier], Ensemble]:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"image_size": (16, 16), "patch_size": 8, "channels": 1, "width": 8, "depth": 1, "heads": 2}
    members = [Classifier(VisionTransformer(**shape), classes=3).eval() for _ in range(count)]
    for one in members:
        torch.nn.init.normal_(one.head.weight)  # type: ignore[union-attr, arg-type]
    return members, Ensemble(members, several=several, mirrored=mirrored).eval()


@pytest.mark.parametrize(("several", "mirrored"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_answer_is_the_mean_of_the_probabilities(several: bool, mirrored: bool) -> None:
    members, together = built(3, several=several, mirrored=mirrored)
    images = torch.randn(5, 1, 16, 16)

    def says(logits: Tensor) -> Tensor:
        return logits.sigmoid() if several else logits.softmax(dim=1)

    views = [images, images.flip(3)] if mirrored else [images]
    mean = torch.stack([says(one(view)) for one in members for view in views]).mean(dim=0)
    torch.testing.assert_close(says(together(images)), mean)
    assert classifier_macs(together).total == pytest.approx(3 * len(views) * classifier_macs(members[0]).total)
    alone = [one(images) for one in together.members()]
    assert all(torch.equal(one(images), other) for one, other in zip(members, alone, strict=True))


def test_every_image_outside_the_test_split_validates_one_model_and_patients_stay_whole(run: Path) -> None:
    table = pd.read_csv(run / "manifest.csv", dtype=str, keep_default_na=False)
    assert set(table.loc[table["split"] == "test", COLUMN]) == {""}
    assert set(table.loc[table["split"] == "val", COLUMN]) == {"1"}
    assert set(table.loc[table["split"] == "train", COLUMN]) == {"2", "3"}
    assert (table.groupby("patient_id")[COLUMN].nunique() == 1).all()
    prepared = prepare_again(run)
    for number in range(1, FOLDS + 1):
        view = member(prepared, number)
        learns, judged = set(view.ids("train")), set(view.ids("val"))
        assert judged
        assert not learns & judged
        assert len(learns | judged) == (table["split"] != "test").sum()


def test_validation_answers_are_of_the_model_that_did_not_learn_from_the_image_and_test_answers_the_mean(run: Path):
    """What the run says, held against its models loaded one by one."""
    frame, prepared, together = pd.read_csv(run / "predictions.csv"), prepare_again(run), load(run)
    alone = [load(folder_of(run, number)) for number in range(1, FOLDS + 1)]
    table = prepared.manifest.table
    names = np.array([Path(path).name for path in table["image_path"]])
    assert len(of(frame, "val")) == (table["split"] != "test").sum()
    assert set(frame["answers"]) == {"balanced"}
    for number, one in enumerate(alone, start=1):
        rows = np.flatnonzero(table[COLUMN] == str(number))
        own = one.predict(prepared.store.fetch(rows).astype(np.float32), calibrated=False)
        said = named(of(frame, "val")).loc[names[rows]]
        torch.testing.assert_close(
            together.calibrate(own).double(), torch.from_numpy(probabilities(said)), atol=1e-5, rtol=0
        )
    rows = prepared.ids("test")
    pixels = prepared.store.fetch(rows).astype(np.float32)
    mean = torch.stack([one.predict(pixels, calibrated=False) for one in alone]).mean(dim=0)
    said = named(of(frame, "test")).loc[names[rows]]
    torch.testing.assert_close(
        together.calibrate(mean).double(), torch.from_numpy(probabilities(said)), atol=1e-5, rtol=0
    )


def test_the_first_model_is_the_one_that_is_trained_alone(run: Path, images: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    finetune_model(member(prepare_again(run), 1), alone)
    first = (folder_of(run, 1) / "model" / "model.safetensors").read_bytes()
    assert (alone / "model" / "model.safetensors").read_bytes() == first
    assert first != (folder_of(run, 2) / "model" / "model.safetensors").read_bytes()


def test_killed_between_two_models_it_goes_on_with_the_rest(run: Path, images: Path) -> None:
    """The run itself: what was deleted is made again, to the same bytes."""
    weights = run / "model" / "model.safetensors"
    before, kept = weights.read_bytes(), (folder_of(run, 1) / "model" / "model.safetensors").stat().st_mtime_ns
    for gone in (run / "model", folder_of(run, 3)):
        shutil.rmtree(gone)
    for file in ("metrics.json", "report.html", "predictions.csv", "record.json"):
        (run / file).unlink()
    msmae.run(str(images), out=str(run), folds=FOLDS, ensemble=True, **ASKED)
    assert weights.read_bytes() == before
    assert (folder_of(run, 1) / "model" / "model.safetensors").stat().st_mtime_ns == kept


def test_another_hospitals_images_are_answered_by_all_of_them(run: Path, tmp_path: Path) -> None:
    """An external test had been refused: the selector that nobody gave was one too many."""
    make_phantom(tmp_path / "other", images=60, size=32, seed=7)
    table = tmp_path / "other" / "manifest.csv"
    other = pd.read_csv(table, dtype=str, keep_default_na=False)
    other.assign(patient_id="other " + other["patient_id"]).to_csv(table, index=False)
    metrics = msmae.evaluate(str(run), str(table), out=str(tmp_path / "tested"))
    assert metrics["averaged"] == f"mean of {FOLDS} models"
    frame = pd.read_csv(tmp_path / "tested" / "predictions.csv")
    assert len(of(frame, "external")) == metrics["splits"]["external"]["n"] == 60
    assert len(of(frame, "val")) == (pd.read_csv(run / "manifest.csv")["split"] != "test").sum()


def test_the_report_says_that_several_models_answered(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{FOLDS} models that answer together" in page
    assert "holds no logs" not in page
    assert "nsemble fold" not in page, "no trait of the patients"
    assert f"mean of the probabilities of {FOLDS} models" in (run / "claim_2024.md").read_text(encoding="utf-8")
    outside = (pd.read_csv(run / "manifest.csv")["split"] != "test").sum()
    assert re.search(rf"training</th>\s*<td>{outside} images", page) or f"{outside} images of" in page


def test_mirror_images_are_answered_too_until_that_is_taken_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "predictions.csv").read_bytes()
    msmae.evaluate(str(run), mirror="on")
    assert re.search(r"mirror on; on validation auroc .* log_loss \d\.\d+ -> \d\.\d+", capsys.readouterr().out)
    frame, prepared = pd.read_csv(run / "predictions.csv"), prepare_again(run)
    rows = prepared.ids("test")
    pixels = torch.from_numpy(prepared.store.fetch(rows).astype(np.float32))
    alone = [load(folder_of(run, number)) for number in range(1, FOLDS + 1)]
    answers = [one.predict(view, calibrated=False) for one in alone for view in (pixels, pixels.flip(3))]
    expected = load(run).calibrate(torch.stack(answers).mean(dim=0)).double()
    torch.testing.assert_close(expected, torch.from_numpy(probabilities(of(frame, "test"))), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="on already"):
        msmae.evaluate(str(run), mirror="on")
    for mirror in ("off", "on"):  # killed once the card was written: the same command goes on
        write_card(run / "model", replace(load(run).card, mirrored=mirror == "on"))
        msmae.evaluate(str(run), mirror=mirror)
        assert ("mirror" in read_mapping(run / "metrics.json", mend="")["averaged"]) == (mirror == "on")
    for file in ("report.html", "model_card.md", "metrics.json"):
        assert f"mean of {FOLDS} models and image and mirror image" in (run / file).read_text(encoding="utf-8")
    with pytest.raises(UserError, match="timm"):
        msmae.export(str(run), format="timm")
    with pytest.raises(UserError, match="whole images"):
        msmae.evaluate(str(run), mirror="off", keep=0.5)
    msmae.evaluate(str(run), mirror="off")
    assert (run / "predictions.csv").read_bytes() == before


def test_its_features_are_those_of_the_first_and_that_is_said(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, source in (("all", run), ("first", folder_of(run, 1) / "model")):
        embed(str(source), str(images), out=str(tmp_path / f"{name}.npz"))
        assert (f"first of the run's {FOLDS} models" in capsys.readouterr().out) == (name == "all")
    both = [np.load(tmp_path / f"{name}.npz")["image"] for name in ("all", "first")]
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)


def test_exported_and_read_again_it_answers_alike(run: Path) -> None:
    model = load(run)
    assert read_run(run)[0]["folds"] == FOLDS
    assert model.card.members == FOLDS
    images = torch.rand(2, model.card.channels, *model.card.image_size) * 255
    network, _ = exported(model)
    torch.testing.assert_close(network(images), model.predict(images), atol=1e-6, rtol=0)
    assert model.attention(images).shape == (2, *model.network.encoder.grid)
    with pytest.raises(UserError, match="averaged answers"):
        model.predict(images, 0.25)
    with pytest.raises(UserError, match="averaged answers"):
        msmae.budget(str(run))
    with pytest.raises(UserError, match="timm averages"):
        msmae.export(str(run), format="timm")


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"folds": 3}, "folds"),
        ({"ensemble": True}, "ensemble"),
        ({"folds": 1, "ensemble": True}, "ensemble"),
        ({"folds": 3, "ensemble": True, "method": "msmae"}, "ensemble"),
        ({"folds": 3, "ensemble": True, "finetune": {"draw": "coarse"}}, "draw"),
        ({"folds": 90, "ensemble": True}, None),
    ],
)
def test_what_cannot_answer_together_is_refused(asked: dict[str, Any], where: str | None, images: Path, tmp_path: Path):
    with pytest.raises(UserError) as error:
        msmae.run(str(images), out=str(tmp_path / "run"), **{**ASKED, **asked})
    assert where is None or where in (error.value.where or "")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_rare_classes_are_met_alike_in_every_model(run: Path) -> None:
    """The run's own training images are at the limit, where nothing is done; other models learn from its validation
    images too, and would weigh the classes."""
    prepared = prepare_again(run)
    train, val = prepared.ids("train"), prepared.ids("val")
    targets = np.full(len(prepared.manifest), -1)
    each = len(train) // 5
    targets[train[: 5 * each]] = np.repeat([0, 0, 1, 2, 3], each)
    targets[val] = 0
    prepared.__dict__["targets"] = targets

    def remedy(prepared: Prepared, number: int) -> str:
        one = member(prepared, number)
        one.__dict__["targets"] = targets
        return decide_balance(one).remedy

    by_itself = {remedy(prepared, number) for number in (1, 2, 3)}
    assert by_itself == {"none", "class_weights"}
    alike = with_one_remedy(prepared)
    assert {remedy(alike, number) for number in (1, 2, 3)} == {decide_balance(prepared).remedy} == {"none"}
