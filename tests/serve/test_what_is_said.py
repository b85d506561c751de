"""What the server says of an image, without a server."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from served_run import CARD, dicom, pixels, write_run

from msmae.runs.checkpoint import build_model, save_model
from msmae.serve.decode import Decoded, Task, decode
from msmae.serve.describe import described, together
from msmae.serve.engine import Engine, Question
from msmae.verbs.serve import pools_otherwise

IMAGE = pixels(1, (32, 32))[None]  # [1, H, W]


def test_a_set_is_given_only_where_the_model_looks_as_it_did_at_the_validation_images(tmp_path: Path) -> None:
    engine = Engine(str(write_run(tmp_path / "run")))
    for keep in (1.0, 0.25):
        answers = engine.answers([Question(IMAGE, keep)] * 2)
        image = described(engine, "a.png", Decoded(IMAGE, (32, 32), colour=False), answers[0], pictures=False)
        assert (image["conformal_set"] is not None) == (keep == 1)
        assert (together(engine, answers[:1])["conformal_set"] is not None) == (keep == 1)


@pytest.mark.parametrize(("patients", "said"), [(None, ""), ({"pooling": "mean"}, ""), ({"pooling": "max"}, "by max")])
def test_a_run_that_pools_a_patient_otherwise_is_named(tmp_path: Path, patients: object, said: str) -> None:
    assert pools_otherwise(tmp_path) == ""
    (tmp_path / "metrics.json").write_text(json.dumps({"patients": patients}))
    assert said in pools_otherwise(tmp_path)
    assert bool(pools_otherwise(tmp_path)) == bool(said)


@pytest.mark.parametrize("pool", ["cls", "mean", "both", "attentive"])
def test_the_features_are_what_the_head_reads(tmp_path: Path, pool: str) -> None:
    torch.manual_seed(0)
    card = replace(CARD, pool=pool, calibration={})
    save_model(tmp_path / "model", build_model(card), card)
    engine = Engine(str(tmp_path))
    answer = engine.answers([Question(IMAGE, features=True)])[0]
    own = engine.model.network.head(torch.from_numpy(np.asarray(answer.features))).softmax(dim=0)
    assert torch.allclose(own.double(), torch.from_numpy(np.asarray(answer.probabilities)), atol=1e-6)


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
def test_the_page_begins_with_the_window_that_the_picture_was_made_by(tmp_path: Path, polarity: str) -> None:
    """``picture`` has gone through the reader; the grey levels go through the page's window (page/views.js)."""
    name, content = tmp_path / "scan.dcm", dicom(1, PhotometricInterpretation=polarity)
    name.write_bytes(content)
    task = Task((32, 32), 1, 4, "float32", {"window": "file", "max_pixels": 10**6})
    found = decode(name, content, task, pictures=True)
    grey = found.grey
    assert grey is not None
    levels = np.frombuffer(base64.b64decode(grey["levels"]), "<u2").reshape(grey["height"], grey["width"])
    black = grey["window"]["centre"] - grey["window"]["width"] / 2
    page = ((grey["low"] + grey["step"] * levels - black) / grey["window"]["width"]).clip(0, 1)
    read = decode(name, content, replace(task, size=(grey["height"], grey["width"])), pictures=False).array[0]
    assert 0.05 < read.mean() < 0.95
    assert np.abs(page - read).max() < 0.005
