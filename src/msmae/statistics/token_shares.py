"""What a token share costs in accuracy, measured against all tokens on the same images.

A point is *not inferior* where the whole 95 % interval of its paired loss lies under the margin: that it was not shown
to be worse is not enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from msmae.statistics.intervals import bca, entry, undefined
from msmae.statistics.paired import Resampled, difference, matched, resample_together

MEASURES = ("balanced_accuracy", "auroc", "ece")


def losses(
    whole: pd.DataFrame,
    kept: Sequence[pd.DataFrame],
    *,
    classes: Sequence[str],
    split: str = "val",
    multilabel: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Of each set of predictions: ``balanced_accuracy``, ``auroc``, ``ece``, and ``loss`` with ``low`` and ``high``.

    ``loss`` is the balanced accuracy given up against ``whole``, as a fraction, positive = worse, with its paired
    95 % interval over patients; ``auroc_loss`` the same, {"value", "low", "high"}. What is undefined is None; that of
    answers which are the same, image by image, is not: nothing is lost.
    """
    runs = matched([whole, *kept], classes=classes, split=split, multilabel=multilabel)
    everything, *others = resample_together(runs, resamples=resamples, seed=seed)
    rows = []
    for other, run in zip(others, runs[1:], strict=True):
        lost = difference(everything, other, "balanced_accuracy")
        if np.array_equal(run.predicted, runs[0].predicted):
            lost |= {"low": 0.0, "high": 0.0}
        rows.append(
            {name: plain(other.value.overall[name][0]) for name in MEASURES}
            | {"loss": lost["value"], "low": lost["low"], "high": lost["high"]}
            | {"auroc_loss": {k: v for k, v in difference(everything, other, "auroc").items() if k in ENDS}}
        )
    return rows


ENDS = ("value", "low", "high")


def choose(rows: Sequence[dict[str, Any]], *, margin: float) -> int:
    """The fastest row whose loss is shown to be under the margin; the first, against which losses are taken, is one.

    A row without an interval is not shown to lose little, whatever its loss.
    """

    def not_inferior(row: dict[str, Any]) -> bool:
        return row is rows[0] or (row["high"] is not None and row["high"] <= margin)

    fitting = [number for number, row in enumerate(rows) if not_inferior(row)]
    return max(fitting, key=lambda number: rows[number]["images_per_s"])


def rival(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each share a sentence: what the best selector of patches loses, and what a smaller image does at no less
    cost, on validation."""
    sentences = []
    for share in sorted({row["keep"] for row in rows if row["selector"] == "smaller"}):
        here = {row["selector"]: row for row in rows if row["keep"] == share and row["loss"] is not None}
        smaller = here.pop("smaller", None)
        if smaller is None or not here:
            continue
        best = min(here.values(), key=lambda row: (row["loss"], -row["images_per_s"]))
        lost = [f"{100 * row['loss']:.1f} points, {row['speedup']:.1f} times as fast" for row in (smaller, best)]
        better = "a smaller image" if smaller["loss"] <= best["loss"] else best["selector"]
        sentences.append(
            f"keep {share:g}: a smaller image loses {lost[0]}; {best['selector']} loses {lost[1]}: take {better}"
        )
    return sentences


def loss_by_class(
    whole: pd.DataFrame,
    kept: pd.DataFrame,
    *,
    classes: Sequence[str],
    split: str = "test",
    multilabel: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """For each class: ``n`` images, the share found from ``all`` patches and from the ``kept``, and ``loss`` (paired,
    with interval)."""
    runs = matched([whole, kept], classes=classes, split=split, multilabel=multilabel)
    a, b = resample_together(runs, resamples=resamples, seed=seed)
    return [
        {
            "class": name,
            "n": int(runs[0].truth[:, c].sum()),
            "all": plain(a.value.per_class["sensitivity"][0, c]),
            "kept": plain(b.value.per_class["sensitivity"][0, c]),
            "loss": class_difference(a, b, c),
        }
        for c, name in enumerate(runs[0].classes)
    ]


def class_difference(a: Resampled, b: Resampled, c: int) -> dict[str, Any]:
    """Sensitivity for class c of a minus that of b, with its interval."""
    value, draws, left_out = (
        getattr(a, part).per_class["sensitivity"][:, c] - getattr(b, part).per_class["sensitivity"][:, c]
        for part in ("value", "draws", "left_out")
    )
    if np.isnan(value[0]):
        return undefined("no image of the class")
    return entry(float(value[0]), bca(float(value[0]), draws, left_out, units=a.patients))


def cautions(by_class: Sequence[dict[str, Any]], *, margin: float) -> list[str]:
    """A sentence for each class of which the choice finds fewer images by more than the margin."""
    found = []
    for row in by_class:
        value, low = row["loss"]["value"], row["loss"]["low"]
        if value is None or value <= margin:
            continue
        sure = "significant" if low is not None and low > 0 else "not significant"
        found.append(
            f"sensitivity for {row['class']} ({row['n']} test images) drops from {100 * row['all']:.1f} % to "
            f"{100 * row['kept']:.1f} % ({sure})"
        )
    return found


def plain(value: float) -> float | None:
    """A number for JSON."""
    return None if np.isnan(value) else float(value)
