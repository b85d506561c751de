"""In which numbers `auto` trains."""

from __future__ import annotations

import logging

import pytest
import torch

from msmae import machine as precision
from msmae.errors import UserError
from msmae.machine import bfloat16_gain, choose_precision, prediction_dtype


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
