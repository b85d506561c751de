"""From probabilities to answers: the two rules by which a classifier names the classes of an image.

- *plain*: the class with the largest calibrated probability; several labels per image: each class above 0.5. A class
  may have a threshold of its own instead. Right most often.
- *balanced*: the class with the largest probability before calibration; of several labels, each above 0.5. Where
  training gave rare classes more weight, that is the class that would be most probable if all classes were equally
  common. It finds more of the rare classes, at the price of false alarms, and has the best balanced accuracy.

The two are the same where training weighed the classes as they came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from msmae.errors import UserError
from msmae.statistics.predictions import PREFIX, class_index

Rule = Literal["plain", "balanced"]
RULES: tuple[Rule, ...] = ("plain", "balanced")
DEFAULT: Rule = "plain"
PLAIN = "predicted_plain"
"""The column of predictions.csv with the plain answers; ``predicted`` holds the balanced ones."""
OF_PROBABILITIES = frozenset(
    {"auroc", "auprc", "auroc_micro", "auprc_micro", "brier", "log_loss", "ece", "prevalence"}
    | {"calibration_slope", "calibration_intercept", "n"}
)
"""Metrics that do not depend on the rule."""


def name_classes(
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    multilabel: bool,
    thresholds: Mapping[str, float] | None = None,
) -> list[str]:
    """The answer for each image from probabilities [n, C]; several labels are joined by ``;``.

    ``thresholds``: class -> probability from which it is answered. One label an image: of the classes that reach their
    threshold, the one that exceeds it most in proportion; where none does, the likeliest class without a threshold
    (where every class has one, the likeliest).
    """
    at = np.full(len(classes), np.nan)
    for name, threshold in (thresholds or {}).items():
        at[class_index(classes, name)] = check_threshold(name, threshold)
    if multilabel:
        called = np.where(np.isnan(at), probabilities > 0.5, probabilities >= at)
        return [";".join(name for name, yes in zip(classes, row, strict=True) if yes) or ";" for row in called]
    reached = np.where(probabilities >= at, probabilities / at, -np.inf)  # [n, C]; nan compares false
    others = probabilities if not np.isnan(at).any() else np.where(np.isnan(at), probabilities, -np.inf)
    others = probabilities if np.isinf(others).all() else others
    chosen = np.where(np.isinf(reached).all(axis=1), others.argmax(axis=1), reached.argmax(axis=1))
    return [classes[place] for place in chosen]


def check_threshold(name: str, threshold: float) -> float:
    """The threshold; raises UserError unless it is above 0 and at most 1."""
    if not 0 < threshold <= 1:
        raise UserError(
            f"the threshold of {name} is {threshold:g}", where="--threshold", mend=f"give a probability: {name}=0.3"
        )
    return float(threshold)


def with_plain(
    frame: pd.DataFrame,
    classes: Sequence[str],
    *,
    multilabel: bool,
    thresholds: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """The frame of calibrated predictions with their plain answers, as ``predicted_plain``; ``answers`` says of which
    rule ``predicted`` is."""
    probabilities = frame[[PREFIX + name for name in classes]].to_numpy(dtype=np.float64)
    answers = name_classes(probabilities, classes, multilabel=multilabel, thresholds=thresholds)
    return frame.assign(**{"answers": "balanced", PLAIN: answers})


def say_rule(rule: str, thresholds: Mapping[str, float] | None = None) -> str:
    """The rule as a person reads it, for a line or a cell: ``plain``, ``plain; malignant from 0.3``."""
    limits = ", ".join(f"{name} from {threshold:g}" for name, threshold in (thresholds or {}).items())
    return f"{rule}; {limits}" if rule == "plain" and limits else rule


def say_averaged(models: int, *, mirrored: bool) -> str:
    """What answers are the mean of, in a few words; empty where they are of one model and the image alone."""
    several = f"mean of {models} models" if models > 1 else ""
    if not mirrored:
        return several
    return f"{several or 'mean'}{' and' if several else ' over'} image and mirror image"


def read_thresholds(text: str, classes: Sequence[str]) -> dict[str, float]:
    """``malignant=0.3, normal=0.6`` as a mapping; ``none`` is an empty one. Raises UserError for anything else."""
    if text.strip() == "none":
        return {}
    found = {}
    known = "|".join(re.escape(name) for name in classes)
    for piece in re.findall(rf"\s*(?:{known})\s*=[^,]*|[^,]+", text) or [text]:  # a class's name may hold a comma
        name, _, number = (part.strip() for part in piece.rpartition("="))
        try:
            threshold = float(number)
        except ValueError:
            raise UserError(f"{piece!r} is no threshold", where="--threshold", mend="say CLASS=0.3") from None
        class_index(classes, name)
        found[name] = check_threshold(name, threshold)
    return found
