"""From a comparison's working folder to ``results/``: what the pages are rebuilt from, and no weights.

Paths become relative to the data's folder, so that the files say the same on every machine. Of the images the tested
ones are kept, of a run's metrics what was tested and what it cost; of validation, which chose the epoch, the figures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock
from packed import Study, gather, read_study, unpack, write_study

OF_A_RUN = (
    "metrics.json", "config.yaml", "environment.json", "predictions*.csv", "segmentation.csv", "map_quality.csv",
)  # fmt: skip
OF_THE_WHOLE = ("comparison.json", "audit.json")


def collect(work: Path, results: Path, name: str, *, roots: list[Path]) -> int:
    """Add every finished run of a comparison to results/NAME.npz; the number of runs that it then holds."""
    files = [work / file for file in OF_THE_WHOLE if (work / file).is_file()]
    for run in finished(work):
        files += files_of(run)
    study = add(work, files, results, name, roots=roots)
    return sum(file.endswith("/metrics.json") for file in study.texts)


def files_of(run: Path) -> list[Path]:
    """What is kept of a run. Its answers for patients follow from those for images and are left out."""
    found = [file for pattern in OF_A_RUN for file in run.glob(pattern)]
    return [file for file in found if file.name != "predictions_patients.csv"]


def add(folder: Path, files: Iterable[Path], results: Path, name: str, *, roots: list[Path]) -> Study:
    """Add these files of a folder to results/NAME.npz, in the place of those of the same path; the study then."""
    new = gather(folder, files)
    for file, text in new.texts.items():
        new.texts[file] = short_metrics(without(roots, text)) if file.endswith("metrics.json") else without(roots, text)
    for file, table in new.tables.items():
        new.tables[file] = tested(table).assign(image_path=[without(roots, path) for path in tested(table).image_path])
    with one_at_a_time(results):
        held = read_study(results, name)
        study = Study({**held.texts, **new.texts}, {**held.tables, **new.tables})
        write_study(study, results, name)
    return study


def add_text(file: str, text: str, results: Path, name: str) -> None:
    """Add one file, by its path in the study, to results/NAME.npz."""
    with one_at_a_time(results):
        study = read_study(results, name)
        study.texts[file] = text
        write_study(study, results, name)


@contextmanager
def one_at_a_time(results: Path) -> Iterator[None]:
    """Processes that share the runs of a comparison collect one after the other."""
    results.mkdir(parents=True, exist_ok=True)
    with FileLock(results / ".lock"):
        yield


def restore(results: Path, name: str, work: Path, *, roots: list[Path]) -> None:
    """Put collected runs where a comparison looks for them: a run that exists is not made again. Its images are named
    where they are on this machine, as in the runs that will stand beside it.
    """
    study = read_study(results, name)
    of_runs = {file.rpartition("/")[0] for file in study.texts if file.endswith("/metrics.json")}
    absent = {run for run in of_runs if not (work / run / "metrics.json").is_file()}
    wanted = Study(
        {file: text for file, text in study.texts.items() if file.rpartition("/")[0] in absent},
        {file: table for file, table in study.tables.items() if file.rpartition("/")[0] in absent},
    )
    if "comparison.json" in study.texts and not (work / "comparison.json").is_file():
        wanted.texts["comparison.json"] = study.texts["comparison.json"]
    unpack(wanted, work)
    for run in sorted(of_runs):
        for file in (work / run).glob("predictions*.csv"):  # those put there before, too
            name_in_full(file, roots=roots)


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


def tested(table: pd.DataFrame) -> pd.DataFrame:
    """The test images of a table, without the numbers that samples have in one process."""
    return table[table["split"] == "test"].drop(columns="sample", errors="ignore").reset_index(drop=True)


def short_metrics(text: str) -> str:
    """A run's metrics without the figures of single classes and of validation's curves."""
    metrics = json.loads(text)
    splits = metrics.get("splits")
    if not splits:
        return text
    short = {name: {key: value for key, value in of.items() if key != "per_class"} for name, of in splits.items()}
    metrics["splits"] = {name: of for name, of in short.items() if name == "test"}
    metrics["not_collected"] = {
        name: {metric: entry.get("value") for metric, entry in of.get("metrics", {}).items()}
        for name, of in short.items()
        if name != "test"
    }
    return json.dumps(metrics, indent=1) + "\n"


def without(roots: list[Path], text: str) -> str:
    """The text without the folders of this machine."""
    for root in roots:
        text = text.replace(f"{root}/", "")
    return text
