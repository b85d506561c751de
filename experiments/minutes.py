"""What one flag reaches: `msmae run DATA --init DINOv2 ViT-S/14 --minutes N`, and no other setting.

    python experiments/minutes.py DATA [--minutes 15] [--seeds 0 1 2]

DATA is brain-tumor-mri (de-duplicated first), pneumoniamnist or ham10000, looked for in MSMAE_DATA or ../shared/data;
the weights in MSMAE_WEIGHTS or ../shared/weights. Runs go to runs/experiments/DATA+minutes/vit/SEED, results to
results/DATA+minutes.npz. On one core (`taskset -c 0`) twice the minutes are the same work.
"""

from __future__ import annotations

import argparse

from arms import PUBLIC, REPOSITORY
from collect import collect
from pretrained import WEIGHTS

import msmae
from msmae.verbs.check import check

REPAIRED = ("brain-tumor-mri",)


def main() -> None:
    """Train what is missing, and collect it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["brain-tumor-mri", "pneumoniamnist", "ham10000"])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    work, data = REPOSITORY / "runs" / "experiments" / f"{asked.data}+minutes", PUBLIC / asked.data
    if asked.data in REPAIRED:
        clean = work / "clean.csv"
        if not clean.is_file():
            work.mkdir(parents=True, exist_ok=True)
            check(str(data), repair=str(clean))
        data = clean
    for seed in asked.seeds:
        run = work / "vit" / str(seed)
        if not (run / "metrics.json").is_file():
            msmae.run(str(data), out=str(run), init=str(WEIGHTS), minutes=asked.minutes, seed=seed)
        print(
            collect(work, REPOSITORY / "results", f"{asked.data}+minutes", roots=[PUBLIC, WEIGHTS.parent, REPOSITORY]),
            "runs",
        )


if __name__ == "__main__":
    main()
