"""A phantom of patients with several images, of which one alone shows the disease that all are labelled with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def write_patients(folder: Path, *, patients: int = 240, images: int = 5, size: int = 32, seed: int = 0) -> Path:
    """A CSV manifest: half of the patients train, a sixth validation, a third test; four in ten are ill."""
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    rows = []
    for patient in range(patients):
        ill, where = draw.random() < 0.4, draw.integers(images)
        split = ("train", "val", "test", "train", "train", "test")[patient % 6]
        for image in range(images):
            pixels = draw.normal(90, 12, (size, size)) + draw.normal(0, 8)
            for strength, width in ((30, 30), (30, 30), (140 * (ill and image == where), 12)):  # healthy spots, disease
                row, column = draw.uniform(6, size - 6, 2)
                pixels += strength * np.exp(-((y - row) ** 2 + (x - column) ** 2) / width)
            name = f"images/{patient:03}-{image}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            label = "disease" if ill else "healthy"
            rows.append({"image_path": name, "label": label, "patient_id": f"p{patient:03}", "split": split,
                         "shows": str(bool(ill and image == where))})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"
