"""Predictions drawn from a known model, for the tests of `msmae.evidence`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmae.statistics.predictions import Predictions


def draw(
    generator: np.random.Generator,
    *,
    patients: int,
    images_each: int = 1,
    classes: int = 2,
    alike: float = 0.0,
    separation: float = 1.5,
    sureness: float = 1.0,
) -> Predictions:
    """Scores are normal around the true class; images of a patient share their class and the share ``alike`` of
    their noise.

    The probabilities are the true ones when ``sureness`` is 1 and ``alike`` 0, and too sure above 1.
    """
    n = patients * images_each
    prior = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    label = np.repeat(generator.choice(classes, patients, p=prior), images_each)
    shared = np.repeat(generator.normal(size=(patients, classes)), images_each, axis=0)
    score = np.sqrt(1 - alike) * generator.normal(size=(n, classes)) + np.sqrt(alike) * shared
    score[np.arange(n), label] += separation
    odds = np.exp(sureness * (separation * score + np.log(prior)))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return of(label, probabilities, patients=np.repeat(np.arange(patients), images_each))


def of(label: np.ndarray, probabilities: np.ndarray, *, patients: np.ndarray | None = None) -> Predictions:
    """Single-label predictions, the likeliest class predicted."""
    n, classes = probabilities.shape
    patients = np.arange(n) if patients is None else patients
    return Predictions(
        classes=tuple(f"c{c}" for c in range(classes)),
        truth=np.eye(classes, dtype=bool)[label],
        predicted=np.eye(classes, dtype=bool)[probabilities.argmax(axis=1)],
        probabilities=probabilities,
        patients=patients,
        patient_names=np.array([f"p{p:05}" for p in range(int(patients.max()) + 1)], dtype=object),
        multilabel=False,
    )


def as_frame(predictions: Predictions, *, split: str = "test") -> pd.DataFrame:
    """The same predictions as rows of ``predictions.csv``."""

    def text(flags: np.ndarray) -> list[str]:
        return [";".join(np.array(predictions.classes)[row]) for row in flags]

    return pd.DataFrame(
        {
            "image_path": [f"{split}/{i:05}.png" for i in range(predictions.images)],
            "patient_id": predictions.patient_names[predictions.patients].astype(str),
            "split": split,
            "label": text(predictions.truth),
            "predicted": text(predictions.predicted),
            **{f"prob_{name}": predictions.probabilities[:, c] for c, name in enumerate(predictions.classes)},
        }
    )
