"""Arms x seeds -> the table of a comparison: means, paired differences, and p-values corrected for how many were
asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from msmae.errors import UserError
from msmae.statistics.paired import matched, resample_together
from msmae.statistics.seeds import difference_over_seeds, mean_over_seeds

PRIMARY = ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1_macro", "mcc", "kappa", "brier", "ece")


def compare_arms(
    arms: Mapping[str, Sequence[pd.DataFrame]],
    *,
    classes: Sequence[str],
    pairs: Sequence[tuple[str, str]] | None = None,
    metrics: Sequence[str] = PRIMARY,
    split: str = "test",
    resamples: int = 2000,
    seed: int = 0,
    ordinal: bool = False,
    multilabel: bool | None = None,
) -> dict[str, Any]:
    """Compare arms, each a sequence of predictions frames, one a seed; frames at equal places share their seed and
    test images.

    For cross-validation, give the folds of a seed joined into one frame: every image predicted once. ``pairs`` are
    the differences asked (first minus second), by default every arm against every later one. Returns ``{"n",
    "patients", "unnamed", "seeds", "arms": {arm: {metric: entry}}, "differences": [{"first", "second", "metrics":
    {metric: entry}}]}`` ("n": images of one seed; "unnamed": those that name no patient, each counted as one) with the
    entries of `mean_over_seeds` and `difference_over_seeds`, and in the latter ``"p_holm"``: corrected over all pairs,
    for each metric by itself. Raises UserError for arms of
    different seeds, test images or labels.
    """
    names = list(arms)
    counts = {name: len(frames) for name, frames in arms.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise UserError(f"the arms have different numbers of seeds: {counts}", mend="finish the missing runs")
    pairs = list(combinations(names, 2)) if pairs is None else pairs
    unknown = sorted({name for pair in pairs for name in pair} - set(names))
    if unknown:
        raise UserError(f"there is no arm {', '.join(unknown)}", mend=f"choose from {', '.join(names)}")

    seeds = counts[names[0]]
    runs = [
        run
        for place in range(seeds)
        for run in matched(
            [arms[name][place] for name in names], classes=classes, split=split, multilabel=multilabel, names=names
        )
    ]
    resampled = resample_together(runs, resamples=resamples, seed=seed, ordinal=ordinal)
    of_arm = {name: resampled[number :: len(names)] for number, name in enumerate(names)}
    unknown = sorted(set(metrics) - set(resampled[0].value.overall))
    if unknown:
        raise UserError(f"no metric {', '.join(unknown)}", mend=f"choose from {', '.join(resampled[0].value.overall)}")
    differences: list[dict[str, Any]] = [
        {
            "first": a,
            "second": b,
            "metrics": {name: difference_over_seeds(of_arm[a], of_arm[b], name) for name in metrics},
        }
        for a, b in pairs
    ]
    return {
        "n": runs[0].images,
        "patients": resampled[0].patients,
        "unnamed": unnamed(arms[names[0]][0], split=split),
        "seeds": seeds,
        "arms": {arm: {name: mean_over_seeds(of_arm[arm], name) for name in metrics} for arm in names},
        "differences": as_family(differences),
    }


def as_family(differences: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same differences with ``"p_holm"``: each p-value corrected for how many pairs there are, each metric by
    itself.
    """
    family = [
        {**pair, "metrics": {name: dict(entry) for name, entry in pair["metrics"].items()}} for pair in differences
    ]
    for name in family[0]["metrics"] if family else ():
        corrected = holm([pair["metrics"][name]["p_value"] for pair in family])
        for pair, p_value in zip(family, corrected, strict=True):
            pair["metrics"][name]["p_holm"] = p_value
    return family


def unnamed(predictions: pd.DataFrame, *, split: str) -> int:
    """Labelled images of a split that name no patient: each stands for itself."""
    asked = predictions[(predictions["split"] == split) & (predictions["label"] != "")]
    return int((asked["patient_id"] == "").sum())


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down correction: each p-value as if it were the only one asked. None (no test) stays None,
    uncounted.
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for done, (p, place) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, p * (len(known) - done)))
        corrected[place] = largest
    return corrected
