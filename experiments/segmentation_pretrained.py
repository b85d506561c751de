"""What is a pretrained start worth for outlining lesions, at equal time?  python experiments/segmentation_pretrained.py

HAM10000 at 112 px, lesions whole, one split. ``dinov2``: DINOv2 ViT-S/14 (MSMAE_WEIGHTS, or ../shared/weights), three
epochs. ``none``: the encoder of the preset `cpu` from random weights, trained for as many minutes: one epoch is timed,
and their number follows from it. Runs go to runs/experiments/ham10000-pretrained/ARM/SEED, results to
results/ham10000+outlines-pretrained.npz. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from arms import PUBLIC, REPOSITORY
from collect import collect
from pretrained import WEIGHTS

import msmae
from msmae.config import make_settings
from msmae.data.opening import divide
from msmae.runs.folder import write_json

ARMS = {"dinov2": str(WEIGHTS), "none": "none"}
STUDY = "ham10000+outlines-pretrained"
SIDE, EPOCHS = 112, 3


def main() -> None:
    """Outline from both starts, and collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    asked = parser.parse_args()
    work = REPOSITORY / "runs" / "experiments" / "ham10000-pretrained"
    manifest = work / "manifest.csv"
    if not manifest.is_file():
        divide(PUBLIC / "ham10000", settings=make_settings("cpu"), seed=0).write(manifest)
    plan = {
        "task": "segmentation", "data": "ham10000", "unit": "lesions", "arms": list(ARMS), "seeds": asked.seeds,
        "pairs": [["dinov2", "none"]],
        "budget": f"Images of {SIDE} px; from DINOv2 {EPOCHS} epochs, from nothing (none) as many as take as long.",
    }  # fmt: skip
    write_json(work / "comparison.json", plan)
    for seed in asked.seeds:
        pretrained = outlined(manifest, work / "dinov2" / str(seed), "dinov2", seed=seed, epochs=EPOCHS)
        timed = outlined(manifest, work / "timed" / str(seed), "none", seed=seed, epochs=1)
        epochs = max(1, round(seconds(pretrained) / seconds(timed)))
        outlined(manifest, work / "none" / str(seed), "none", seed=seed, epochs=epochs)
        print(collect(work, REPOSITORY / "results", STUDY, roots=[PUBLIC, WEIGHTS.parent, work, REPOSITORY]), "runs")


def outlined(manifest: Path, run: Path, arm: str, *, seed: int, epochs: int) -> Path:
    """A finished segmentation run of so many epochs."""
    if not (run / "metrics.json").is_file():
        asked: dict[str, Any] = {"model": {"image_size": SIDE}, "segment": {"epochs": epochs}}
        msmae.segment(str(manifest), from_=ARMS[arm], out=str(run), seed=seed, preset="cpu", **asked)
    return run


def seconds(run: Path) -> float:
    """Seconds that a run trained."""
    return float(json.loads((run / "metrics.json").read_text())["cost"]["seconds_finetune"])


if __name__ == "__main__":
    main()
