"""Patients of a run: pooled, the pooling chosen on validation, reported; and attention where one image of several
shows the disease.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import msmae
from msmae.errors import UserError
from msmae.evaluation.neighbours import write_neighbours
from msmae.evaluation.pooling import AttentionPooling, Bags, fit_attention, loss_of
from msmae.evaluation.units import choose
from msmae.inference.model import load
from msmae.statistics.predictions import read_predictions
from msmae.training.prepare import prepare_again
from msmae.verbs.evaluate import evaluate
from several_images import write_patients


def bags_of(bags: int, seed: int) -> Bags:
    """Six images a bag; of every second bag one image has a large first feature among twelve."""
    draw = np.random.default_rng(seed)
    members = np.repeat(np.arange(bags), 6)
    features = draw.normal(size=(6 * bags, 12)).astype(np.float32)
    ill = np.arange(bags) % 2
    features[np.arange(bags) * 6 + draw.integers(0, 6, bags), 0] += 7 * ill
    return Bags(features, members, np.eye(2, dtype=np.float32)[ill])


def right(probabilities: np.ndarray, bags: Bags) -> float:
    return float((probabilities.argmax(axis=1) == bags.targets.argmax(axis=1)).mean())


@pytest.mark.parametrize("multilabel", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_attention_finds_the_one_image_that_tells(multilabel: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("msmae.evaluation.pooling.EPOCHS", 100)
    train, val, test = (bags_of(bags, seed) for seed, bags in enumerate((240, 80, 200)))
    fitted = fit_attention(train, val, multilabel=multilabel)
    found, weights = fitted(fitted.terms(test.features), test.members, 200)
    mean = np.zeros((200, 12), dtype=np.float32)
    np.add.at(mean, test.members, test.features / 6)
    averaged, _ = fitted(fitted.terms(mean), np.arange(200), 200)  # the same head on the mean image
    assert right(found, test) >= 0.9
    assert right(found, test) >= right(averaged, test) + 0.1
    np.testing.assert_allclose(np.bincount(test.members, weights=weights), 1, atol=1e-5)
    told = test.features[:, 0].reshape(200, 6)[1::2].argmax(axis=1)
    assert (weights.reshape(200, 6)[1::2].argmax(axis=1) == told).mean() > 0.9
    again = AttentionPooling.of(fitted.tensors(), multilabel=multilabel)
    assert np.array_equal(again(again.terms(test.features), test.members, 200)[0], found)


def test_attention_leaves_out_what_is_not_known_of_a_patient():
    logits, known = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([1.0, 0.0, 1.0])
    targets = torch.tensor([[1.0, 0.0], [torch.nan, 1.0]])
    chance = torch.tensor([2.0, -1.0, 3.0]).sigmoid()
    by_hand = -(known * chance.log() + (1 - known) * (1 - chance).log()).mean()
    assert float(loss_of(logits, targets, multilabel=True)) == pytest.approx(float(by_hand))
    assert float(loss_of(logits, torch.full((2, 2), torch.nan), multilabel=True)) == 0


def test_the_mean_is_kept_unless_another_is_clearly_better():
    assert choose({"mean": 0.500, "max": 0.495, "attention": 0.9}) == "mean"
    assert choose({"mean": 0.500, "max": 0.480, "attention": 0.40}) == "attention"
    assert choose({"mean": None, "max": None}) == "mean"


def test_a_run_answers_for_patients_too(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))
    table, images = (
        read_predictions(finished / "predictions_patients.csv"),
        read_predictions(finished / "predictions.csv"),
    )
    found = metrics["patients"]
    assert found["unit"] == "patient_id"
    counts = images[images["split"] == "test"].groupby("patient_id").size()
    test = table[table["split"] == "test"].set_index("unit")
    assert test["images"].astype(int).to_dict() == counts.to_dict()
    assert found["splits"]["test"]["n"] == len(counts)
    accuracy = (test["label"] == test["predicted"]).mean()
    assert found["splits"]["test"]["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert set(test["decided_by"]) <= set(images["image_path"])
    assert set(found["poolings"]["val"]) >= {"mean", "max"}
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert 'id="patients"' in page
    assert Path(test["decided_by"].iloc[0]).name in page


def same_as_the_run(run: Path, data: Path, out: Path) -> None:
    """Prediction of a manifest answers for its patients as the run did."""
    own = read_predictions(run / "predictions_patients.csv")
    msmae.predict(str(run), [str(data)], out=str(out), batch_size=16, device="cpu")
    found = read_predictions(out / "predictions_patients.csv")
    known = found.set_index(["split", "unit"]).loc[[*zip(own["split"], own["unit"], strict=True)]].reset_index()
    chances = [name for name in own if name.startswith("prob_")]
    np.testing.assert_allclose(known[chances], own[chances], atol=1e-5)
    assert known["predicted"].tolist() == own["predicted"].tolist()
    assert known["images"].tolist() == own["images"].tolist()
    same = [
        Path(one).name == Path(other).name for one, other in zip(known["decided_by"], own["decided_by"], strict=True)
    ]
    assert np.mean(same) > 0.95  # of equals either


def test_predict_answers_for_the_patients_of_a_manifest_too(finished: Path, data: Path, tmp_path: Path):
    same_as_the_run(finished, data, tmp_path / "out")
    labelled = read_predictions(tmp_path / "out" / "predictions_patients.csv")
    assert set(labelled["label"]) == set(pd.read_csv(data, dtype=str)["label"])
    table = pd.read_csv(data, dtype=str, keep_default_na=False).iloc[:12]
    for column in ("image_path", "mask_path"):
        table[column] = [str(data.parent / path) if path else "" for path in table[column]]
    table[["image_path", "patient_id"]].to_csv(tmp_path / "unlabelled.csv", index=False)
    table[["image_path"]].to_csv(tmp_path / "nameless.csv", index=False)
    msmae.predict(str(finished), [str(tmp_path / "unlabelled.csv")], out=str(tmp_path / "unlabelled"), device="cpu")
    found = read_predictions(tmp_path / "unlabelled" / "predictions_patients.csv")
    assert found["images"].astype(int).tolist() == table.groupby("patient_id").size().tolist()
    assert set(found["label"]) == {""}
    with pytest.MonkeyPatch.context() as patch:  # and nothing is computed for patients that nobody names
        patch.setattr("msmae.evaluation.units.features_of", lambda *_: pytest.fail("computed for nothing"))
        msmae.predict(str(finished), [str(tmp_path / "nameless.csv")], out=str(tmp_path / "nameless"), device="cpu")
    assert not (tmp_path / "nameless" / "predictions_patients.csv").exists()


def test_a_unit_that_the_manifest_does_not_name_stops_the_run_before_training(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no column 'lesion'"):
        msmae.run(str(data), out=str(tmp_path / "run"), preset="tiny", dataset={"unit": "lesion"})
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
def test_attention_is_chosen_where_one_of_five_images_shows_the_disease(tmp_path: Path):
    """Labels that exist for patients alone, in a table of their own, train the encoder and the pooling."""
    data = write_patients(tmp_path / "data")
    table = pd.read_csv(data, dtype=str)
    table.groupby("patient_id")["label"].first().to_csv(tmp_path / "data" / "patients.csv")
    table.drop(columns="label").to_csv(data, index=False)
    short: dict[str, Any] = {"epochs": 30, "base_lr": 1e-2, "batch_size": 32, "ema": 0, "jitter": 0.0}
    metrics = msmae.run(
        str(data), out=str(tmp_path / "run"), method="vit", preset="tiny", finetune=short,
        dataset={"label_column": "patients.csv:label"},
    )  # fmt: skip
    found = metrics["patients"]
    reached = {how: figures["balanced_accuracy"] for how, figures in found["poolings"]["test"].items()}
    assert found["pooling"] == "attention"
    assert reached["attention"] >= reached["mean"] + 0.1
    table = read_predictions(tmp_path / "run" / "predictions_patients.csv")
    ill = table[(table["label"] == "disease") & (table["predicted"] == "disease")]
    shows = pd.read_csv(data, dtype=str).set_index("image_path")["shows"] == "True"
    decided = ["images/" + Path(path).name for path in ill["decided_by"]]
    assert shows[decided].mean() > 0.8
    write_patients(tmp_path / "other", patients=36, seed=7)
    other = pd.read_csv(tmp_path / "other" / "manifest.csv", dtype=str)
    other.assign(patient_id="x" + other["patient_id"]).to_csv(tmp_path / "other" / "manifest.csv", index=False)
    external = evaluate(str(tmp_path / "run"), str(tmp_path / "other" / "manifest.csv"), out=str(tmp_path / "ext"))
    assert external["patients"]["pooling"] == "attention"
    assert external["patients"]["splits"]["external"]["metrics"]["balanced_accuracy"]["value"] > 0.8
    same_as_the_run(tmp_path / "run", data, tmp_path / "predicted")
    again = evaluate(str(tmp_path / "run"), dataset={"unit": "none"})
    assert "patients" not in again


@pytest.mark.slow
def test_wrong_labels_put_into_a_phantom_are_listed(tmp_path: Path):
    """900 images of one patient each; 5 % of the labels are wrong, in training too. Of the labels of validation and
    test images that the report says are contradicted, at least half are wrong ones.
    """
    data = write_patients(tmp_path / "data", patients=900, images=1)
    table = pd.read_csv(data, dtype=str)
    draw = np.random.default_rng(3)
    wrong = draw.permutation(len(table))[: round(0.05 * len(table))]
    table.loc[wrong, "label"] = table.loc[wrong, "label"].map({"disease": "healthy", "healthy": "disease"})
    table.to_csv(data, index=False)
    short: dict[str, Any] = {"epochs": 15, "base_lr": 1e-2, "batch_size": 32, "ema": 0, "jitter": 0.0}
    msmae.run(str(data), out=str(tmp_path / "run"), method="vit", preset="tiny", finetune=short)
    listed = pd.read_csv(tmp_path / "run" / "labels_to_check.csv", dtype=str)
    contradicted = listed[listed["contradicted"] == "yes"]
    swapped = {Path(path).name for path in table.loc[wrong, "image_path"][table.loc[wrong, "split"] != "train"]}
    found = {Path(path).name for path in contradicted["image_path"]}
    print(f"{len(found & swapped)} of {len(swapped)} wrong labels among {len(found)} contradicted")
    assert len(found & swapped) >= max(0.5 * len(found), 0.5 * len(swapped))
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert 'id="labels"' in page
    assert contradicted["image_path"].iloc[0] in page


@pytest.mark.slow
def test_the_report_names_the_nearest_training_images_of_wrong_answers(finished: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    prepared = prepare_again(run)
    write_neighbours(run, load(run), prepared, 2)
    table = pd.read_csv(run / "neighbours.csv", dtype=str)
    manifest = pd.read_csv(run / "manifest.csv", dtype=str, keep_default_na=False).set_index("image_path")
    names = [cell.split(";") for cell in table["neighbours"]]
    assert {len(pair) for pair in names} == {2}
    assert set(manifest.loc[[name for pair in names for name in pair], "split"]) == {"train"}
    assert [";".join(manifest.loc[pair, "label"]) for pair in names] == table["neighbour_labels"].tolist()
    wrong = read_predictions(run / "predictions.csv").query("split == 'test' and label != predicted_plain")
    page = (run / "report.html").read_text(encoding="utf-8")
    first = table.set_index("image_path").loc[wrong["image_path"].iloc[0], "neighbours"].split(";")[0]
    assert "nearest training images" in page
    assert first in page
