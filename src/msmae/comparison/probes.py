"""Cheap columns of a comparison: the test images predicted without fine-tuning, and from a quarter of the patches.

``linear_probe`` is a logistic regression on the frozen pre-trained features, its strength chosen on validation; ``knn``
lets the 20 nearest training images vote, weighted by the cosine (Wu et al., arXiv 1805.01978); ``quarter`` is the
fine-tuned model looking at the patches that its own attention ranks first; a probe has no such column.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from msmae.comparison.baselines import fetched
from msmae.encoders.neighbours import NeighbourVote
from msmae.evaluation.evaluate import predict_rows, predictions_frame
from msmae.inference.model import load
from msmae.method.msmae import MSMAE, pooled
from msmae.runs.checkpoint import load_model
from msmae.statistics.predictions import write_predictions
from msmae.training.prepare import Prepared

STRENGTHS = (0.01, 0.1, 1.0, 10.0)


def write_columns(prepared: Prepared, run: Path) -> None:
    """Write RUN/predictions_<column>.csv of the test split, as far as the run's arm has the column and it is not
    there."""
    test = prepared.ids("test")

    def lacks(column: str) -> bool:
        return not (run / f"predictions_{column}.csv").is_file()

    def write(column: str, probabilities: np.ndarray) -> None:
        frame = predictions_frame(probabilities, prepared, test)
        write_predictions(frame, run / f"predictions_{column}.csv")

    if lacks("quarter") and not prepared.arm.frozen:
        model = load(run)
        model.warned = True  # nobody asked for fewer patches; the page says what this column is
        write("quarter", predict_rows(model, prepared, test, keep=0.25, selector="self"))
    if prepared.arm.pretrains and not prepared.manifest.multilabel and (lacks("linear_probe") or lacks("knn")):
        known = {split: features(prepared, run, prepared.ids(split)) for split in ("train", "val", "test")}
        write("linear_probe", linear_probe(prepared, known))
        write("knn", nearest_neighbours(prepared, known))


@torch.inference_mode()
def features(prepared: Prepared, run: Path, ids: np.ndarray) -> np.ndarray:
    """What the pre-trained encoder says of whole images: [n, D]."""
    model, card = load_model(run / "pretrained")
    assert isinstance(model, MSMAE)
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (card.mean, card.std))
    parts = [pooled(model.encoder((images - mean) / std), card.pool) for images in fetched(prepared, ids)]
    return torch.cat(parts).numpy()


def linear_probe(prepared: Prepared, known: dict[str, np.ndarray]) -> np.ndarray:
    """Probabilities [n, C] of the test images by logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = {split: prepared.targets[prepared.ids(split)] for split in ("train", "val")}
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")).fit(
            known["train"], labels["train"]
        )
        for strength in STRENGTHS
    ]
    best = max(probes, key=lambda probe: balanced_accuracy_score(labels["val"], probe.predict(known["val"])))
    found = np.zeros((len(known["test"]), len(prepared.manifest.classes)))
    found[:, best[-1].classes_] = best.predict_proba(known["test"])
    return np.asarray(found / found.sum(axis=1, keepdims=True))


@torch.inference_mode()
def nearest_neighbours(prepared: Prepared, known: dict[str, np.ndarray]) -> np.ndarray:
    """Probabilities [n, C] of the test images by a vote of the nearest training images."""
    features, classes = torch.from_numpy(known["train"]), len(prepared.manifest.classes)
    vote = NeighbourVote(len(features), features.shape[1], classes, several=False)
    vote.remember(features, torch.from_numpy(prepared.targets[prepared.ids("train")]), torch.ones(classes))
    queries = torch.split(torch.from_numpy(known["test"]), 256)
    return torch.cat([vote(some).double().softmax(dim=1) for some in queries]).numpy()
