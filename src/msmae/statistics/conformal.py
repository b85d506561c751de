"""Split conformal sets: the classes that a chosen coverage needs (Sadinle, Lei & Wasserman 2019; least ambiguous sets).

On images that neither trained nor calibrated the model the true class is in the set at least as often as the coverage
says, whatever the model is worth, as long as new images are like the validation images.
"""

from __future__ import annotations

import math

import numpy as np


def conformal_level(probabilities: np.ndarray, truth: np.ndarray, *, coverage: float = 0.9) -> float:
    """The least probability with which a class belongs to the set: in [0, 1].

    Args:
        probabilities: [n, C] of the validation images.
        truth: [n] their classes, whole numbers.
        coverage: share of new images whose set is to hold the true class, in (0, 1).

    Returns:
        1 - the ceil((n + 1) coverage)-th smallest of 1 - p(true class); 0 (every class belongs) where the images are
        too few for the coverage.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage of {coverage}: give a share between 0 and 1")
    scores = 1 - probabilities[np.arange(len(truth)), truth]
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return 0.0 if rank > len(scores) else float(1 - np.sort(scores)[rank - 1])


def conformal_level_several(probabilities: np.ndarray, truth: np.ndarray, *, coverage: float = 0.9) -> float:
    """The same where an image may have several classes, or none: truth is bool [n, C], and a set covers an image when
    it holds all of its classes. An image without a class is always covered.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage of {coverage}: give a share between 0 and 1")
    scores = 1 - np.where(truth, probabilities, 1.0).min(axis=1)
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return 0.0 if rank > len(scores) else float(1 - np.sort(scores)[rank - 1])


def conformal_sets(probabilities: np.ndarray, level: float) -> np.ndarray:
    """bool [n, C]: the classes of at least this probability, and always the likeliest."""
    tiny = 1e-12  # the image that set the level belongs to its own set
    likeliest = probabilities == probabilities.max(axis=1, keepdims=True)
    return np.asarray((probabilities >= level - tiny) | likeliest)
