"""A model that sees coarse and fine looks so wherever it is used: its own way is no share that somebody asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served_run
import torch
from test_other_hospitals import no_pages, write_data, write_run

import msmae
import msmae.evaluation.external
from msmae.errors import UserError
from msmae.inference.model import calibration_at, load
from msmae.method.classifier import Classifier
from msmae.runs.checkpoint import describe_selection, load_model, save_selection, with_keep, write_card
from msmae.selection.locator import tokens_for
from msmae.statistics.predictions import read_predictions
from msmae.training.selecting.coarse import selection_for

SHARE = 0.375
"""Of the tokens: what such a model looks at."""
pytestmark = pytest.mark.usefixtures(no_pages.__name__)


@pytest.fixture
def coarse(tmp_path: Path) -> Path:
    """A run that looks coarse and fine, with random weights."""
    run = write_run(tmp_path / "run", dataset={}, card=served_run.CARD)
    network, card = load_model(run / "model")
    assert isinstance(network, Classifier)
    selection = selection_for(network)
    assert tokens_for(network.encoder, None) == SHARE * network.encoder.patches
    way = {"own": {"keep": SHARE, "selector": "locator"}}
    save_selection(run / "model", selection, replace(card, keep={**describe_selection(selection), **way}))
    return run


def test_an_external_test_looks_as_the_run_did_and_answers_for_patients(coarse: Path, tmp_path: Path):
    data = write_data(tmp_path / "data", ["benign", "benign", "normal", "normal"], images_each=2)
    metrics = msmae.evaluate(str(coarse), data, out=str(tmp_path / "out"))
    assert metrics["keep"] == {"keep": SHARE, "selector": "locator"}
    assert metrics["patients"]["splits"]["external"]["n"] == 2
    frame, model = read_predictions(tmp_path / "out" / "predictions.csv"), load(coarse)
    rows = frame[frame["split"] == "external"]
    seen = model.predict([tmp_path / "data" / f"{number}.png" for number in range(4)], SHARE, selector="locator")
    np.testing.assert_allclose(rows[[f"prob_{name}" for name in model.classes]].to_numpy(), seen.numpy(), atol=1e-6)
    with pytest.raises(UserError, match=r"were not evaluated with this token share.*--keep 1 --selector all"):
        msmae.evaluate(str(coarse), data, out=str(tmp_path / "all"), selector="all")


def test_measured_shares_leave_the_models_own_answers_as_they_are(coarse: Path, tmp_path: Path):
    """Whatever was measured before: the share of the nearest point, and none but the card's own at the model's own."""

    def fitted(keep: float, selector: str, scale: float) -> dict[str, Any]:
        return {
            "keep": keep,
            "selector": selector,
            "calibration": {**served_run.CARD.calibration, "scale": [scale] * 3},
        }

    images, before = torch.rand(4, 1, 32, 32) * 255, load(coarse)
    own, raw = before.predict(images), before.predict(images, calibrated=False).double()
    others = [fitted(0.5, "locator", 3.0), fitted(SHARE, "locator", 7.0), fitted(0.5, "grid", 5.0)]
    write_card(coarse / "model", with_keep(before.card, calibrations=others))
    after = load(coarse)
    assert torch.equal(after.predict(images), own)
    torch.testing.assert_close(own.double(), (raw.log() * 2).softmax(dim=1), atol=1e-6, rtol=0)  # 2: of the card
    for share, selector, scale in (
        (0.5, "locator", 3.0), (0.9, "locator", 3.0), (0.4, "locator", 2.0), (0.2, "grid", 5.0), (1.0, "all", 2.0),
    ):  # fmt: skip
        assert calibration_at(after.card, share, selector)["scale"] == [scale] * 3


def test_sets_are_of_the_models_own_way(coarse: Path, tmp_path: Path):
    image = tmp_path / "0.png"
    image.write_bytes(served_run.png(0))
    (row,) = msmae.predict(str(coarse), [str(image)], out=str(tmp_path / "out"), coverage=0.9).to_dict("records")
    assert row["predicted"] in row["set"].split(";")
    for asked in ({"keep": 0.5}, {"selector": "all"}):
        with pytest.raises(UserError, match="leave --keep and --selector out"):
            msmae.predict(str(coarse), [str(image)], out=str(tmp_path / "other"), coverage=0.9, **asked)
