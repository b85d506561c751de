"""Question b: do the answers hang on what a map marks?  python experiments/maps.py DATA [--arms msmae] [--seeds 0 1 2]

Deletion and insertion (Petsiuk et al., arXiv 1806.07421) on the test images of finished runs: patches are blanked (set
to the mean of the data) in the order of a map, from the whole image on, or shown in this order, from a blank image on,
and the fine-tuned model is asked each time. A map that marks what the answers hang on makes them fall sooner, or come
sooner. Beside the attention of the pre-trained and of the fine-tuned encoder: that of random weights, which have
learned nothing, and a random order. Collects into results/DATA+maps.npz; `make results` tabulates.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from arms import REPOSITORY
from collect import add_text
from packed import read_study
from studies import STUDIES
from torch import Tensor

from msmae.inference.model import load
from msmae.method.attention import patch_maps
from msmae.method.classifier import Classifier
from msmae.method.msmae import MSMAE
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import build_model, load_model
from msmae.selection.sensitivity import sensitivity
from msmae.training.prepare import prepare_again
from msmae.training.supervised import balanced_accuracy

STEPS = 8
"""Parts of the image that are blanked, or shown, one after the other."""
IMAGES = 600
"""Test images at most, spread over all of them."""
Maps = Callable[[Tensor], Tensor]


def main() -> None:
    """Draw the curves of every finished run that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=STUDIES)
    parser.add_argument("--arms", nargs="+", default=["msmae"])
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--runs", type=Path, help="folder of ARM/SEED runs; default runs/experiments/DATA")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    runs = asked.runs or REPOSITORY / "runs" / "experiments" / asked.data
    for arm in asked.arms:
        for seed in asked.seeds:
            name, file = f"{asked.data}+maps", f"{arm}/{seed}/curves.csv"
            if file in read_study(REPOSITORY / "results", name).texts:
                print(f"{name}, {file}: there already")
                continue
            if not (runs / arm / seed / "metrics.json").is_file():
                print(f"{runs / arm / seed}: not finished yet")
                continue
            curves = curves_of_run(runs / arm / seed).to_csv(index=False, lineterminator="\n", float_format="%.5f")
            add_text(file, curves, REPOSITORY / "results", name)
            print(f"{name}, {file}")


def curves_of_run(run: Path) -> pd.DataFrame:
    """Columns map, curve (deletion or insertion), share of the patches, probability of the class that the whole image
    is given (mean), and balanced accuracy.
    """
    prepared, model = prepare_again(run), load(run)
    ids = prepared.ids("test")
    ids = ids[np.linspace(0, len(ids) - 1, min(len(ids), IMAGES)).astype(int)]
    labels = torch.from_numpy(prepared.targets[ids])
    batches = [
        next(model.prepared_batches(prepared.store.fetch(rows).astype(np.float32), len(rows)))
        for rows in np.array_split(ids, max(1, len(ids) // 256))
    ]
    rows, whole = [], [names_given(model.network, batch) for batch in batches]
    for name, maps in maps_to_try(run, model.network, seed=prepared.seed).items():
        orders = [maps(batch).flatten(1).argsort(dim=1, descending=True) for batch in batches]  # [B, N] each
        for curve in ("deletion", "insertion"):
            for step in range(STEPS + 1):
                found = [
                    answers(model.network, batch, order, given, share=step / STEPS, shown=curve == "insertion")
                    for batch, order, given in zip(batches, orders, whole, strict=True)
                ]
                chance, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
                accuracy = balanced_accuracy(logits, labels)
                rows.append((name, curve, step / STEPS, float(chance.mean()), float(accuracy)))
    return pd.DataFrame(rows, columns=["map", "curve", "share", "probability", "balanced_accuracy"])


def maps_to_try(run: Path, classifier: Classifier, *, seed: int) -> dict[str, Maps]:
    """What a map is, by name: images [B, C, H, W] -> [B, h, w]."""
    pretrained, card = load_model(run / "pretrained")
    torch.manual_seed(seed)
    untrained = build_model(card).eval()
    assert isinstance(pretrained, MSMAE)
    assert isinstance(untrained, MSMAE)
    chance = torch.Generator().manual_seed(seed)

    def attention(encoder: VisionTransformer) -> Maps:
        return torch.inference_mode()(lambda images: patch_maps(encoder, images))

    return {
        "attention, pre-trained": attention(pretrained.eval().encoder),
        "attention, fine-tuned": attention(classifier.encoder),
        "length of the gradient, fine-tuned": lambda images: sensitivity(classifier, images.clone()),
        "attention, random weights": attention(untrained.encoder),
        "a random order": lambda images: torch.rand(len(images), *classifier.encoder.grid, generator=chance),
    }


@torch.inference_mode()
def names_given(classifier: Classifier, images: Tensor) -> Tensor:
    """The class [B] that each whole image is given."""
    given: Tensor = classifier(images).argmax(dim=1)
    return given


@torch.inference_mode()
def answers(
    classifier: Classifier, images: Tensor, order: Tensor, given: Tensor, *, share: float, shown: bool
) -> tuple[Tensor, Tensor]:
    """Of images [B, C, H, W] whose first patches in the order [B, N] alone are shown, or are blanked: the probability
    [B] of the class given [B] to the whole image, and the logits [B, classes].
    """
    visible = torch.full(order.shape, float(not shown))
    visible.scatter_(1, order[:, : round(share * order.shape[1])], float(shown))
    grid = visible.reshape(-1, 1, *classifier.encoder.grid)
    size = classifier.encoder.patch_size
    pixels = grid.repeat_interleave(size, dim=2).repeat_interleave(size, dim=3)  # [B, 1, H, W]
    logits = classifier(images * pixels)
    return logits.softmax(dim=1).gather(1, given.unsqueeze(1)).squeeze(1), logits


if __name__ == "__main__":
    main()
