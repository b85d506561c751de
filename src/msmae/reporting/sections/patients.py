"""The report's section on patients (or lesions, studies): how their images were pooled, the figures, who decided."""

from __future__ import annotations

from typing import Any

import pandas as pd

from msmae.reporting.cases import readable
from msmae.reporting.headline import key_figure
from msmae.reporting.run_files import RunFiles
from msmae.reporting.sections.results import reasons
from msmae.reporting.wording import describe, split_name
from msmae.statistics.predictions import PREFIX, mistakes
from msmae.statistics.units import PATIENT, SAYS

SHOWN = ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1_macro", "kappa_quadratic", "brier", "ece")
CASES = 20


def patients(run: RunFiles, split: str) -> dict[str, Any] | None:
    """What the templates show of units; None where the run has none."""
    found = run.metrics.get("patients")
    if not found:
        return None
    splits = found["splits"]
    rows = [
        {
            "figure": describe(name),
            "cells": [key_figure(name, one["metrics"].get(name, {})) for one in splits.values()],
        }
        for name in SHOWN
        if any(name in one["metrics"] for one in splits.values())
    ]
    return {
        "unit": "patient" if found["unit"] == PATIENT else found["unit"],
        "plural": "patients" if found["unit"] == PATIENT else f"units of the column {found['unit']}",
        "pooling": SAYS[found["pooling"]],
        "heads": [(split_name(name), one["n"]) for name, one in splits.items()],
        "rows": rows,
        "reasons": reasons(rows),
        "poolings": poolings(found),
        "cases": cases(run.patients, split, found["pooling"], multilabel=run.multilabel),
        "notes": [note[:1].upper() + note[1:] for note in found.get("notes", [])],
    }


def poolings(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each pooling with its validation log loss, and balanced accuracy and AUROC on validation and test."""
    known = found.get("poolings") or {}
    return [
        {
            "name": SAYS[how],
            "chosen": how == found["pooling"],
            "cells": [
                key_figure(name, {"value": known.get(split, {}).get(how, {}).get(name)})
                for split, name in (
                    ("val", "log_loss"),
                    ("val", "balanced_accuracy"),
                    ("val", "auroc"),
                    ("test", "balanced_accuracy"),
                    ("test", "auroc"),
                )
            ],
        }
        for how in known.get("val", {})
    ]


def cases(table: pd.DataFrame | None, split: str, pooling: str, *, multilabel: bool) -> dict[str, Any] | None:
    """Units of the split and the image that decided each: wrong answers first, then the most confident."""
    if table is None:
        return None
    rows = table[table["split"] == split]
    if rows.empty:
        return None
    listed = []
    for _, row in rows.iterrows():
        first = str(row["predicted"]).split(";")[0]
        probability = (
            float(row[PREFIX + first])
            if first
            else 1 - max(float(row[name]) for name in rows.columns if name.startswith(PREFIX))
        )
        listed.append(
            {
                "unit": row["unit"],
                "label": readable(row["label"]),
                "predicted": readable(row["predicted"]),
                "right": not any(mistakes(row["label"], row["predicted"], multilabel=multilabel)),
                "probability": probability,
                "images": int(row["images"]),
                "image": row["decided_by"],
                "share": float(row["decided_share"]),
            }
        )
    listed.sort(key=lambda one: (one["right"], -one["probability"], one["unit"]))
    wrong = sum(not one["right"] for one in listed)
    return {"shown": listed[:CASES], "all": len(listed), "wrong": wrong, "weighed": pooling == "attention"}
