"""Question c: which layer's and which head's attention finds the lesion?  python experiments/layers.py DATA

The method takes the class token's row in the last block, all heads together. Here its rows in all blocks of a
pre-trained encoder are held against the lesion masks of 200 validation images at most, beside the widened length of
the answer's gradient. Nothing is trained. Collects into
results/DATA+layers/ARM/SEED/layers.csv; `make results` tabulates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from arms import REPOSITORY
from studies import STUDIES
from torch import Tensor

from msmae.evaluation.map_quality import lesion_patches, map_auroc, pointing
from msmae.evidence.map_layers import TOGETHER
from msmae.inference.model import load
from msmae.method.attention import average_heads
from msmae.method.msmae import MSMAE
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import load_model
from msmae.selection.sensitivity import sensitivity, widened
from msmae.training.prepare import Prepared, prepare_again

WATCHED = 200
"""Validation images that the maps are held against."""


def main() -> None:
    """Look at every finished run that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=STUDIES)
    parser.add_argument("--arms", nargs="+", default=["supmae", "msmae"])
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    for arm in asked.arms:
        for run in sorted((REPOSITORY / "runs" / "experiments" / asked.data / arm).glob("*")):
            target = REPOSITORY / "results" / f"{asked.data}+layers" / arm / run.name / "layers.csv"
            if target.is_file() or not (run / "metrics.json").is_file() or not (run / "pretrained").is_dir():
                print(f"{run}: {'there already' if target.is_file() else 'not finished, or without its weights'}")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            layers_of_run(run).to_csv(target, index=False, lineterminator="\n", float_format="%.5f")
            print(target)


def layers_of_run(run: Path) -> pd.DataFrame:
    """Columns map, layer, head, auroc (against the lesion patches) and pointing; layers and heads count from 1."""
    prepared, model = prepare_again(run), load_model(run / "pretrained")[0].eval()
    assert isinstance(model, MSMAE)
    ids = watched(prepared)
    lesion = lesion_patches(torch.from_numpy(prepared.store.fetch_masks(ids)), model.encoder.patch_size)
    images = torch.cat(list(load(run).prepared_batches(prepared.store.fetch(ids).astype("float32"), 256)))
    return pd.DataFrame(
        [(*name, map_auroc(maps, lesion), pointing(maps, lesion)) for name, maps in maps_to_try(model, images).items()],
        columns=["map", "layer", "head", "auroc", "pointing"],
    )


def watched(prepared: Prepared) -> np.ndarray:
    """The first validation images whose masks show a lesion; none where the data has no masks."""
    if prepared.store.masks is None:
        return np.array([], dtype=np.int64)
    ids = prepared.ids("val", labelled=False)
    return ids[prepared.store.fetch_masks(ids).any(axis=(1, 2))][:WATCHED]


def maps_to_try(model: MSMAE, images: Tensor) -> dict[tuple[str, str, str], Tensor]:
    """Maps [B, h, w] of images [B, C, H, W] by (map, layer, head)."""
    encoder, found = model.encoder, {}
    for layer, rows in enumerate(class_rows(encoder, images), start=1):
        found["attention", str(layer), TOGETHER] = average_heads(rows).reshape(-1, *encoder.grid)
        for head in range(rows.shape[1]):
            found["attention", str(layer), str(head + 1)] = rows[:, head].reshape(-1, *encoder.grid)
    found["gradient, widened", "", ""] = widened(sensitivity(model, images))
    return found


@torch.inference_mode()
def class_rows(encoder: VisionTransformer, images: Tensor) -> list[Tensor]:
    """The class token's row of every block, [B, H, N] each."""
    x, rows = encoder.embed(images), []
    for block in encoder.blocks:
        rows.append(block.attn.class_row(block.norm1(x)))
        x = block(x)
    return rows


if __name__ == "__main__":
    main()
