"""RUN/neighbours.csv: for each validation and test image the training images that look most like it to the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from msmae.files import fill_csv, whole
from msmae.inference.model import Model
from msmae.inference.reference import answer_with_features, reference_of
from msmae.reporting.report import write_report
from msmae.statistics.predictions import identity_columns
from msmae.training.prepare import Prepared


def write_neighbours(run: Path, model: Model, prepared: Prepared, count: int) -> Path:
    """Write the ``count`` nearest training images of each predicted image, and the report anew, which shows those of
    wrong answers. Columns: those that name the image, ``neighbours``, ``neighbour_labels``, ``neighbour_cosines``.

    Raises:
        UserError: the run has no manifest, or none of its training images can be read.
    """
    rows, parts = np.concatenate([prepared.ids("val"), prepared.ids("test")]), []
    reference = reference_of(run, model)
    manifest = prepared.manifest
    frame = manifest.table.assign(image_path=manifest.names).loc[rows].reset_index(drop=True)
    for start in range(0, len(rows), 256):
        images = prepared.store.fetch(rows[start : start + 256]).astype(np.float32)
        parts.append(answer_with_features(model, torch.from_numpy(images))[1])
    order, cosines = reference.nearest(np.concatenate(parts), count)
    table: pd.DataFrame = frame[[*identity_columns(frame), "split"]].copy()
    table["neighbours"] = [";".join(reference.names[place] for place in row) for row in order]
    table["neighbour_labels"] = [";".join(reference.labels[place] for place in row) for row in order]
    table["neighbour_cosines"] = [";".join(f"{value:.4f}" for value in row) for row in cosines]
    path = run / "neighbours.csv"
    with whole(path) as unfinished:
        fill_csv(unfinished, table)
    write_report(run)
    return path
