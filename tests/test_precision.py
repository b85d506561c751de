"""In which numbers `auto` trains, and that each trains."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

import msmae
from msmae import machine as precision
from msmae.config import make_settings
from msmae.errors import UserError
from msmae.machine import bfloat16_gain, choose_precision, prediction_dtype
from msmae.runs.folder import precision_of
from msmae.training import trainer


def test_what_is_asked_for_is_used():
    assert choose_precision("32-true") == "32-true"
    assert choose_precision("bf16-mixed", "cpu") == "bf16-mixed"


@pytest.mark.parametrize(
    ("gain", "chosen"), [(4.2, "bf16-mixed"), (1.2, "bf16-mixed"), (1.1, "32-true"), (0.5, "32-true")]
)
def test_auto_asks_the_clock_and_not_only_the_flags(monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str):
    """An Intel Xeon with AVX-512 BF16 and its AMX hidden is half as fast in bfloat16 as in float32."""
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "bfloat16_gain", lambda: gain)
    assert choose_precision("auto", "cpu") == chosen


def test_auto_is_float32_where_bfloat16_is_emulated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(precision, "bfloat16_gain", lambda: pytest.fail("no need to measure"))
    assert choose_precision("auto", "cpu") == "32-true"


def test_the_gain_is_measured_once():
    first = bfloat16_gain()
    assert first > 0
    assert bfloat16_gain() == first


def test_prediction_takes_the_numbers_asked_for_where_the_processor_has_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    cpu = torch.device("cpu")
    assert prediction_dtype("fp32", cpu) is torch.float32
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    assert prediction_dtype("bf16", cpu) is torch.bfloat16
    assert not caplog.records
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    with caplog.at_level(logging.WARNING, logger="msmae"):
        assert prediction_dtype("bf16", cpu) is torch.float32
    (record,) = caplog.records
    assert "no bfloat16" in record.message
    with pytest.raises(UserError, match="no precision 'fp8'"):
        prediction_dtype("fp8", cpu)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_each_precision_trains_without_a_network(
    precision: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss falls and is finite; whoever looks up a name or opens a connection is told of."""

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("the network is asked")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(f"socket.socket.{name}", forbidden)
    monkeypatch.setattr("socket.getaddrinfo", forbidden)
    settings = {"precision": precision, "accelerator": "cpu"}
    msmae.pretrain(str(data), out=str(tmp_path / "run"), preset="tiny", pretrain={"epochs": 2}, trainer=settings)
    weights = load_file(tmp_path / "run" / "pretrained" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    log = pd.read_csv(next((tmp_path / "run" / "logs").glob("pretrain/**/metrics.csv")))
    losses = log["reconstruction"].dropna()
    assert losses.iloc[-1] < losses.iloc[0]


def test_float16_on_a_processor_is_float16() -> None:
    """Lightning takes bfloat16 in silence."""
    chosen = pl.Trainer(accelerator="cpu", logger=False, **trainer.in_precision("16-mixed", "cpu")).precision_plugin
    with chosen.forward_context():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float16


def test_a_precision_that_breaks_is_refused() -> None:
    settings = dataclasses.replace(make_settings("tiny").trainer, precision="16-true", accelerator="cpu")
    with pytest.raises(UserError, match="choose one of"):
        trainer.check_trainer(settings)


def test_a_run_keeps_to_the_precision_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second measurement may come to another, and the model would be another."""
    monkeypatch.setattr(precision, "choose_precision", lambda *_: "measured")
    settings = make_settings("tiny").trainer
    assert precision_of(tmp_path, settings) == "measured"
    (tmp_path / "environment.json").write_text('{"auto_precision": "bf16-mixed"}')
    assert precision_of(tmp_path, settings) == "bf16-mixed"
    (tmp_path / "environment.json").write_text("7")
    assert precision_of(tmp_path, settings) == "measured"
