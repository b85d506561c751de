"""Question a: which arm diagnoses best, budgets being equal?  python experiments/arms.py DATA [--scale cpu|gpu]

DATA is a study of experiments/studies.py; public data is looked for in MSMAE_DATA, or in ../shared/data. With +own,
fine-tuning sees the quarter of the patches that the arm keeps, and more images for the same multiply-accumulates; with
+half, msmae is shown half as many; with +labels-10, a tenth of the training labels is left. Work goes to
runs/experiments/<data>, results to results/<data>.npz; killed, the same command goes on. The same command may be
started several times: the processes share the runs. Results hold no weights: `--weights` trains again what is
collected, into runs/experiments/<data>+weights, and collects nothing (experiments/keep.py takes its models from there).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from collect import collect, restore
from fewer_labels import write_fewer_labels
from studies import GPU, STUDIES, Study

import msmae
from msmae.data.phantom import make_phantom
from msmae.verbs.check import check

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLIC = Path(os.environ.get("MSMAE_DATA", REPOSITORY.parent / "shared" / "data")).resolve()


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


def images_of(study: Study, name: str) -> str:
    """Where the images of a study are: cleaned, generated or without most of their labels, as it asks."""
    folder = REPOSITORY / "runs" / "experiments"
    base = name.partition("+")[0]  # a variant has the images of what it varies
    data = study.source if study.source == "phantom" else str(PUBLIC / study.source)
    if study.repair:
        clean = folder / f"{base}.csv"
        if not clean.is_file():
            clean.parent.mkdir(parents=True, exist_ok=True)
            check(data, repair=str(clean))
        data = str(clean)
    if study.lesion:
        make_phantom(folder / f"{base}-images", lesion=study.lesion, seed=1)  # trials in docs/lab-notes.md had seed 0
        data = str(folder / f"{base}-images" / "manifest.csv")
    if study.labels < 1:
        data = str(write_fewer_labels(data, study.labels, folder / f"{name}.csv"))
    return data


def compare_arms(study: Study, asked: argparse.Namespace) -> None:
    """Compare the arms in one study, and collect what has run, also where it was stopped."""
    name = asked.data if asked.scale == "cpu" else f"{asked.data}+gpu"
    work, results = REPOSITORY / "runs" / "experiments" / name, REPOSITORY / "results"
    data, settings = images_of(study, asked.data), settings_of(study, asked)
    if asked.threads:
        settings["trainer"] = {"threads": asked.threads}
    if asked.weights:
        msmae.compare(data, out=f"{work}+weights", **settings)
        return
    restore(results, name, work, roots=[PUBLIC, REPOSITORY])
    try:
        msmae.compare(data, out=str(work), **settings)
    finally:
        print(f"{collect(work, results, name, roots=[PUBLIC, REPOSITORY])} runs in {results / name}.npz")


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
    compare_arms(STUDIES[asked.data], asked)


if __name__ == "__main__":
    main()
