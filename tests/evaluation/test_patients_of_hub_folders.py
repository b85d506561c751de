"""A folder for the hub answers for patients as its run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import served_run
import torch
from safetensors.torch import save_file
from test_other_hospitals import write_data, write_run

import msmae
from msmae.errors import UserError
from msmae.evaluation.gated_attention import GatedAttention
from msmae.evaluation.pooling import AttentionPooling
from msmae.inference.hub_folder import check_folder, write_folder
from msmae.runs.checkpoint import build_model, save_model
from msmae.statistics.predictions import read_predictions
from msmae.verbs.export import export
from saved_run import edit_metrics

TEMPERATURE = {"method": "temperature", "scale": [3.0] * 3, "bias": [0.0] * 3, "multilabel": False, "images": 9}
CHANCES = [f"prob_{name}" for name in served_run.CLASSES]


def both(tmp_path: Path, patients: dict[str, Any], *, column: str = "patient_id") -> list[dict[str, pd.DataFrame]]:
    """What `predict` writes of two units of three images, from a run that pools so, and from its folder for the hub."""
    run = write_run(tmp_path / "run", dataset={}, card=served_run.CARD)
    edit_metrics(run, lambda metrics: metrics.update(patients={**patients, "poolings": {}, "notes": [], "splits": {}}))
    if patients["pooling"] == "attention":
        torch.manual_seed(3)
        network = GatedAttention(2 * 32 + 3, classes=3)
        for part in network.parameters():
            torch.nn.init.normal_(part)
        pooling = AttentionPooling(network, torch.zeros(67), torch.ones(67), multilabel=False)
        save_file(pooling.tensors(), run / "model" / "patients.safetensors")
    data = Path(write_data(tmp_path / "data", ["benign"] * 6, images_each=3))
    data.write_text(data.read_text().replace("patient_id", column))
    folder = tmp_path / "hub"
    write_folder(run, folder, served_run.CARD)
    found = []
    for place in (run, folder):
        out = tmp_path / f"of-{place.name}"
        msmae.predict(str(place), [str(data)], out=str(out), device="cpu")
        found.append({name: read_predictions(out / f"{name}.csv") for name in ("predictions", "predictions_patients")})
    return found


def test_the_mean_has_its_temperature_and_the_units_their_column(tmp_path: Path):
    patients = {"unit": "lesion_id", "pooling": "mean", "calibration": TEMPERATURE}
    of_run, of_folder = both(tmp_path, patients, column="lesion_id")
    chances = of_folder["predictions"][CHANCES].to_numpy().reshape(2, 3, 3).mean(axis=1) ** 3
    found = of_folder["predictions_patients"]
    assert found["unit"].tolist() == ["other-0", "other-1"]
    np.testing.assert_allclose(found[CHANCES], chances / chances.sum(axis=1, keepdims=True), atol=1e-5)
    pd.testing.assert_frame_equal(of_run["predictions_patients"], found)


def test_a_folder_that_does_not_say_how_its_run_pooled_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_model(tmp_path / "hub", build_model(served_run.CARD), served_run.CARD)
    data = write_data(tmp_path / "data", ["benign"] * 2, images_each=2)
    msmae.predict(str(tmp_path / "hub"), [data], out=str(tmp_path / "out"), device="cpu")
    assert "nothing is known of a run's pooling" in capsys.readouterr().out


def test_attention_travels(tmp_path: Path):
    of_run, of_folder = both(tmp_path, {"unit": "patient_id", "pooling": "attention", "calibration": None})
    pd.testing.assert_frame_equal(of_run["predictions_patients"], of_folder["predictions_patients"])
    mean = of_folder["predictions"][CHANCES].to_numpy().reshape(2, 3, 3).mean(axis=1)
    assert np.abs(of_folder["predictions_patients"][CHANCES].to_numpy() - mean).max() > 0.1
    names = {"README.md", "config.json", "model.safetensors", "patients.json", "patients.safetensors"}
    assert {file.name for file in (tmp_path / "hub").iterdir()} == names
    check_folder(tmp_path / "hub", overwrite=True)  # all of it is the export's own
    (tmp_path / "hub" / "patients.safetensors").unlink()
    with pytest.raises(UserError, match=r"patients\.safetensors"):
        msmae.predict(str(tmp_path / "hub"), [str(tmp_path / "data" / "manifest.csv")], out=str(tmp_path / "x"))


def test_a_model_on_the_hub_and_the_folder_in_a_run_answer_as_the_run_does(tmp_path: Path, monkeypatch: Any):
    """Of RUN/model nothing was known of patients; of hf://owner/name prediction ended in a traceback."""
    run = write_run(tmp_path / "run", dataset={}, card=served_run.CARD)
    patients = {"unit": "patient_id", "pooling": "max", "calibration": TEMPERATURE, "poolings": {}, "splits": {}}
    edit_metrics(run, lambda metrics: metrics.update(patients={**patients, "notes": []}))
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    fetched = tmp_path / "cache" / "models" / "own--mine@main"
    write_folder(run, fetched, served_run.CARD)
    data = str(write_data(tmp_path / "data", ["benign"] * 6, images_each=3))
    tables = []
    for place in (str(run), str(run / "model"), "hf://own/mine"):
        out = tmp_path / str(len(tables))
        msmae.predict(place, [data], out=str(out), device="cpu")
        tables.append(read_predictions(out / "predictions_patients.csv"))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])
    for place in (str(run / "model"), "hf://own/mine"):
        export(place, format="hub", out=str(tmp_path / "again"), overwrite=True)
        assert (tmp_path / "again" / "patients.json").read_bytes() == (fetched / "patients.json").read_bytes()
    with pytest.raises(UserError, match="no place"):
        export("hf://own/mine")
