"""Labels to check: the images whose given label the model believes least.

An image is *contradicted* when the model is as sure of another class as it is, on average, of images that carry that
label (confident learning, Northcutt et al., arXiv 1911.00068). That is no proof: a person must look.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from msmae.statistics.predictions import identity_columns, to_arrays

LISTED = 20
SPLITS = ("val", "test", "external", "internal")
"""Splits that the model did not train on."""


def labels_to_check(
    frame: pd.DataFrame, *, classes: Sequence[str], multilabel: bool, at_least: int = LISTED
) -> pd.DataFrame:
    """Labelled images of the splits that were not trained on, the least believed label first.

    Columns: those that name the image, ``patient_id``, ``split``, ``label``, ``probability`` (that the model gives the
    label), ``suggested`` and ``suggested_probability``, ``contradicted`` (yes or no). With several labels per image the
    label is one class, present (``a``) or absent (``not a``), the one believed least. All contradicted labels are
    listed, and ``at_least`` so many.
    """
    rows = frame[frame["split"].isin(SPLITS) & (frame["label"] != "")].reset_index(drop=True)
    names = [*identity_columns(frame), "patient_id", "split"]
    if rows.empty:
        further = ["label", "probability", "suggested", "suggested_probability", "contradicted"]
        return pd.DataFrame(columns=[*names, *further])
    arrays = to_arrays(rows, classes=classes, multilabel=multilabel)
    found = (
        _several(arrays.probabilities, arrays.truth, arrays.judged, list(classes))
        if multilabel
        else _single(arrays.probabilities, arrays.truth, list(classes))
    )
    table = rows[names].assign(**found)
    table = table.sort_values(["probability", *identity_columns(frame)], kind="stable")
    shown = max(at_least, int((table["contradicted"] == "yes").sum()))
    first = table["contradicted"] == "yes"
    return pd.concat([table[first], table[~first]]).head(shown).reset_index(drop=True)


def _single(probabilities: np.ndarray, truth: np.ndarray, classes: list[str]) -> dict[str, np.ndarray]:
    """One label an image: probabilities [n, C], truth bool [n, C]."""
    given = truth.argmax(axis=1)
    every = np.arange(len(given))
    others = np.where(truth, -1.0, probabilities)
    other = others.argmax(axis=1)
    usual = np.array([probabilities[truth[:, c], c].mean() if truth[:, c].any() else 1.0 for c in range(len(classes))])
    contradicted = (others[every, other] >= usual[other]) & (others[every, other] > probabilities[every, given])
    names = np.array(classes, dtype=object)
    return {
        "label": names[given],
        "probability": probabilities[every, given],
        "suggested": names[other],
        "suggested_probability": others[every, other],
        "contradicted": np.where(contradicted, "yes", "no"),
    }


def _several(
    probabilities: np.ndarray, truth: np.ndarray, known: np.ndarray, classes: list[str]
) -> dict[str, np.ndarray]:
    """Several labels per image: each class that is ``known`` of it is a question of its own, present or absent."""
    believed = np.where(truth, probabilities, 1 - probabilities)  # [n, C]
    worst = np.where(known, believed, np.inf).argmin(axis=1)
    every = np.arange(len(worst))
    present = truth[every, worst]
    usual = {
        (c, flag): believed[asked, c].mean() if (asked := known[:, c] & (truth[:, c] == flag)).any() else 1.0
        for c in range(len(classes))
        for flag in (False, True)
    }
    against = 1 - believed[every, worst]
    level = np.array([usual[c, not flag] for c, flag in zip(worst.tolist(), present.tolist(), strict=True)])
    pairs = [(classes[c], f"not {classes[c]}")[:: 1 if flag else -1] for c, flag in zip(worst, present, strict=True)]
    label, suggested = zip(*pairs, strict=True)
    return {
        "label": np.array(label, dtype=object),
        "probability": believed[every, worst],
        "suggested": np.array(suggested, dtype=object),
        "suggested_probability": against,
        "contradicted": np.where((against >= level) & (against > 0.5), "yes", "no"),
    }
