"""Question b: from pretrained weights, what should fine-tuning see?  python experiments/pretrained.py [--folds 1 2]

Brain tumours, de-duplicated, five new folds, 224 px; HAM10000, whose files are 200 x 150 px, two folds, 168 px. Lesions
and near-duplicates stay in one fold. DINOv2 ViT-S/14 from MSMAE_WEIGHTS, or ../shared/weights; data from MSMAE_DATA, or
../shared/data. Larger images answer from all tokens, and from a quarter (ARM+grid, ARM+early). Runs go to
runs/experiments/DATA+pretrained/ARM/FOLD, results to results/DATA+pretrained.npz. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from arms import PUBLIC, REPOSITORY
from collect import add, files_of

import msmae
from msmae.evaluation.calibrate import calibrate
from msmae.evaluation.keep import Point, predict_split
from msmae.inference.model import Model, load
from msmae.statistics.predictions import write_predictions
from msmae.training.prepare import prepare_again
from msmae.verbs.check import check

WEIGHTS = Path(os.environ.get("MSMAE_WEIGHTS", REPOSITORY.parent / "shared" / "weights")).resolve() / "dinov2_vits14"
SEED = 20261129


def arms(side: int, small: list[int]) -> dict[str, dict[str, dict[str, Any]]]:
    """Settings of the arms: all tokens of smaller images and of SIDE px, and a share of the tokens of SIDE px."""
    whole = {f"{px}-all": {"model": {"image_size": px}} for px in [*small, side]}
    draws = {"quarter-half": {"draw": "half"}, "quarter-uniform": {"draw": "uniform"}}
    draws["mixed-half"] = {"draw": "half", "share": "mixed"}
    shares = {f"{side}-{name}": {"model": {"image_size": side}, "finetune": draw} for name, draw in draws.items()}
    return whole | shares


@dataclass(frozen=True)
class Plan:
    """What is done with a data set."""

    side: int
    smaller: list[int]
    folds: int
    epochs: int
    repaired: bool
    quarters: tuple[str, ...]
    """How a model of SIDE px is asked for answers from a quarter of its tokens: evenly spread, or attended early."""


PLANS = {
    "brain-tumor-mri": Plan(224, [112, 154, 168], folds=5, epochs=8, repaired=True, quarters=("grid", "early")),
    "ham10000": Plan(168, [84], folds=2, epochs=5, repaired=False, quarters=("early",)),
}


def folds_of(work: Path, data: str, plan: Plan) -> list[Path]:
    """The manifests of the folds, cut where they are missing."""
    found = sorted(work.glob("folds/fold-*.csv"))
    if not found:
        work.mkdir(parents=True, exist_ok=True)
        source = PUBLIC / data
        if plan.repaired:
            check(str(source), repair=str(work / "clean.csv"))
            source = work / "clean.csv"
        check(str(source), folds=plan.folds, out=str(work / "folds"), seed=SEED)
        found = sorted(work.glob("folds/fold-*.csv"))
    return found


def main() -> None:
    """Train what is asked for, and collect it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="brain-tumor-mri", choices=PLANS)
    parser.add_argument("--folds", type=int, nargs="+")
    parser.add_argument("--arms", nargs="+")
    asked = parser.parse_args()
    plan, study = PLANS[asked.data], f"{asked.data}+pretrained"
    settings = arms(plan.side, plan.smaller)
    work = REPOSITORY / "runs" / "experiments" / study
    folds = folds_of(work, asked.data, plan)
    for fold in asked.folds or range(1, plan.folds + 1):
        for arm in asked.arms or settings:
            run, given = work / arm / str(fold), settings[arm]
            if not (run / "metrics.json").is_file():
                fine = {"epochs": plan.epochs, **given.get("finetune", {})}
                msmae.run(
                    str(folds[fold - 1]), out=str(run), init=str(WEIGHTS), model=given["model"], finetune=fine, seed=0
                )
            files = files_of(run)
            if given["model"]["image_size"] == plan.side:
                for name in plan.quarters:
                    files += [answers_from_a_quarter(run, work / f"{arm}+{name}" / str(fold), name)]
            add(work, files, REPOSITORY / "results", study, roots=[PUBLIC, WEIGHTS.parent, REPOSITORY])


def answers_from_a_quarter(run: Path, out: Path, selector: str, model: Model | None = None) -> Path:
    """What a model (unless given, the run's) answers from a quarter of the tokens, calibrated on validation:
    OUT/predictions.csv."""
    if not (out / "predictions.csv").is_file():
        prepared, model, point = prepare_again(run), model or load(run), Point(selector, 0.25)
        both = [predict_split(model, prepared, point, split=split) for split in ("val", "test")]
        out.mkdir(parents=True, exist_ok=True)
        write_predictions(calibrate(pd.concat(both, ignore_index=True), prepared)[0], out / "predictions.csv")
    return out / "predictions.csv"


if __name__ == "__main__":
    main()
