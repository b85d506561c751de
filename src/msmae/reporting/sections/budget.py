"""The report's section on token shares: the curve, the choice, its figures on test, and the encoded patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msmae.reporting.run_files import RunFiles

RANGE = "{:.1f} ({:.1f} to {:.1f})"


def budget(run: RunFiles) -> dict[str, Any] | None:
    """Everything the template shows; None where no budget was measured."""
    found = run.budget
    if not found:
        return None
    from msmae.reporting.figures.curves import budget_figure

    choice = found["choice"]
    test = choice.get("test") or {}
    return {
        "figure": budget_figure(found["rows"], choice),
        "choice": choice,
        "base": "all patches" if found["rows"][0]["selector"] == "all" else "the share it was fine-tuned on",
        "dropped": choice["speedup"] != 1,
        "margin": f"{100 * found['margin']:g}",
        "prepared": found.get("prepared"),
        "rows": [
            {
                "selector": row["selector"],
                "keep": f"{row['keep']:g}",
                "gmacs": row["gmacs"],
                "rate": row["images_per_s"],
                "speedup": f"{row['speedup']:.2f}",
                "accuracy": row["balanced_accuracy"],
                "auroc": "—" if row["auroc"] is None else f"{row['auroc']:.3f}",
                "ece": row["ece"],
                "lost": points(row),
                "chosen": row["selector"] == choice["selector"] and row["keep"] == choice["keep"],
            }
            for row in found["rows"]
        ],
        "lost": points(test) if test else None,
        "classes": [{**row, "lost": points({**row["loss"], "loss": row["loss"]["value"]})} for row in per_class(test)],
        "cautions": test.get("cautions", []),
        "looks": run.looks,
    }


def per_class(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes of the test split."""
    return list(test.get("per_class", []))


def points(row: Mapping[str, Any]) -> str:
    """A loss with its interval, in points."""
    if row["loss"] is None:
        return "—"
    if row["low"] is None or row["high"] is None:
        return f"{100 * row['loss']:.1f}"
    return RANGE.format(100 * row["loss"], 100 * row["low"], 100 * row["high"])
