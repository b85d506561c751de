"""The files of results/: one compressed file a study, and one table a data set that says which image is which.

NumPy alone reads them, without pickle; ``experiments/recompute.py`` does:

    study = numpy.load("results/ham10000.npz")
    about = json.loads(study["about"].tobytes())    # {"groups": [...]}, a group for all tables of the same images
    group = about["groups"][0]                      # {"images", "tables": [ARM/SEED/FILE...], "columns", "coded"}
    study["0/prob_nv"][0]                           # float32, of the group's first table, a value an image
    numpy.load(f"results/images/{group['images']}.npz")["label"]    # text, in the same order
    texts = json.loads(study["texts"].tobytes())    # settings, metrics and versions: {ARM/SEED/FILE: its text}

Here a study is what its working folder was: ``gather`` reads that, ``unpack`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RECORD = "record.json"
IMAGES = "images"
"""The folder in results/ with the tables of images."""
NAMES_AN_IMAGE = ("image_path", "axis", "index", "frame", "patient_id", "cluster", "split", "label", "class")
CODED = ("predicted", "predicted_plain", "answers")
"""Columns of predictions that hold a category (answers: the rule of ``predicted``); all others are numbers."""


@dataclass
class Study:
    """The files of a study by their path in its folder: ``msmae/0/predictions.csv``."""

    texts: dict[str, str] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Of predictions and of segmentations: text as text, numbers as float64 that float32 holds exactly."""

    def files(self) -> set[str]:
        """The paths of all files."""
        return {*self.texts, *self.tables}


def names(results: Path) -> list[str]:
    """The studies in results/."""
    return sorted(path.stem for path in results.glob("*.npz"))


def write_study(study: Study, results: Path, name: str) -> Path:
    """Write results/NAME.npz, whole or not at all, and the tables of images that are not there yet."""
    arrays: dict[str, np.ndarray] = {}
    groups: list[dict[str, Any]] = []
    for frames in alike(study.tables):
        first = next(iter(frames.values()))
        group: dict[str, Any] = {
            "images": name_of_images(first, results, name.partition("+")[0]),
            "tables": list(frames),
            "columns": [column for column in first if column not in NAMES_AN_IMAGE],
            "coded": {},
        }
        for column in group["columns"]:
            values = [frame[column].to_numpy() for frame in frames.values()]
            if is_coded(column, next(iter(frames))):
                categories = sorted({str(value) for one in values for value in one})
                group["coded"][column] = categories
                stacked = np.stack([np.searchsorted(categories, one.astype(str)) for one in values]).astype(np.uint8)
                if len(categories) > 256:
                    raise ValueError(f"{name}: {column} has more than 256 categories")
            else:
                stacked = np.stack(values).astype(np.float32)
            arrays[f"{len(groups)}/{column}"] = stacked  # [T, n]
        groups.append(group)
    texts = dict(sorted(study.texts.items()))
    whole = {"about": as_bytes({"format_version": 1, "groups": groups}), "texts": as_bytes(texts), **arrays}
    return save(results / f"{name}.npz", whole)


def read_study(results: Path, name: str) -> Study:
    """What results/NAME.npz holds; an empty study where there is none."""
    path = results / f"{name}.npz"
    if not path.is_file():
        return Study()
    with np.load(path, allow_pickle=False) as held:
        about, texts = (json.loads(held[key].tobytes()) for key in ("about", "texts"))
        study = Study(texts=texts)
        for number, group in enumerate(about["groups"]):
            images = read_images(results, group["images"])
            columns = {column: held[f"{number}/{column}"] for column in group["columns"]}
            for place, table in enumerate(group["tables"]):
                found = dict(images)
                for column, values in columns.items():
                    coded = group["coded"].get(column)
                    of_table = values[place]
                    found[column] = (
                        np.array(coded, dtype=object)[of_table] if coded is not None else of_table.astype(np.float64)
                    )
                study.tables[table] = pd.DataFrame(found)
    return study


def gather(folder: Path, files: Iterable[Path]) -> Study:
    """The study that these files of a folder are; numbers are rounded to float32. What records the files as they were
    written (record.json) is left out."""
    study = Study()
    for file in sorted(file for file in files if file.name != RECORD):
        name = file.relative_to(folder).as_posix()
        if is_table(name):
            study.tables[name] = read_table(file)
        else:
            study.texts[name] = file.read_text(encoding="utf-8")
    return study


def unpack(study: Study, folder: Path) -> None:
    """Write the files of a study."""
    for name, text in study.texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name, table in study.tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_table(table, folder / name)


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table of a study as the CSV that it was."""
    table.to_csv(file, index=False, encoding="utf-8", errors="surrogateescape", lineterminator="\n")


def read_table(file: Path) -> pd.DataFrame:
    """A CSV of predictions or of a segmentation, its numbers rounded to float32."""
    table = pd.read_csv(file, dtype=object, keep_default_na=False, encoding="utf-8", encoding_errors="surrogateescape")
    for column in table:
        if column not in NAMES_AN_IMAGE and not is_coded(column, file.name):
            numbers = np.where(table[column] == "", "nan", table[column]).astype(np.float64)
            table[column] = numbers.astype(np.float32).astype(np.float64)
    return table


def is_table(name: str) -> bool:
    """Whether a file holds one row per image."""
    file = name.rpartition("/")[2]
    return file == "segmentation.csv" or (file.startswith("predictions") and file.endswith(".csv"))


def is_coded(column: str, table: str) -> bool:
    """Whether a column holds a category: the class that is predicted, but not the pixels of a segmentation."""
    return column in CODED and not table.endswith("segmentation.csv")


def alike(tables: dict[str, pd.DataFrame]) -> list[dict[str, pd.DataFrame]]:
    """Tables in groups of those with the same images in the same order, and the same columns."""
    groups: dict[Any, dict[str, pd.DataFrame]] = {}
    for name, table in sorted(tables.items()):
        groups.setdefault((content(table), tuple(table), is_coded("predicted", name)), {})[name] = table
    return list(groups.values())


def content(table: pd.DataFrame) -> tuple[Any, ...]:
    """What a table says about its images, in a form to compare."""
    return tuple((column, tuple(table[column])) for column in NAMES_AN_IMAGE if column in table)


def read_images(results: Path, name: str) -> dict[str, np.ndarray]:
    """The columns that name the images of a data set, text each."""
    with np.load(results / IMAGES / f"{name}.npz", allow_pickle=False) as held:
        return {column: held[column].astype(object) for column in held.files}


def name_of_images(table: pd.DataFrame, results: Path, data: str) -> str:
    """The table of images that says the same, of whichever data set; it is written where there is none."""
    wanted = content(table)
    for path in sorted((results / IMAGES).glob("*.npz")):
        if content(pd.DataFrame(read_images(results, path.stem))) == wanted:
            return path.stem
    name, number = data, 1
    while (results / IMAGES / f"{name}.npz").is_file():
        number += 1
        name = f"{data}-{number}"
    save(results / IMAGES / f"{name}.npz", {column: np.array(values, dtype=np.str_) for column, values in wanted})
    return name


def as_bytes(content: Any) -> np.ndarray:
    """JSON as an array."""
    return np.frombuffer(json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8"), dtype=np.uint8)


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write an npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return unfinished.replace(path)
