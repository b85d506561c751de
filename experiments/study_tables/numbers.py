"""The numbers of the comparisons, all at once: FOLDER/table.csv, from which pages are written."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

from threadpoolctl import threadpool_limits

from msmae.errors import UserError
from study_tables import comparison, segmentation


def part(folder: Path) -> ModuleType:
    """What makes the numbers and the text of a comparison."""
    plan = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return segmentation if plan.get("task") == "segmentation" else comparison


def write(folder: Path) -> None:
    """FOLDER/table.csv; where no seed is finished for all arms, FOLDER/unfinished.txt says so."""
    try:
        text = part(folder).numbers(folder)
    except UserError as problem:
        (folder / "unfinished.txt").write_text(problem.what, encoding="utf-8")
        return
    (folder / "table.csv").write_text(text, encoding="utf-8")


def write_all(results: Path, wanted: set[str]) -> None:
    """Of the studies that are comparisons, side by side: they take longest, and none needs another."""
    folders = [results / name for name in sorted(wanted) if (results / name / "comparison.json").is_file()]
    with threadpool_limits(1):
        if len(folders) < 2:
            for folder in folders:
                write(folder)
            return
        spawn = get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), spawn, threadpool_limits, (1,)) as pool:
            list(pool.map(write, folders))
