"""Markdown: a table, and how numbers stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOT_YET = "*Not run yet.*"
NAMES = {
    "accuracy": "accuracy, %",
    "balanced_accuracy": "balanced accuracy, %",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "mcc": "Matthews correlation",
    "brier": "Brier score",
    "ece": "calibration error, %",
}
PERCENT = ("accuracy", "balanced_accuracy", "ece")


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; a bar within a cell is escaped."""
    lines = [list(map(str, row)) for row in (heads, *rows)]
    lines.insert(1, ["---"] * len(heads))
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def known(value: Any) -> bool:
    """Whether a number is there."""
    return value is not None and value == value and value != ""


def number(value: float, metric: str, *, sign: bool = False) -> str:
    """A value of a metric: one digit of a percentage, three of anything else; minus is written as such."""
    text = f"{100 * value:{'+' * sign}.1f}" if metric in PERCENT else f"{value:{'+' * sign}.3f}"
    return text.replace("-", "−")


def estimate(value: Any, low: Any, high: Any, metric: str, *, sign: bool = False) -> str:
    """``83.9 (80.2 to 87.7)``, without the brackets where there is no interval."""
    if not known(value):
        return "—"
    text = number(value, metric, sign=sign)
    if not (known(low) and known(high)):
        return text
    return f"{text} ({number(low, metric, sign=sign)} to {number(high, metric, sign=sign)})"


def p_value(p: Any) -> str:
    """Three digits; below a thousandth only that."""
    if not known(p):
        return "—"
    return "&lt;0.001" if p < 0.001 else f"{p:.3f}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``, as code."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
