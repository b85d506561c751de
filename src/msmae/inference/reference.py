"""What a model's own images look like to it: how far a new image is from the training images, and which are nearest.

The distance is one minus the mean cosine to the five nearest training images, by the features that the head reads. The
threshold is the distance that one in a hundred images like the validation images exceeds; of fewer than 99 validation
images it is their largest, and of fewer than 20 there is none. Of a large run 5,000 training and 1,000 validation
images stand for all.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msmae.data.manifest import SEPARATOR, Manifest, read_manifest
from msmae.data.reading.decoding import image_sources
from msmae.data.reading.images import Reading, load_image
from msmae.data.tables.listing import count
from msmae.errors import UserError
from msmae.inference.features import cached
from msmae.inference.model import Model, kept_tokens, own_way
from msmae.progress import ProgressBar
from msmae.runs.checkpoint import file_sha256

TRAINING, VALIDATION = 5000, 1000
NEAREST = 5
FARTHEST = 0.99
"""Share of images like the validation images that lie within the threshold, where there are enough of them."""
FEWEST = 20
"""Validation images that a threshold needs: the largest distance of n is exceeded by 1 in n + 1 images like them."""
BATCH = 64


@dataclass(frozen=True)
class Reference:
    """Features of training images, each of length 1, and what names them."""

    features: np.ndarray
    """float32 [n, D]."""
    names: list[str]
    """Path of each, as the run's manifest has it."""
    labels: list[str]
    """Of each; several of one image are joined by a comma (``one_piece``)."""
    threshold: float | None
    """None: fewer than ``FEWEST`` validation images can be read."""
    validation: int
    """Validation images that the threshold comes from."""

    def says(self) -> str:
        """What the flag ``unlike_training`` rests on, or why it is left out, in a sentence."""
        known = count(self.validation, "validation image")
        if self.threshold is None:
            return (
                f"unlike_training is left out: it needs {FEWEST} validation images, and the run has {self.validation}"
            )
        often = min(round(1 / (1 - FARTHEST)), self.validation + 1)
        told = f"about 1 in {often} ordinary images exceeds it"
        return f"unlike_training: a distance above {self.threshold:.4f} ({known}); {told}"

    def distances(self, features: np.ndarray) -> np.ndarray:
        """How far images with these features [m, D] are from the training images: [m] in 0..2."""
        return distances(features, self.features)

    def nearest(self, features: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``number`` nearest training images of each: their places [m, number] and cosines, nearest first."""
        cosines = unit(features) @ self.features.T  # [m, n]
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :number]
        return order, np.take_along_axis(cosines, order, axis=1)


def modalities_of(run: Path) -> frozenset[str]:
    """The modalities of a run's training images; empty where its manifest names none."""
    table = read_manifest(run / "manifest.csv").table
    return frozenset(table["modality"][table["split"] == "train"]) - {""} if "modality" in table else frozenset()


def reference_of(run: Path, model: Model) -> Reference:
    """The reference of a run, computed once for a model and its manifest, and kept in the cache where no image's file
    was missing: it may be there next time.

    Raises:
        UserError: the run has no manifest, or none of its training images is where the manifest says.
    """
    path = run / "manifest.csv"
    if not path.is_file():
        mend = "leave out --flags and --neighbours, which compare with the training images"
        raise UserError("the run has no manifest.csv", where=str(run), mend=mend)
    manifest = read_manifest(path)
    train, val = some_of(manifest.ids("train"), TRAINING), some_of(manifest.ids("val"), VALIDATION)
    rows = np.concatenate([train, val])
    weights = run / "model" / "model.safetensors"
    key = hashlib.sha256(path.read_bytes() + file_sha256(weights).encode()).hexdigest()[:24]

    def lasts(made: np.ndarray) -> bool:
        return all(manifest.path(row).exists() for row in rows[~np.isfinite(made).all(axis=1)].tolist())

    name = f"reference-2-{key}.npy"
    found = cached(name, lambda: read_features(model, manifest, rows), lasts=lasts)  # [n, D], NaN: not readable
    there = np.isfinite(found).all(axis=1)
    known, held = there[: len(train)], there[len(train) :]
    if not known.any():
        mend = "leave out --flags and --neighbours"
        raise UserError("none of the training images is where the manifest says", where=str(path), mend=mend)
    features = unit(found[: len(train)][known])
    far = distances(found[len(train) :][held], features) if held.sum() >= FEWEST else None
    table = manifest.table.loc[train[known]]
    return Reference(
        features,
        table["image_path"].tolist(),
        [one_piece(label) for label in table["label"]],
        None if far is None else threshold_of(far),
        int(held.sum()),
    )


def one_piece(label: str) -> str:
    """A label without the sign that joins the labels of several images: ``a;b`` is ``a, b``, and ``;`` is ``none``."""
    return ", ".join(filter(None, label.split(SEPARATOR))) or "none" if SEPARATOR in label else label


def threshold_of(far: np.ndarray) -> float:
    """The distance of the validation images [n] that a new image like them exceeds once in a hundred times at most;
    the largest where n is too small for that."""
    rank = min(len(far), math.ceil(FARTHEST * (len(far) + 1)))
    return float(np.sort(far)[rank - 1])


def read_features(model: Model, manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """Features float32 [n, D] of images of a manifest; NaN where one cannot be read."""
    sources = image_sources(manifest)
    card, reading = model.card, Reading(**model.card.reading)
    found = np.full((len(rows), features_width(model)), np.nan, dtype=np.float32)
    with ProgressBar("reading training images") as progress:
        for start in range(0, len(rows), BATCH):
            places, images = [], []
            for place in range(start, min(start + BATCH, len(rows))):
                source = sources[int(rows[place])]
                try:
                    images.append(load_image(source, size=card.image_size, channels=card.channels, reading=reading))
                except UserError:
                    continue
                places.append(place)
            if places:
                pixels = torch.from_numpy(np.stack(images).astype(np.float32))
                found[places] = answer_with_features(model, pixels)[1]
            progress(min(start + BATCH, len(rows)), len(rows))
    return found


@torch.inference_mode()
def answer_with_features(model: Model, images: Tensor) -> tuple[Tensor, np.ndarray]:
    """The network's own probabilities [B, C] from all patches, as ``Model.predict`` gives them, and the features
    float32 [B, D] that they come from: what stands for the image (with ``pool`` "mean" the mean of the patches).
    """
    network = model.selection("all").model
    logits, tokens = network.answer(model.to_scale(images))  # [B, classes], [B, 1+N, D]
    logits = logits.float()
    probabilities = (logits.sigmoid() if model.card.multilabel else logits.softmax(dim=1)).cpu()
    read = tokens[:, 1:].mean(dim=1) if network.pool == "mean" else tokens[:, 0]
    return probabilities, read.float().cpu().numpy()


@torch.inference_mode()
def own_tokens(model: Model, images: Tensor) -> Tensor:
    """The tokens [B, 1+K, D] that the classifier reads of images [B, C, H, W] in the files' own units, in the model's
    own way."""
    share, name = own_way(model.card)
    selection = model.selection(name)
    scaled = model.to_scale(images)
    return selection.tokens(scaled, selection.choose(scaled, kept_tokens(selection, share) - selection.coarse))


def features_width(model: Model) -> int:
    return model.card.width


def distances(features: np.ndarray, among: np.ndarray) -> np.ndarray:
    """One minus the mean cosine of each [m, D] to its nearest among [n, D] of length 1: [m]."""
    nearest = min(NEAREST, len(among))
    parts = []
    for start in range(0, len(features), 256):
        cosines = unit(features[start : start + 256]) @ among.T
        parts.append(1 - np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1))
    return np.concatenate(parts) if parts else np.zeros(0)


def some_of(ids: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly spread."""
    return ids if len(ids) <= most else ids[np.linspace(0, len(ids) - 1, most).astype(int)]


def unit(rows: np.ndarray) -> np.ndarray:
    """[n, D], each row brought to length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
