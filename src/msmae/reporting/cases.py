"""Single cases: which images the model got wrong and how sure it was, and where it looked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmae.reporting.run_files import Panel
from msmae.statistics.predictions import PREFIX, UNSURE, image_names, mistakes

NO_LABEL = "none of the classes"


@dataclass(frozen=True)
class Failure:
    """A wrong prediction."""

    image_path: str
    """And of a volume or a film the plane (``image_names``)."""
    patient_id: str
    label: str
    predicted: str
    confidence: float
    """What the model gave its answer; for several labels the probability of its worst mistake."""
    true_probability: float | None
    """What it gave the right answer; None for several labels."""
    panel: Panel | None


def failures(
    rows: pd.DataFrame, *, classes: tuple[str, ...], multilabel: bool, panels: tuple[Panel, ...]
) -> list[Failure]:
    """All wrong predictions among labelled rows of one split, the surest first."""
    known = rows[rows["label"] != ""]
    probabilities = known[[PREFIX + name for name in classes]].to_numpy(dtype=np.float64)  # [n, C]
    pictures = {panel.image_path: panel for panel in panels}
    found = []
    cells = known[["patient_id", "label", "predicted"]].to_numpy(dtype=object)
    for image_path, (patient_id, label, predicted), given in zip(image_names(known), cells, probabilities, strict=True):
        missed, added = mistakes(label, predicted, multilabel=multilabel)
        if not missed and not added:
            continue
        chance = dict(zip(classes, given.tolist(), strict=True))
        if multilabel:
            confidence = max([chance[c] for c in added] + [1 - chance[c] for c in missed])
        else:
            confidence = chance[predicted]
        found.append(
            Failure(
                image_path=image_path,
                patient_id=patient_id,
                label=readable(label),
                predicted=readable(predicted),
                confidence=confidence,
                true_probability=None if multilabel else chance[label],
                panel=pictures.get(image_path),
            )
        )
    return sorted(found, key=lambda failure: (-failure.confidence, failure.image_path))


def sort_panels(panels: tuple[Panel, ...], *, classes: int) -> dict[str, list[Panel]]:
    """Panels by outcome (wrong, uncertain, right, unknown), the surest first; kinds without panels are left out."""
    kinds: dict[str, list[Panel]] = {"wrong": [], "uncertain": [], "right": [], "unknown": []}
    for panel in panels:
        kinds[outcome(panel, classes=classes)].append(panel)
    for members in kinds.values():
        members.sort(key=lambda panel: -(panel.probability or 0))
    return {kind: members for kind, members in kinds.items() if members}


def outcome(panel: Panel, *, classes: int) -> str:
    """What the run says of the case; else wrong, right, or uncertain: right with less than half of the confidence
    above guessing.
    """
    if panel.kind in ("wrong", "uncertain", "right"):
        return panel.kind
    if not panel.label or not panel.predicted:
        return "unknown"
    if any(mistakes(panel.label, panel.predicted, multilabel=";" in panel.label + panel.predicted)):
        return "wrong"
    unsure = panel.probability is not None and panel.probability < (1 + 1 / max(classes, 2)) / 2
    return "uncertain" if unsure else "right"


def confusion(rows: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """int64 [C, C]: images of each true class (row) given each answer (column); labelled single-label rows."""
    place = {name: number for number, name in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), dtype=np.int64)
    known = rows[rows["label"] != ""]
    np.add.at(table, (known["label"].map(place).to_numpy(int), known["predicted"].map(place).to_numpy(int)), 1)
    return table


def readable(labels: str) -> str:
    """``a;b`` -> a, b; the label that names nothing -> "none of the classes"."""
    known = [piece for piece in labels.split(";") if piece and not piece.strip().startswith(UNSURE)]
    return ", ".join(known) or NO_LABEL
