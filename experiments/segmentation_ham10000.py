"""What pre-training is worth for outlining lesions: HAM10000, four beginnings, the same budget, paired differences.

    python experiments/segmentation_ham10000.py --data ../shared/data/ham10000 --out results/segmentation_ham10000

Arms: encoders pre-trained as msmae, mae and supmae, and none; three seeds each; 64 px; splits by lesion, one for all.
Each pre-training is one run, each segmentation another; finished ones are not repeated, so the script may be stopped
and started again. ``--only msmae:0`` does one arm and seed. At the end it prints and writes the table (results.json):
each arm's test Dice over the seeds with its interval over lesions, and the paired difference from ``none``.

Data that leak into the test stop it (exit code 3), as everywhere.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

import msmae
from msmae.config import Settings, make_settings
from msmae.errors import UserError
from msmae.evidence.segmentation import FIGURES, paired_dice, summarise_segmentation
from msmae.stages.prepare import divide

ARMS = ("msmae", "mae", "supmae", "none")
SEEDS = (0, 1, 2)
MODEL = {"image_size": 64, "patch_size": 8, "width": 192, "depth": 6, "heads": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/ham10000")
    parser.add_argument("--out", default="results/segmentation_ham10000", type=Path)
    parser.add_argument("--only", action="append", help="arm:seed, for instance msmae:0; may be given several times")
    parser.add_argument("--presentations", type=int, default=20_000, help="images shown in each segmentation")
    parser.add_argument("--pretrain-presentations", type=int, default=100_000)
    given = parser.parse_args()
    settings = make_settings("cpu", None, {"model": MODEL})
    manifest = one_split(given.data, given.out, settings)
    wanted = given.only or [f"{arm}:{seed}" for seed in SEEDS for arm in ARMS]
    for name in wanted:
        arm, _, seed = name.partition(":")
        if arm not in ARMS or not seed.isdecimal():
            raise UserError(f"no arm and seed '{name}'", where="--only", mend=f"{', '.join(ARMS)}, a colon, a number")
        segment(manifest, arm, int(seed), given.out, given.presentations, given.pretrain_presentations)
    print_table(tabulate(given.out), given.out)


def one_split(data: str, out: Path, settings: Settings) -> Path:
    """The manifest, with one split by lesion for all arms and seeds."""
    path = out / "manifest.csv"
    if not path.is_file():
        divide(data, settings=settings, seed=0).write(path)
    return path


def segment(manifest: Path, arm: str, seed: int, out: Path, presentations: int, pretraining: int) -> None:
    """Pre-train (unless the arm is none) and segment, where that is not done yet."""
    run, before = out / f"{arm}-{seed}", out / f"{arm}-{seed}-pretrained"
    if (run / "metrics.json").is_file():
        return
    if arm != "none" and not (before / "pretrained").is_dir():
        msmae.pretrain(
            str(manifest), out=str(before), method=arm, preset="cpu", seed=seed,
            model=MODEL, pretrain={"presentations": pretraining},
        )  # fmt: skip
    msmae.segment(
        str(manifest), from_="none" if arm == "none" else str(before), out=str(run), preset="cpu", seed=seed,
        model=MODEL, segment={"presentations": presentations},
    )  # fmt: skip


def tabulate(out: Path) -> dict[str, Any]:
    """Each arm's mean over its finished seeds, and its paired difference from ``none`` over the seeds both have."""
    frames: dict[str, dict[int, pd.DataFrame]] = {arm: {} for arm in ARMS}
    for arm in ARMS:
        for file in sorted(out.glob(f"{arm}-[0-9]*/segmentation.csv")):
            seed = int(file.parent.name.rpartition("-")[2])
            frames[arm][seed] = pd.read_csv(file, keep_default_na=True, dtype={"patient_id": str, "image_path": str})
    table: dict[str, Any] = {}
    for arm, runs in frames.items():
        if not runs:
            continue
        mean = averaged(list(runs.values()))
        test = summarise_segmentation(mean, classes=sorted(set(mean["class"])))["test"]
        both = sorted(runs.keys() & frames["none"].keys())
        row = {"seeds": sorted(runs), "n": test["n"], "lesions": test["patients"], "dice": test["metrics"]["dice"]}
        if arm != "none" and both:
            other = averaged([frames["none"][seed] for seed in both])
            row["minus_none"] = paired_dice(averaged([runs[seed] for seed in both]), other)
        table[arm] = row
    return table


def averaged(runs: list[pd.DataFrame]) -> pd.DataFrame:
    """The figures of each image, averaged over the seeds; reference and patient are those of the first."""
    keys = ["image_path", "class"]
    ordered = [run.sort_values(keys).reset_index(drop=True) for run in runs]
    mean = ordered[0].copy()
    mean["patient_id"] = mean["patient_id"].fillna("")
    for name in FIGURES:
        mean[name] = sum(run[name] for run in ordered) / len(ordered)
    return mean


def print_table(table: dict[str, Any], out: Path) -> None:
    """Write results.json and print it."""
    (out / "results.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")

    def shown(entry: dict[str, Any] | None) -> str:
        if entry is None or entry["value"] is None:
            return "-"
        interval = "" if entry["low"] is None else f" [{entry['low']:.3f}, {entry['high']:.3f}]"
        return f"{entry['value']:.3f}{interval}"

    print("| arm | seeds | test Dice | minus none | p |\n|---|---|---|---|---|")
    for arm, row in table.items():
        paired = row.get("minus_none")
        p_value = "-" if paired is None or paired.get("p_value") is None else f"{paired['p_value']:.3g}"
        print(f"| {arm} | {len(row['seeds'])} | {shown(row['dice'])} | {shown(paired)} | {p_value} |")


if __name__ == "__main__":
    main()
