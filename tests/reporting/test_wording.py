"""Numbers as a person reads them: never rounded up to perfect, never a number where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmae.reporting.report import settings
from msmae.reporting.wording import (
    count,
    describe,
    duration,
    figure_interval,
    figure_reason,
    figure_value,
    number,
    of,
    significant,
)


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (0.9933665, True, "99.3"),
        (0.9996, True, "99.96"),
        (0.99999, True, ">99.99"),
        (1.0, True, "100.0"),
        (0.0, True, "0.0"),
        (0.8484, False, "0.848"),
        (0.99982, False, "0.9998"),
        (0.999999, False, ">0.9999"),
        (1.0, False, "1.000"),
        (-0.25, False, "−0.250"),
        (None, True, "—"),
    ],
)
def test_numbers(value: float | None, percent: bool, text: str) -> None:
    assert number(value, percent=percent) == text


@given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_less_than_perfect_never_reads_as_perfect(value: float, percent: bool) -> None:
    text = number(value, percent=percent)
    assert text not in ("100.0", "100.00", "1.000", "1.0000")
    if not text.startswith(">"):
        assert float(text) == pytest.approx(100 * value if percent else value, abs=0.051 if percent else 0.00051)


def test_figures_with_and_without_intervals() -> None:
    whole = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert figure_value("accuracy", whole) == "50.0\u00a0%"
    assert figure_interval("accuracy", whole) == "25.0 to 75.0"
    assert figure_interval("auroc", whole) == "0.250 to 0.750"
    assert figure_reason(whole) == ""
    lone = {"value": 0.5, "low": None, "high": None, "reason": "one patient only"}
    assert figure_interval("auroc", lone) == ""
    assert figure_reason(lone) == "no interval: one patient only"
    nothing = {"value": None, "low": None, "high": None, "reason": "no image has this class"}
    assert figure_value("accuracy", nothing) == "—"
    assert figure_reason(nothing) == "undefined: no image has this class"
    assert figure_reason({}) == "undefined"


def test_unknown_figures_keep_their_name() -> None:
    assert describe("lesion_recall").name == "lesion recall"


def test_counts_and_plurals() -> None:
    assert (of(1, "image"), of(2, "class"), of(1234, "patient")) == ("1 image", "2 classes", "1,234 patients")
    assert (count(None), count(12345)) == ("unknown", "12,345")


def test_durations_and_sizes() -> None:
    assert [duration(s) for s in (3.21, 46.7, 119, 600, 12240, None)] == [
        "3.2 s",
        "47 s",
        "119 s",
        "10 min",
        "3.4 h",
        "—",
    ]
    assert [significant(x) for x in (0.05597, 17.556, 13109.8, 810628, None)] == [
        "0.056",
        "17.6",
        "13,110",
        "810,628",
        "—",
    ]


def test_settings_leave_out_what_was_understood() -> None:
    config = {"seed": 1, "understood": {"layout": "csv", "facts": [{}]}, "settings": {"model": {"depth": 2}}}
    assert settings(config) == [("seed", "1"), ("model.depth", "2")]
