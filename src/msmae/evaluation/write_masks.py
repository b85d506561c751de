"""What a segmenter says of new files: a mask of each image's own size, a picture with the outline, and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from msmae.evaluation.pictures import draw_outlines
from msmae.files import own_folder
from msmae.inference.segmentation import SegmentationModel

MOST = 32
"""Images of a part: what is outlined again after a kill, at most."""


def write_masks(
    model: SegmentationModel, files: dict[int, Path], images: Tensor, out: Path, *, sliding: bool = False
) -> pd.DataFrame:
    """Write OUT/masks and OUT/overlays of images [B, channels, H, W]; the rows of predictions.csv.

    Of one class a mask holds 0 and 255, of several the number of the class; of classes that may overlap each has a mask
    of its own. Names begin with the file's number, so that files of the same name from different folders keep apart.
    """
    layers = model.layers(model.predict(images, sliding=sliding))  # [B, C, H, W]
    rows = [
        write_image(model, images[place : place + 1], layers[place], out, file=file, number=number)
        for place, (number, file) in enumerate(files.items())
    ]
    return pd.DataFrame(rows)


def write_image(
    model: SegmentationModel, image: Tensor, layers: np.ndarray, out: Path, *, file: Path, number: int
) -> dict[str, Any]:
    """Write masks and overlay of one image [1, channels, H, W] from its layers [C, H, W]; its row of the table."""
    from PIL import Image

    for folder in ("masks", "overlays"):
        own_folder(out / folder)
    name = f"{number:05d}-{file.name.replace('#', '-')}"
    masks = as_files(layers, model, name)
    for mask, numbers in masks.items():
        Image.fromarray(numbers).save(out / "masks" / mask)
    draw_outlines(out / "overlays" / f"{name}.png", image[0].cpu().numpy(), predicted=layers)
    shares = {f"share_{c}": float(layer.mean()) for c, layer in zip(model.classes, layers, strict=True)}
    named = [f"{c}=" for c in model.classes] if model.card.multilabel else [""]
    cell = ";".join(f"{of}masks/{mask}" for of, mask in zip(named, masks, strict=True))
    return {"image_path": str(file), "mask": cell, **shares}


def as_files(layers: np.ndarray, model: SegmentationModel, name: str) -> dict[str, np.ndarray]:
    """Layers bool [classes, H, W] as the masks to write, by their file names: uint8 [H, W] each."""
    if model.card.multilabel:
        return {f"{name}-{k}.png": layer.astype(np.uint8) * 255 for k, layer in enumerate(layers, start=1)}
    if len(layers) == 1:
        return {f"{name}.png": layers[0].astype(np.uint8) * 255}
    numbers = np.arange(1, len(layers) + 1, dtype=np.uint8)[:, None, None]
    return {f"{name}.png": (layers * numbers).max(axis=0)}
