"""External tests of runs written without training: what the run's settings ask of other data, and what they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import served_run
import yaml

import msmae
import msmae.evaluation.external
import saved_run
from msmae.config import DatasetSettings, Settings
from msmae.errors import UserError
from msmae.evaluation.external import open_external
from msmae.inference.model import Model
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import build_model, save_model

GRADES = ["normal", "malignant", "benign"]
"""The classes in an order that no alphabet gives."""


def write_run(folder: Path, *, dataset: dict[str, Any], card: ModelCard) -> Path:
    """A run of that model, with random weights, and with those settings."""
    saved_run.write_run(folder, saved_run.make_predictions(classes=card.classes), resamples=100)
    save_model(folder / "model", build_model(card), card)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["settings"]["dataset"] |= dataset
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def write_data(folder: Path, labels: list[str], *, images_each: int = 1) -> str:
    """A manifest of so many images, in order of their patients."""
    folder.mkdir()
    for number in range(len(labels)):
        (folder / f"{number}.png").write_bytes(served_run.png(number))
    rows = [f"{number}.png,{label},other-{number // images_each}" for number, label in enumerate(labels)]
    (folder / "manifest.csv").write_text("\n".join(["image_path,label,patient_id", *rows]) + "\n")
    return str(folder / "manifest.csv")


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longest: the report, and what is drawn for it."""
    for name in ("write_report", "draw_panels", "write_model_card", "write_checklists"):
        monkeypatch.setattr(msmae.evaluation.external, name, lambda *args, **options: None)


@pytest.mark.usefixtures("no_pages")
def test_a_hospital_with_one_of_the_runs_grades_is_tested(tmp_path: Path):
    card = replace(served_run.CARD, classes=GRADES)
    run = write_run(tmp_path / "run", dataset={"class_order": ";".join(GRADES), "ordinal": True}, card=card)
    data = write_data(tmp_path / "data", ["malignant", "malignant"])
    splits = msmae.evaluate(str(run), data, out=str(tmp_path / "out"))["splits"]
    assert splits["external"]["n"] == 2
    assert "the external data have no image of normal, benign" in splits["external"]["notes"]
    assert list(splits["external"]["per_class"]) == GRADES
    assert "kappa_quadratic" in splits["internal"]["metrics"]  # they are grades here, too


@pytest.mark.parametrize("labels", [["benign", "malignant"], ["benign", "normal", "malignant"]])
def test_the_classes_of_other_data_stand_in_the_models_order(labels: list[str], tmp_path: Path):
    model = Model(build_model(card := replace(served_run.CARD, classes=GRADES)), card)
    for asked in ({}, {"class_order": ";".join(GRADES), "ordinal": True}, {"class_order": "unheard;of"}):
        settings = Settings(dataset=DatasetSettings(**asked))
        found, notes = open_external(write_data(tmp_path / str(len(list(tmp_path.iterdir()))), labels), model, settings)
        assert list(found.classes) == [name for name in GRADES if name in labels]
        assert len(notes) == (len(labels) < 3)


def test_the_order_of_the_classes_is_not_to_be_chosen_for_an_external_test(tmp_path: Path):
    run = write_run(tmp_path / "run", dataset={}, card=served_run.CARD)
    data = write_data(tmp_path / "data", ["benign"])
    for name, value in (("class_order", "normal;benign"), ("ordinal", True)):
        with pytest.raises(UserError, match=rf"the settings dataset\.{name} are fixed by the run"):
            msmae.evaluate(str(run), data, out=str(tmp_path / "out"), dataset={name: value})
