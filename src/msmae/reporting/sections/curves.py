"""The report's curves: of results (the commonest classes together, each class alone with its thresholds) and of
training.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from msmae.errors import UserError
from msmae.reporting.headline import key_figure
from msmae.reporting.run_files import RunFiles
from msmae.reporting.wording import describe, number, percentage
from msmae.statistics.predictions import Predictions, to_arrays
from msmae.statistics.reliability import reliability
from msmae.statistics.thresholds import decision_curve, operating_points

TOGETHER = 8
"""Curves in one picture; the commonest classes have it."""
ALONE = 20
"""Classes with pictures of their own, the commonest first."""
RESAMPLES = 500
STAGES = {"pretrain": "Pre-training", "finetune": "Fine-tuning", "segment": "Segmentation"}
SHOWN = ("sensitivity", "specificity", "ppv", "npv")


def curves(run: RunFiles, rows: pd.DataFrame | None, split: str) -> dict[str, Any] | None:
    """ROC, precision-recall and reliability of these predictions, and every class by itself."""
    if rows is None:
        return None
    from msmae.reporting.figures import bands
    from msmae.reporting.figures.curves import (
        BANDED,
        biggest_gap,
        precision_recall_figure,
        reliability_figure,
        roc_figure,
    )

    predictions = to_arrays(rows, classes=run.classes, multilabel=run.multilabel)
    shown = by_frequency(predictions)[:ALONE]
    roc = {name: bands.roc(predictions, of=name, resamples=RESAMPLES) for name in shown}
    rocs = {name: curve for name, curve in roc.items() if curve is not None}
    recall = {name: bands.precision_recall(predictions, of=name, resamples=RESAMPLES) for name in rocs}
    recalls = {name: curve for name, curve in recall.items() if curve is not None}
    together = [name for name in run.classes if name in list(rocs)[:TOGETHER]]
    bins = reliability(predictions)
    stated, seen, images = biggest_gap(bins)
    return {
        "roc": roc_figure({name: rocs[name] for name in together}) if together else None,
        "pr": precision_recall_figure({name: recalls[name] for name in together}) if together else None,
        "reliability": reliability_figure(bins),
        "gap": {"stated": percentage(stated), "seen": percentage(seen), "images": images},
        "banded": len(together) <= BANDED and any(curve.resamples for curve in rocs.values()),
        "together": together,
        "undrawable": [name for name in shown if name not in rocs],
        "crowded_out": len(run.classes) - len(shown),
        "alone": [
            {
                "name": name,
                "figures": [
                    roc_figure({name: rocs[name]}),
                    precision_recall_figure({name: recalls[name]}),
                    *pictures_of_probability(predictions, of=name),
                ],
                "points": points(run, of=name, split=split) if name in together else None,
            }
            for name in run.classes
            if name in rocs
        ],
    }


def pictures_of_probability(predictions: Predictions, *, of: str) -> list[str]:
    """Reliability diagram and decision curve of one class."""
    from msmae.reporting.figures.curves import decision_figure, reliability_figure

    return [
        reliability_figure(reliability(predictions, of=of), of=of),
        decision_figure(decision_curve(predictions, of=of, resamples=RESAMPLES), of=of),
    ]


def points(run: RunFiles, *, of: str, split: str) -> dict[str, Any]:
    """Thresholds for one class chosen on the validation images, and what they do on the images of ``split``; or why
    there are none.
    """
    assert run.predictions is not None
    try:
        found = operating_points(
            run.predictions,
            classes=run.classes,
            of=of,
            sensitivities=(0.95,),
            report=split,
            multilabel=run.multilabel,
            resamples=RESAMPLES,
        )
    except UserError as problem:  # too few validation images of the class: a fact to report, not a reason to stop
        return {"heads": [], "rows": [], "why": str(problem)}
    rules = {"youden": "most sensitivity + specificity", "sensitivity >= 0.95": "at least 95 % found on validation"}
    rows = [
        {
            "rule": rules[point["rule"]],
            "threshold": number(point["threshold"]),
            "cells": [key_figure(name, point[split]["metrics"][name]) for name in SHOWN],
        }
        for point in found
    ]
    return {"heads": [describe(name) for name in SHOWN], "rows": rows, "why": ""}


def by_frequency(predictions: Predictions) -> list[str]:
    """The classes, the commonest first."""
    counts = dict(zip(predictions.classes, predictions.truth.sum(axis=0).tolist(), strict=True))
    return sorted(predictions.classes, key=lambda name: -counts[name])


def training(run: RunFiles) -> list[dict[str, Any]]:
    """For each stage its name and its figures."""
    from msmae.reporting.figures.training import by_panel, training_figure

    stages = []
    for stage, log in run.logs.items():
        name = STAGES.get(stage, stage)
        drawn = [training_figure(quantity, series, stage=name) for quantity, series in by_panel(log).items()]
        stages.append({"name": name, "figures": drawn})
    return stages
