"""Question b: what does looking at a quarter cost?  python experiments/keep.py DATA [--seeds 0 1 2] [--even]

Takes the finished runs of experiments/arms.py in runs/experiments/DATA (or --runs FOLDER), prepares each one's model,
measures its budget, and collects into results/DATA+keep.npz, as ARM/SEED: budget.json, the test predictions from all
patches and from the quarter that the locator keeps, and what share of the lesion patches was kept, where masks exist.
What is finished is not made again; killed, the same command goes on. `make results` pools what is collected. Results
hold no weights: on another machine, `arms.py DATA --weights --arms msmae` first, and --runs
runs/experiments/DATA+weights.

--even is the control: a copy of each run is prepared alike, for as many images, but for patches that are spread evenly
(the selector `grid`, with the glance that suits it) instead of chosen; into results/DATA+keep-even.npz.

Settings were tried on brain-tumor-mri, PneumoniaMNIST and the phantom, test images of theirs included; the glance, the
rate and the length of preparing on the validation images of seed 0 of these and of ham10000, whose test images had been
read with the settings before (docs/keep.md).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from arms import PUBLIC, REPOSITORY
from collect import add
from packed import read_study
from studies import STUDIES

from msmae.data.opening import cache_folder
from msmae.evaluation.keep import Point, forget_selection, predict_split
from msmae.inference.model import Model, load
from msmae.statistics.predictions import write_predictions
from msmae.training.prepare import Prepared, prepare_again
from msmae.training.selecting.adapt import adapt_model
from msmae.verbs.budget import budget

QUARTER, EVEN = Point("locator", 0.25), Point("grid", 0.25)
FILES = ("budget.json", "keep/predictions_all.csv", "keep/predictions_quarter.csv", "keep/lesions.json")
"""Those in keep/ are of this experiment: a run has a predictions_quarter.csv of its own, by the attention."""
FILES_EVEN = ("keep/predictions_quarter.csv",)


def main() -> None:
    """Prepare and measure every finished run of one arm on one data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=STUDIES)
    parser.add_argument("--arm", default="msmae")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--runs", type=Path, help="folder of ARM/SEED runs; default runs/experiments/DATA")
    parser.add_argument("--presentations", type=int, default=100_000)
    parser.add_argument("--even", action="store_true", help="the control: patches spread evenly")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    runs = asked.runs or REPOSITORY / "runs" / "experiments" / asked.data
    variant, files = (f"{asked.data}+keep-even", FILES_EVEN) if asked.even else (f"{asked.data}+keep", FILES)
    for seed in asked.seeds:
        run, results = runs / asked.arm / seed, REPOSITORY / "results"
        place = f"{asked.arm}/{seed}"
        if {f"{place}/{Path(name).name}" for name in files} <= read_study(results, variant).files():
            print(f"{variant}, {place}: there already")
            continue
        if not (run / "metrics.json").is_file():
            print(f"{run}: not finished yet")
            continue
        if asked.even:
            run = write_even_quarter(
                run, REPOSITORY / "runs" / "experiments" / variant / asked.arm / seed, asked.presentations
            )
        else:
            if not (run / "budget.json").is_file():
                budget(str(run), presentations=asked.presentations)
            write_quarter(run)
        with TemporaryDirectory() as folder:  # where they lie as they will in the study
            target = Path(folder) / place
            target.mkdir(parents=True)
            copies = [Path(shutil.copy(run / name, target)) for name in files]
            add(Path(folder), copies, results, variant, roots=[PUBLIC, REPOSITORY, runs, cache_folder()])


def write_even_quarter(run: Path, control: Path, presentations: int) -> Path:
    """A copy of a run, prepared for evenly spread patches, and what it says of the test images; the copy's folder."""
    if not control.is_dir():
        unfinished = control.with_name(f"{control.name}.part")
        heavy = shutil.ignore_patterns("keep", "looks", "panels", "logs", "checkpoints", "pretrained")
        shutil.copytree(run, unfinished, ignore=heavy, dirs_exist_ok=True)
        forget_selection(unfinished)
        unfinished.rename(control)
    prepared = prepare_again(control)
    if load(control).prepared is None:
        adapt_model(prepared, control, presentations=presentations, selector=EVEN.selector)
    found = predict_split(load(control), prepared, EVEN, split="test")
    write_predictions(found, control / "keep" / "predictions_quarter.csv")
    return control


def write_quarter(run: Path) -> None:
    """The test images predicted from all patches and from the located quarter, and the lesion patches in it."""
    prepared, model, folder = prepare_again(run), load(run), run / "keep"
    for name, point in (("all", Point("all", 1.0)), ("quarter", QUARTER)):
        write_predictions(predict_split(model, prepared, point, split="test"), folder / f"predictions_{name}.csv")
    (folder / "lesions.json").write_text(json.dumps(lesions_kept(model, prepared), indent=1) + "\n", encoding="utf-8")


def lesions_kept(model: Model, prepared: Prepared) -> dict[str, Any]:
    """Of the patches with any lesion in them, the share that the locator keeps on test; None without masks."""
    if prepared.store.masks is None:
        return {"images": 0, "patches": 0, "kept": None}
    kept = patches = images = 0
    ids, size = prepared.ids("test"), model.card.patch_size
    for rows in np.array_split(ids, max(1, len(ids) // 256)):
        masks = torch.from_numpy(prepared.store.fetch_masks(rows) > 0).float().unsqueeze(1)
        lesion = F.max_pool2d(masks, size).flatten(1) > 0  # [B, N]
        positions = model.looked_at(
            prepared.store.fetch(rows).astype(np.float32), QUARTER.keep, selector=QUARTER.selector
        )
        seen = torch.zeros_like(lesion).scatter_(1, positions, True)
        kept, patches = kept + int((seen & lesion).sum()), patches + int(lesion.sum())
        images += int(lesion.any(dim=1).sum())
    return {"images": images, "patches": patches, "kept": kept / patches if patches else None}


if __name__ == "__main__":
    main()
