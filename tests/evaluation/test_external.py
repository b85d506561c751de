"""A model on data of another origin: what does not fit is refused, what fits is evidence of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import msmae
from html_page import Page
from msmae.cli import call_verb
from msmae.data.phantom import make_phantom
from msmae.errors import LeakageError, UserError
from msmae.statistics.predictions import read_predictions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a phantom of 90 images."""
    folder = tmp_path_factory.mktemp("own")
    make_phantom(folder / "phantom", images=90, size=32)
    msmae.run(str(folder / "phantom" / "manifest.csv"), out=str(folder / "run"), preset="tiny")
    return folder / "run"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 60 other images, of other patients."""
    folder = tmp_path_factory.mktemp("other") / "hospital-b"
    make_phantom(folder, images=60, size=32, seed=5)
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    table["patient_id"] = "b-" + table["patient_id"]
    table.drop(columns="split").to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def evidence(run: Path, elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence of the external test."""
    out = tmp_path_factory.mktemp("evidence") / "out"
    call_verb("evaluate", [str(run), str(elsewhere), "--out", str(out)])
    return out


def changed(manifest: Path, folder: Path, **columns: Any) -> Path:
    """A copy of a manifest with other cells, its images where they were."""
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    table["image_path"] = [str(manifest.parent / path) for path in table["image_path"]]
    table = table.drop(columns=[name for name in ("mask_path",) if name in table])
    for name, change in columns.items():
        table[name] = change(table[name])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def test_external_and_internal_are_kept_apart(run: Path, elsewhere: Path, evidence: Path) -> None:
    metrics = json.loads((evidence / "metrics.json").read_text())
    own = json.loads((run / "metrics.json").read_text())
    assert set(metrics["splits"]) == {"external", "internal", "val"}
    assert metrics["splits"]["external"]["n"] == 60
    audit = json.loads((evidence / "audit.json").read_text())
    assert (audit["images"], [*{split for row in audit["splits"].values() for split in row}]) == (60, ["test"])
    assert metrics["splits"]["internal"]["metrics"] == own["splits"]["test"]["metrics"]
    assert metrics["model_sha256"] == own["model_sha256"]
    frame = read_predictions(evidence / "predictions.csv")
    assert frame["split"].value_counts()["external"] == 60
    model = msmae.load(run)
    rows = frame[frame["split"] == "external"]
    paths = [elsewhere.parent / path for path in rows["image_path"]]
    given = rows[[f"prob_{name}" for name in model.classes]].to_numpy()
    np.testing.assert_allclose(model.predict(paths).numpy(), given, atol=1e-6)
    assert model.classify(paths, answers="balanced") == rows["predicted"].tolist()


def test_the_page_names_both(evidence: Path) -> None:
    page = Page(evidence / "report.html")
    first = page.text[: page.text.index("Audit")]
    assert "Report of an external test" in first
    assert "external data manifest" in first
    assert "external test images classified correctly" in first
    assert "internal test" in first
    assert "Results on the external test images" in page.text
    assert "come from the same source as the training images" not in page.text
    assert "external test images" in (evidence / "model_card.md").read_text()
    assert (evidence / "claim_2024.md").is_file()
    assert (evidence / "panels" / "panels.json").is_file()


def test_labels_that_the_model_does_not_know_are_refused(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    data = changed(elsewhere, tmp_path, label=lambda labels: labels.replace({labels[0]: labels[0].upper()}))
    with pytest.raises(UserError, match=r"the model knows no class .* rename '.*' to '.*' in a CSV"):
        msmae.evaluate(str(run), str(data), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_class_without_images_is_told(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    gone = msmae.load(run).classes[0]
    table = pd.read_csv(changed(elsewhere, tmp_path), dtype=str, keep_default_na=False)
    table[table["label"] != gone].to_csv(tmp_path / "manifest.csv", index=False)
    metrics = msmae.evaluate(str(run), str(tmp_path / "manifest.csv"), out=str(tmp_path / "out"))
    assert f"the external data have no image of {gone}" in metrics["splits"]["external"]["notes"]
    assert metrics["splits"]["external"]["per_class"][gone]["sensitivity"]["value"] is None
    assert f"have no image of {gone}" in Page(tmp_path / "out" / "report.html").text


def test_one_class_alone_is_tested_and_what_it_cannot_say_is_told(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    table = pd.read_csv(elsewhere, dtype=str, keep_default_na=False)
    alone = elsewhere.parent / "healthy.csv"
    table[table["label"] == "healthy"].to_csv(alone, index=False)
    metrics = msmae.evaluate(str(run), str(alone), out=str(tmp_path / "out"))
    figures = metrics["splits"]["external"]["metrics"]
    assert figures["accuracy"]["value"] is not None
    assert figures["auroc"]["value"] is None
    assert "class" in figures["auroc"]["reason"]


def test_data_without_labels_is_refused(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    data = changed(elsewhere, tmp_path, label=lambda labels: [""] * len(labels))
    with pytest.raises(UserError, match="image has a label"):
        msmae.evaluate(str(run), str(data), out=str(tmp_path / "out"))


def test_other_channels_are_refused_unless_asked_for(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    table = pd.read_csv(changed(elsewhere, tmp_path), dtype=str, keep_default_na=False)
    for row, path in enumerate(table["image_path"]):
        grey = np.asarray(Image.open(path))
        Image.fromarray(np.stack([grey, grey, 255 - grey], axis=2)).save(tmp_path / f"{row}.png")
    table.assign(image_path=[f"{row}.png" for row in range(len(table))]).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(UserError, match="have 3 channels, and the model was trained on 1"):
        msmae.evaluate(str(run), str(tmp_path / "manifest.csv"), out=str(tmp_path / "out"))
    call_verb(
        "evaluate", [str(run), str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "out"), "--model.channels", "1"]
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["splits"]["external"]["n"] == 60


def test_another_bit_depth_is_refused(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    table = pd.read_csv(changed(elsewhere, tmp_path), dtype=str, keep_default_na=False)
    for row, path in enumerate(table["image_path"]):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(tmp_path / f"{row}.png")
    table.assign(image_path=[f"{row}.png" for row in range(len(table))]).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(UserError, match="hold uint16 numbers, and the model learned from uint8"):
        msmae.evaluate(str(run), str(tmp_path / "manifest.csv"), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_images_the_model_learned_from_stop_it(
    run: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = pd.read_csv(run / "manifest.csv", dtype=str, keep_default_na=False)
    learned = run / known.loc[known["split"] == "train", "image_path"].iloc[0]
    data = changed(elsewhere, tmp_path, image_path=lambda paths: [str(learned), *paths[1:]])
    with pytest.raises(
        LeakageError, match=r"overlap with the training or validation images: 1 test image with exactly the pixels"
    ) as stop:
        msmae.evaluate(str(run), str(data), out=str(tmp_path / "out"))
    assert stop.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    msmae.evaluate(str(run), str(data), out=str(tmp_path / "out"), allow_leakage=True)
    assert "1 test image with exactly the pixels" in capsys.readouterr().out
    assert "These figures cannot be trusted" in Page(tmp_path / "out" / "report.html").text


def test_patients_the_model_learned_from_stop_it(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    known = pd.read_csv(run / "manifest.csv", dtype=str, keep_default_na=False)
    patient = known.loc[known["split"] == "val", "patient_id"].iloc[0]
    data = changed(elsewhere, tmp_path, patient_id=lambda patients: [patient, *patients[1:]])
    with pytest.raises(
        LeakageError, match=r"1 patient with images in test and in training or validation.*only share a number"
    ):
        msmae.evaluate(str(run), str(data), out=str(tmp_path / "out"))


def test_the_runs_own_test_images_are_told(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    known = pd.read_csv(run / "manifest.csv", dtype=str, keep_default_na=False)
    tested = run / known.loc[known["split"] == "test", "image_path"].iloc[0]
    data = changed(elsewhere, tmp_path, image_path=lambda paths: [str(tested), *paths[1:]])
    metrics = msmae.evaluate(str(run), str(data), out=str(tmp_path / "out"))
    assert any(
        "1 external image the same as an internal test image" in n for n in metrics["splits"]["external"]["notes"]
    )


def test_a_pool_that_is_not_here_is_told(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    table = pd.read_csv(run / "manifest.csv", dtype=str, keep_default_na=False)
    table["image_path"] = "/nowhere/" + table["image_path"].str.lstrip("/")
    table.to_csv(moved / "manifest.csv", index=False)
    (moved / "record.json").unlink()
    metrics = msmae.evaluate(str(moved), str(elsewhere), out=str(tmp_path / "out"))
    assert any("cannot be read here" in note for note in metrics["splits"]["external"]["notes"])
    assert "were not compared with the external images" in Page(tmp_path / "out" / "report.html").text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{run}", "{data}"], "folder of its own"),
        (["{run}", "--out", "x"], "--out is for external data"),
        (["{run}", "{data}", "--out", "{run}"], "this folder holds a run"),
        (["{run}", "{data}", "--out", "{evidence}"], "holds metrics.json, report.html already"),
        (["{run}", "{data}", "--out", "{new}", "--finetune.epochs", "3"], "finetune"),
        (["{run}", "{data}", "--out", "{new}", "--model.width", "48"], "settings model.width are fixed"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], told: str, run: Path, elsewhere: Path, evidence: Path, tmp_path: Path
) -> None:
    names = {"run": run, "data": elsewhere, "evidence": evidence, "new": tmp_path / "new"}
    with pytest.raises(UserError, match=told):
        call_verb("evaluate", [word.format(**names) for word in words])


def test_images_of_one_class_give_no_figure_that_compares_classes(
    run: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(elsewhere, dtype=str, keep_default_na=False)
    alone = str(table["label"].iloc[0])
    table["image_path"] = [str(elsewhere.parent / path) for path in table["image_path"]]
    table[table["label"] == alone][["image_path", "label"]].to_csv(tmp_path / "one.csv", index=False)
    call_verb("evaluate", [str(run), str(tmp_path / "one.csv"), "--out", str(tmp_path / "out")])
    said = f"every image is of one class, {alone}"
    assert said in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["splits"]["external"]["metrics"]
    assert metrics["accuracy"]["value"] is not None
    assert (metrics["auroc"]["value"], metrics["balanced_accuracy"]["reason"]) == (None, said)
    assert said[1:] in (tmp_path / "out" / "report.html").read_text()
