"""Question a: which arm diagnoses best, budgets being equal?  python experiments/arms.py DATA [--scale cpu|gpu]

DATA is pneumoniamnist, pneumoniamnist+longer, brain-tumor-mri, ham10000, phantom, phantom-small or phantom-smaller; the
public ones are looked for in MSMAE_DATA, or in ../shared/data. With +own, fine-tuning sees the quarter of the patches
that the arm keeps, and more images for the same multiply-accumulates. Work goes to runs/experiments/<data>, results to
results/<data>; killed, the same command goes on. The same command may be started several times: the processes share the
runs. Results hold no weights: `--weights` trains again what is collected, into runs/experiments/<data>+weights, and
collects nothing (experiments/keep.py takes its models from there).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collect import collect, restore

import msmae
from msmae.data.phantom import make_phantom

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLIC = Path(os.environ.get("MSMAE_DATA", REPOSITORY.parent / "shared" / "data")).resolve()
ARMS = [
    "vit", "mae", "supmae", "amt", "msmae", "msmae-hints", "msmae-shuffled", "msmae-hints-shuffled", "msmae-released",
    "majority", "pca-svm", "small-cnn",
]  # fmt: skip
GPU: dict[str, Any] = {"preset": "gpu", "arms": [*ARMS, "resnet18"], "seeds": [0, 1, 2, 3, 4]}


@dataclass(frozen=True)
class Study:
    """One data set and its budget on 2 CPU cores, in images shown."""

    source: str
    pretrain: int
    finetune: int
    repair: bool = False
    """The published split leaks: a clean one is cut first (`msmae check --repair`)."""
    lesion: float | None = None
    """The phantom, with lesions of this share of the side."""
    budget: str = "epochs"
    """What is equal for all arms."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    arms: list[str] = field(default_factory=lambda: ARMS)


FOUR_BLOCKS: dict[str, dict[str, Any]] = {
    "model": {"depth": 4},
    "pretrain": {"batch_size": 64, "base_lr": 4e-3, "label_weight": 1.0},
    "finetune": {"base_lr": 2e-3, "layer_decay": 0.85, "jitter": 0.0, "crop_scale": (0.6, 1.0)},
}
OWN_DRAW = {**FOUR_BLOCKS, "finetune": {**FOUR_BLOCKS["finetune"], "draw": "own"}}
"""Fine-tuning sees the quarter that the arm keeps, of as many more images as that costs no more for."""
OWN_ARMS = ["supmae", "msmae-evidence", "msmae"]
STUDIES = {
    "pneumoniamnist": Study(
        "pneumoniamnist/pneumoniamnist.npz",
        pretrain=60_000,
        finetune=24_000,
        budget="gmacs",
        settings={"pretrain": {"label_weight": 1.0}},
    ),
    "pneumoniamnist+longer": Study("pneumoniamnist/pneumoniamnist.npz", pretrain=200_000, finetune=100_000),
    "brain-tumor-mri": Study(
        "brain-tumor-mri", pretrain=160_000, finetune=40_000, repair=True, budget="gmacs", settings=FOUR_BLOCKS
    ),
    "ham10000": Study("ham10000", pretrain=100_000, finetune=60_000, budget="gmacs", settings=FOUR_BLOCKS),
    "phantom": Study("phantom", pretrain=60_000, finetune=30_000),
    "phantom-small": Study(
        "phantom", pretrain=60_000, finetune=20_000, lesion=0.2, budget="gmacs", settings=FOUR_BLOCKS
    ),
    "phantom-smaller": Study(
        "phantom", pretrain=60_000, finetune=20_000, lesion=0.17, budget="gmacs", settings=FOUR_BLOCKS
    ),
    "phantom-smaller+own": Study(
        "phantom", pretrain=60_000, finetune=65_000, lesion=0.17, budget="gmacs", settings=OWN_DRAW, arms=OWN_ARMS
    ),
    "brain-tumor-mri+own": Study(
        "brain-tumor-mri",
        pretrain=160_000,
        finetune=130_000,
        repair=True,
        budget="gmacs",
        settings=OWN_DRAW,
        arms=OWN_ARMS,
    ),
}


def settings_of(study: Study, asked: argparse.Namespace) -> dict[str, Any]:
    """What the comparison is asked for, at the scale asked for; what is equal for all arms is the study's."""
    common = {"budget": study.budget, **study.settings}
    if asked.scale == "gpu":
        return {**common, **GPU, "arms": asked.arms or GPU["arms"], "seeds": asked.seeds or GPU["seeds"]}
    return {
        **common,
        "preset": "cpu",
        "arms": asked.arms or study.arms,
        "seeds": asked.seeds or [0, 1, 2],
        "pretrain": {"presentations": study.pretrain, **study.settings.get("pretrain", {})},
        "finetune": {"presentations": study.finetune, **study.settings.get("finetune", {})},
    }


def main() -> None:
    """Compare the arms on one data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=STUDIES)
    parser.add_argument("--scale", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--arms", nargs="+", help="default: all that the scale can pay for")
    parser.add_argument("--seeds", nargs="+", help="default: three, or five on a GPU")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--weights", action="store_true", help="train again what results/ holds without its weights")
    asked = parser.parse_args()
    study = STUDIES[asked.data]
    name = asked.data if asked.scale == "cpu" else f"{asked.data}+gpu"
    work, results = REPOSITORY / "runs" / "experiments" / name, REPOSITORY / "results" / name
    images = asked.data.partition("+")[0]  # a variant has the images of what it varies
    data = study.source if study.source == "phantom" else str(PUBLIC / study.source)
    if study.repair:
        clean = REPOSITORY / "runs" / "experiments" / f"{images}.csv"
        if not clean.is_file():
            clean.parent.mkdir(parents=True, exist_ok=True)
            from msmae.stages.check import check

            check(data, repair=str(clean))
        data = str(clean)
    if study.lesion:
        folder = REPOSITORY / "runs" / "experiments" / f"{images}-images"
        make_phantom(folder, lesion=study.lesion, seed=1)  # the trials in docs/lab-notes.md had seed 0
        data = str(folder / "manifest.csv")
    settings = settings_of(study, asked)
    if asked.threads:
        settings["trainer"] = {"threads": asked.threads}
    if asked.weights:
        msmae.compare(data, out=f"{work}+weights", **settings)
        return
    restore(results, work)
    try:
        msmae.compare(data, out=str(work), **settings)
    finally:
        print(f"{collect(work, results, roots=[PUBLIC, REPOSITORY])} runs in {results}")


if __name__ == "__main__":
    main()
