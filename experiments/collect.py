"""From a comparison's working folder to ``results/``: what a table is rebuilt from, and no weights.

Paths become relative to the data's folder, so that the files say the same on every machine.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd

KEPT = ("metrics.json", "config.yaml", "environment.json", "predictions*.csv", "segmentation.csv", "map_quality.csv")
OF_THE_WHOLE = ("comparison.json", "audit.json")


def collect(work: Path, results: Path, *, roots: list[Path]) -> int:
    """Copy every finished run of a comparison; the number of runs that ``results`` then holds."""
    for name in OF_THE_WHOLE:
        if (work / name).is_file():
            copy(work / name, results / name, roots=roots)
    for run in finished(work):
        for pattern in KEPT:
            for file in sorted(run.glob(pattern)):
                copy(file, results / file.relative_to(work), roots=roots)
        if (run / "segmentation.csv").is_file():
            keep_test_rows(results / run.relative_to(work) / "segmentation.csv")
    return len(finished(results))


def restore(results: Path, work: Path, *, roots: list[Path]) -> None:
    """Put collected runs where a comparison looks for them: a run that exists is not made again. Its images are named
    where they are on this machine, as in the runs that will stand beside it.
    """
    for run in finished(results):
        target = work / run.relative_to(results)
        if not (target / "metrics.json").is_file():
            shutil.copytree(run, target, dirs_exist_ok=True)
        for file in target.glob("predictions*.csv"):  # those put there before, too
            name_in_full(file, roots=roots)
    if (results / "comparison.json").is_file() and not (work / "comparison.json").is_file():
        work.mkdir(parents=True, exist_ok=True)
        shutil.copy(results / "comparison.json", work)


def name_in_full(predictions: Path, *, roots: list[Path]) -> None:
    """Put before each relative path the folder in which there is such a file; left as it is where there is none."""
    table = pd.read_csv(predictions, dtype=str, keep_default_na=False)

    def in_full(path: str) -> str:
        if Path(path).is_absolute():
            return path
        folders = (root for root in roots if (root / path.partition("#")[0]).exists())
        return next((f"{root}/{path}" for root in folders), path)

    paths = table["image_path"].map(in_full)
    if paths.equals(table["image_path"]):
        return
    unfinished = predictions.with_name(f"{predictions.name}.{os.getpid()}")  # another process may be at it, or end this
    table.assign(image_path=paths).to_csv(unfinished, index=False, lineterminator="\n")
    unfinished.replace(predictions)


def finished(folder: Path) -> list[Path]:
    """The run folders ARM/SEED that hold a result."""
    return sorted(path.parent for path in folder.glob("*/*/metrics.json"))


def keep_test_rows(path: Path) -> None:
    """Leave out the validation images of a segmentation, and the numbers that samples have in one process."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table["split"] == "test"].drop(columns="sample", errors="ignore")
    table.to_csv(path, index=False, lineterminator="\n")


def copy(source: Path, target: Path, *, roots: list[Path]) -> None:
    """Copy a text file, leaving out the folders of this machine."""
    text = source.read_text(encoding="utf-8")
    for root in roots:
        text = text.replace(f"{root}/", "")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
