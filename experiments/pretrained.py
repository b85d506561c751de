"""Question b: from pretrained weights, what should fine-tuning see?  python experiments/pretrained.py [--folds 1 2]

Brain tumours, de-duplicated; five new folds, near-duplicates in one; DINOv2 ViT-S/14 from MSMAE_WEIGHTS, or
../shared/weights; data from MSMAE_DATA, or ../shared/data. Eight epochs an arm. Models of 224 px answer
from all tokens, and from a quarter (ARM+grid, ARM+early). Runs go to
runs/experiments/brain-tumor-mri+pretrained/ARM/FOLD, results to results/brain-tumor-mri+pretrained.npz. Killed, the
same command goes on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pandas as pd
from arms import PUBLIC, REPOSITORY
from collect import add, files_of

import msmae
from msmae.evaluation.calibrate import calibrate
from msmae.evaluation.keep import Point, predict_split
from msmae.inference.model import load
from msmae.statistics.predictions import write_predictions
from msmae.training.prepare import prepare_again
from msmae.verbs.check import check

WEIGHTS = Path(os.environ.get("MSMAE_WEIGHTS", REPOSITORY.parent / "shared" / "weights")).resolve() / "dinov2_vits14"
STUDY = "brain-tumor-mri+pretrained"
SEED = 20261129
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "112-all": {"model": {"image_size": 112}},
    "168-all": {"model": {"image_size": 168}},
    "224-all": {"model": {"image_size": 224}},
    "224-quarter-half": {"model": {"image_size": 224}, "finetune": {"draw": "half"}},
    "224-quarter-uniform": {"model": {"image_size": 224}, "finetune": {"draw": "uniform"}},
    "224-mixed-half": {"model": {"image_size": 224}, "finetune": {"draw": "half", "share": "mixed"}},
}
EPOCHS = 8
QUARTERS = ("grid", "early")
"""How a model of 224 px is asked for answers from a quarter of its tokens: evenly spread, or attended early."""


def folds_of(work: Path) -> list[Path]:
    """The manifests of the folds, cut where they are missing."""
    found = sorted(work.glob("folds/fold-*.csv"))
    if not found:
        work.mkdir(parents=True, exist_ok=True)
        check(str(PUBLIC / "brain-tumor-mri"), repair=str(work / "clean.csv"))
        check(str(work / "clean.csv"), folds=5, out=str(work / "folds"), seed=SEED)
        found = sorted(work.glob("folds/fold-*.csv"))
    return found


def main() -> None:
    """Train what is asked for, and collect it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    asked = parser.parse_args()
    work = REPOSITORY / "runs" / "experiments" / STUDY
    folds = folds_of(work)
    for fold in asked.folds:
        for arm in asked.arms:
            run, given = work / arm / str(fold), ARMS[arm]
            if not (run / "metrics.json").is_file():
                fine = {"epochs": EPOCHS, **given.get("finetune", {})}
                msmae.run(
                    str(folds[fold - 1]), out=str(run), init=str(WEIGHTS), model=given["model"], finetune=fine, seed=0
                )
            files = files_of(run)
            if arm.startswith("224"):
                files += [answers_from_a_quarter(run, work / f"{arm}+{name}" / str(fold), name) for name in QUARTERS]
            add(work, files, REPOSITORY / "results", STUDY, roots=[PUBLIC, WEIGHTS.parent, REPOSITORY])


def answers_from_a_quarter(run: Path, out: Path, selector: str) -> Path:
    """What the model of a run answers from a quarter of the tokens, calibrated on validation: OUT/predictions.csv."""
    if not (out / "predictions.csv").is_file():
        prepared, model, point = prepare_again(run), load(run), Point(selector, 0.25)
        both = [predict_split(model, prepared, point, split=split) for split in ("val", "test")]
        out.mkdir(parents=True, exist_ok=True)
        write_predictions(calibrate(pd.concat(both, ignore_index=True), prepared)[0], out / "predictions.csv")
    return out / "predictions.csv"


if __name__ == "__main__":
    main()
