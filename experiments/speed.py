"""The paper's third claim: how many times as fast is a prediction from a quarter of the tokens, the choosing counted?

    python experiments/speed.py [--rounds 21]

DINOv2 ViT-S/14 from MSMAE_WEIGHTS, or ../shared/weights; float32, weights packed as every prediction has them, one
thread unless OMP_NUM_THREADS says more. All ways take turns on the same images; a ratio is made of each pair of turns,
and the row is their median with its 95 % bootstrap interval. Writes speed.json into results/dinov2-small+speed.npz.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from arms import REPOSITORY
from collect import add_text
from pretrained import WEIGHTS
from study_tables.claims import SPEED

from msmae.bench.turns import clock, device_name, in_turns, median_interval
from msmae.encoders.spec import build_encoder
from msmae.encoders.start import open_start
from msmae.encoders.weights import load_into
from msmae.inference.packed import packed
from msmae.method.classifier import Classifier
from msmae.selection.selectors import Selection
from msmae.training.selecting.coarse import selection_for

CPU = torch.device("cpu")
WAYS = {
    "224 px, all": (224, "all", 1.0),
    "112 px, all": (112, "all", 1.0),
    "224 px, a quarter, attended early": (224, "early", 0.25),
    "224 px, a quarter, by a map of the whole image (paper)": (224, "self", 0.25),
}
LARGE = {
    "336 px, all": (336, "all", 1.0),
    "140 px, all": (140, "all", 1.0),
    "336 px, coarse and fine": (336, "coarse", 96 / 576),
}
"""Name -> side in pixels, selector, share of the tokens. ``coarse``: as `--finetune.draw coarse` looks."""
TRIALS = [(WAYS, (1, 8, 64)), (LARGE, (1, 8))]
"""Ways that take turns, at these batches."""


def way(size: int, selector: str, share: float, batch: int) -> Callable[[], float]:
    """Seconds of one prediction of a batch."""
    start = open_start(str(WEIGHTS))
    encoder = build_encoder(start.spec, (size, size), channels=3)
    load_into(encoder, start)
    model = Classifier(encoder, classes=4).eval()
    selection = packed((selection_for(model) if selector == "coarse" else Selection(model, selector=selector)).eval())
    images, kept = torch.randn(batch, 3, size, size), round(share * encoder.patches)

    def predict() -> None:
        with torch.inference_mode():
            selection(images, kept)

    return lambda: clock(predict, CPU)


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    asked = parser.parse_args()
    rows = []
    for ways, batch in [(ways, batch) for ways, batches in TRIALS for batch in batches]:
        taken = in_turns([way(*given, batch) for given in ways.values()], rounds=asked.rounds)
        seconds = dict(zip(ways, taken, strict=True))
        for name in [name for name in ways if not name.endswith("all")]:
            for rival in [name for name in ways if name.endswith("all")]:
                pairs = [theirs / ours for ours, theirs in zip(seconds[name], seconds[rival], strict=True)]
                found = zip(("ratio", "low", "high"), (round(x, 3) for x in median_interval(pairs)), strict=True)
                rows.append({"name": name, "against": rival, "batch": batch, **dict(found)})
                print(rows[-1])
    told = {"rounds": asked.rounds, "machine": device_name(CPU), "rows": rows}
    add_text("speed.json", json.dumps(told, indent=1) + "\n", REPOSITORY / "results", SPEED)


if __name__ == "__main__":
    main()
