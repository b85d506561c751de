"""The rows of predictions.csv for a batch: answers, and what was asked for beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor

from msmae.data.reading.headers import read_headers
from msmae.inference.items import Item
from msmae.inference.model import Model, share_and_selector
from msmae.inference.reference import Reference, answer_with_features
from msmae.inference.sets import Sets
from msmae.statistics.answers import Rule, say_rule
from msmae.statistics.predictions import PREFIX

FLAGS = {
    "unlike_training": "Farther from the training images than nearly all validation images (left out where too few).",
    "doubtful": "No class reaches the level of the conformal sets.",
    "flat": "The image is almost one grey level.",
    "unusual_brightness": "The image is far brighter or darker than the training images.",
    "other_modality": "A DICOM header names a modality that no training image has.",
}


@dataclass(frozen=True)
class Rows:
    """How a batch becomes rows."""

    model: Model
    keep: float | Literal["auto"]
    selector: str | None
    answers: Rule
    sets: Sets | None = None
    reference: Reference | None = None
    flags: bool = False
    neighbours: int = 0
    planes: tuple[str, ...] = ()
    """The columns that name a plane, of all images that are predicted: ``inference.items.planes_of``."""
    unit: str = ""
    """The column of an item's unit, where some have one."""
    modalities: frozenset[str] = frozenset()
    """Of the training images, where they are DICOM; empty: not known."""

    def __call__(self, items: list[Item], images: Tensor) -> pd.DataFrame:
        """Images [B, C, H, W] in the files' own units, of the model's size -> one row each."""
        model, card = self.model, self.model.card
        share, chosen_by = share_and_selector(model, self.keep, self.selector)
        features = None
        if self.reference is None:
            own = model.predict(images, self.keep, selector=self.selector, calibrated=False)
        else:
            own, features = answer_with_features(model, images)
            if chosen_by != "all":
                own = model.predict(images, self.keep, selector=self.selector, calibrated=False)
        probabilities = model.calibrate(own, share, chosen_by).double().numpy()
        frame = pd.DataFrame({"image_path": [item.source.path for item in items]})
        for name in self.planes:
            values = [getattr(item.source.plane, name) for item in items]
            frame[name] = ["" if value is None else str(value) for value in values]
        for name in ("patient_id", "split", "label"):
            frame[name] = [getattr(item, name) for item in items]
        if self.unit:
            frame[self.unit] = [item.unit for item in items]
        frame["predicted"] = model.answer(own, share, chosen_by, answers=self.answers)
        frame["answers"] = say_rule(self.answers, card.thresholds)
        for number, name in enumerate(model.classes):
            frame[PREFIX + name] = probabilities[:, number]
        if self.sets is not None:
            frame["set"] = self.sets.of(probabilities, model.classes, multilabel=card.multilabel)
        if self.flags:
            other = self.of_other_modality([item.source.path for item in items])
            frame["flags"] = self.flags_of(images.numpy(), probabilities, features, other)
        if self.flags and self.reference is not None and features is not None:
            frame["distance"] = np.round(self.reference.distances(features), 5)
        if self.neighbours and self.reference is not None and features is not None:
            self.add_neighbours(frame, features)
        return frame

    def of_other_modality(self, paths: list[str]) -> np.ndarray:
        """bool [B]: the header names a modality that no training image has; False where either is not known."""
        known = read_headers([Path(path) for path in paths])["modality"] if self.modalities else [""] * len(paths)
        return np.array([bool(name) and name not in self.modalities for name in known], dtype=bool)

    def flags_of(
        self, images: np.ndarray, probabilities: np.ndarray, features: np.ndarray | None, other: np.ndarray
    ) -> list[str]:
        """Codes of ``FLAGS`` for each image, joined by ``;``."""
        card = self.model.card
        values = images.reshape(*images.shape[:2], -1).astype(np.float64)  # [B, C, H*W]
        mean, spread = np.array(card.usual[0]), np.maximum(np.array(card.usual[1]), 1e-12)
        off = np.zeros(len(images), dtype=bool)
        far, doubtful = off, off
        if self.reference is not None and features is not None and self.reference.threshold is not None:
            far = self.reference.distances(features) > self.reference.threshold
        if self.sets is not None:
            doubtful = probabilities.max(axis=1) < self.sets.level
        held = {
            "unlike_training": far,
            "doubtful": doubtful,
            "flat": (values.std(axis=2) < spread / 20).all(axis=1),
            "unusual_brightness": (np.abs(values.mean(axis=2) - mean) > 2.5 * spread).any(axis=1),
            "other_modality": other,
        }
        return [";".join(name for name, flags in held.items() if flags[row]) for row in range(len(images))]

    def add_neighbours(self, frame: pd.DataFrame, features: np.ndarray) -> None:
        """Paths, labels and cosines of the nearest training images, each joined by ``;``."""
        assert self.reference is not None
        order, cosines = self.reference.nearest(features, self.neighbours)
        for column, cells in (
            ("neighbours", self.reference.names),
            ("neighbour_labels", self.reference.labels),
        ):
            frame[column] = [";".join(cells[place] for place in row) for row in order]
        frame["neighbour_cosines"] = [";".join(f"{value:.4f}" for value in row) for row in cosines]
