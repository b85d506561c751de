"""Question b: from pretrained weights, what should fine-tuning see?  python experiments/pretrained.py [--folds 1 2]

Brain tumours, de-duplicated; five new folds, near-duplicates in one; DINOv2 ViT-S/14 from MSMAE_WEIGHTS, or
../shared/weights; data from MSMAE_DATA, or ../shared/data. Eight epochs an arm. Runs go to
runs/experiments/brain-tumor-mri+pretrained/ARM/FOLD, results to results/brain-tumor-mri+pretrained.npz. Killed, the
same command goes on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from arms import PUBLIC, REPOSITORY
from collect import add, files_of

import msmae
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
            add(work, files_of(run), REPOSITORY / "results", STUDY, roots=[PUBLIC, REPOSITORY])


if __name__ == "__main__":
    main()
