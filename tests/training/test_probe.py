"""Probes: the encoder stands still, the head is the regression's own, and the run is like any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import msmae
from msmae.evaluation import units
from msmae.evaluation.evaluate import from_features, predict_rows
from msmae.inference.features import Frozen, features_of, tokens_of
from msmae.runs.checkpoint import load_model
from msmae.training import probe
from msmae.training.balance import Balance
from msmae.training.prepare import prepare_again
from msmae.training.probe import regress


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) for name in ("probe", "probe-knn", "probe-attentive")]
)
def test_a_probe_is_a_run_whose_encoder_did_not_change(
    method: str, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = msmae.run(str(data), out=str(tmp_path / "run"), preset="tiny", method=method, init=str(finished))
    before, after = load_model(finished / "model")[0], load_model(tmp_path / "run" / "model")[0]
    for name, tensor in before.encoder.state_dict().items():
        torch.testing.assert_close(after.encoder.state_dict()[name], tensor)
    assert metrics["arm"] == method
    model = msmae.load(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 32, 32)).astype(np.float32)
    assert np.allclose(model.predict(images).sum(axis=1), 1, atol=1e-5)
    assert model.predict(images, keep=0.5).shape == (3, len(model.classes))
    prepared = prepare_again(tmp_path / "run")
    rows = np.concatenate([prepared.ids("test")[::-2], prepared.ids("train")[3:9]])
    if method == "probe-attentive":
        assert from_features(model, prepared, rows) is None
        return
    from_features(model, prepared, rows)
    with monkeypatch.context() as patch:  # all that is needed is known by now
        patch.setattr(Frozen, "tokens", lambda *_: pytest.fail("an image is encoded again"))
        known = from_features(model, prepared, rows)
    np.testing.assert_allclose(known, predict_rows(model, prepared, rows), atol=1e-6)
    seen = units.features(model, prepared, rows)
    images = torch.from_numpy(prepared.store.fetch(rows).astype(np.float32))
    np.testing.assert_allclose(seen, units.features_of(model, images), atol=1e-5)


def test_the_regressions_answers_are_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(90, 6)), generator.integers(0, 3, 90)
    even = torch.ones(3)
    weight, bias = regress(features, targets, 0.1, Balance("none", "", even, 0 * even, even))
    theirs = LogisticRegression(C=0.1, max_iter=500).fit(features, targets)
    ours = np.exp(features @ weight.T + bias)
    np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), theirs.predict_proba(features), atol=1e-6)


def test_two_classes_and_unknown_labels() -> None:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(80, 4))
    two = (features[:, 0] > 0).astype(np.int64)
    even = torch.ones(2)
    balance = Balance("none", "", even, 0 * even, even)
    weight, bias = regress(features, two, 1.0, balance)
    assert ((features @ weight.T + bias).argmax(axis=1) == two).mean() > 0.95
    several = np.stack([two, 1 - two], axis=1).astype(np.float64)
    several[::2, 1] = np.nan
    weight, bias = regress(features, several, 1.0, balance)
    assert (((features @ weight.T + bias) > 0)[:, 0] == (two == 1)).mean() > 0.95
    assert (((features @ weight.T + bias) > 0)[:, 1] == (two == 0)).mean() > 0.9


def test_features_are_the_encoders_tokens_and_come_from_the_cache(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare_again(finished)
    model, card = load_model(finished / "model")
    frozen = Frozen(model.encoder, card.mean, card.std)
    ids = prepared.ids("val")
    found = features_of(frozen, prepared.store, ids)
    tokens = frozen.tokens(prepared.store.fetch(ids))
    np.testing.assert_allclose(found.image, tokens[:, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.patches, tokens[:, 1:].mean(dim=1).numpy(), atol=1e-6)
    np.testing.assert_allclose(tokens_of(frozen, prepared.store, ids), tokens.numpy(), atol=2e-3)
    monkeypatch.setattr(Frozen, "tokens", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(features_of(frozen, prepared.store, ids).both, found.both)
    tokens_of(frozen, prepared.store, ids)
    other = dataclasses.replace(frozen, mean=[m + 1 for m in frozen.mean])
    assert other.key != frozen.key


def test_a_regression_that_does_not_settle_warns_nobody_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    features = np.random.default_rng(0).normal(size=(60, 40))
    even = torch.ones(2)
    balance = Balance("none", "", even, 0 * even, even)
    with caplog.at_level("INFO", "msmae"):
        regress(features, np.arange(60) % 2, 1.0, balance)
        assert "settled" not in caplog.text
        monkeypatch.setattr(probe, "STEPS", 2)
        regress(features, np.arange(60) % 2, 1.0, balance)
    assert "had not settled after 2 steps" in caplog.text
    assert not recwarn.list
