"""Who is in the data: images and patients by split, and what the manifest knows about them ("table 1")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from msmae.reporting.wording import count, of, percentage, split_name
from msmae.statistics.predictions import CLUSTER, UNSURE, cluster_count, names_patient

ORDER = ("train", "val", "test", "external", "")
STRUCTURE = (
    "image_path", "as_given", "label", "patient_id", "split", "mask_path", "axis", "index", "frame", "cluster",
    "ensemble_fold",
)  # fmt: skip
"""Columns that say what an image is, not who it is of."""
FEW = 12  # values: a column with more is a name or a measurement, not a group
AGE_BANDS = (0, 20, 40, 60, 80)


@dataclass(frozen=True)
class Group:
    """A column that divides the images: site, sex, age band, ..."""

    name: str
    values: pd.Series
    """str, one an image; "" where not known."""
    order: tuple[str, ...]
    """The values that occur, without ""."""


@dataclass(frozen=True)
class Row:
    """One line of table 1: a heading (no cells), or a cell for each split."""

    name: str
    cells: tuple[tuple[str, str], ...] = ()
    """A number and its share; either may be empty."""


def split_order(manifest: pd.DataFrame) -> list[str]:
    """The splits that occur: training, validation, test, external, then images not used."""
    return [split for split in ORDER if (manifest["split"] == split).any()]


def patients(rows: pd.DataFrame) -> int | None:
    """How many patients these images are of; None when none is named."""
    return rows.loc[names_patient(rows), "patient_id"].nunique() or None


def split_clusters(rows: pd.DataFrame) -> int | None:
    """How many clusters of near-identical images are in more than one split; None where there are no clusters."""
    if not cluster_count(rows):
        return None
    name = rows["cluster"] if "cluster" in rows else rows["patient_id"]
    near = rows[name.str.startswith(CLUSTER)]
    return int((near.groupby(name)["split"].nunique() > 1).sum())


def groups(manifest: pd.DataFrame) -> list[Group]:
    """The columns worth dividing by: at least two and at most twelve values, and ages in bands of 20 years."""
    found = []
    for column in manifest.columns:
        if column in STRUCTURE:
            continue
        values = manifest[column].astype(str).str.strip()
        if is_age(column):
            values = age_bands(years(values))
        kinds = sorted(set(values) - {""}, key=_natural)
        if 2 <= len(kinds) <= FEW:
            found.append(Group(name=readable(column), values=values, order=tuple(kinds)))
    return found


def table_one(manifest: pd.DataFrame, *, classes: tuple[str, ...], multilabel: bool) -> tuple[list[str], list[Row]]:
    """Column heads and rows: images, patients, classes, ages and groups for each split."""
    splits = split_order(manifest)
    inside = [manifest["split"] == split for split in splits]

    def share(flags: pd.Series, among: pd.Series | None = None) -> tuple[tuple[str, str], ...]:
        asked = [rows if among is None else rows & among for rows in inside]
        return tuple(
            (f"{int(flags[rows].sum()):,}", percentage(flags[rows].mean()) if rows.any() else "") for rows in asked
        )

    clusters = tuple((count(cluster_count(manifest[rows])), "") for rows in inside)
    rows = [
        Row("Images", tuple((f"{int(rows.sum()):,}", "") for rows in inside)),
        Row("Patients", tuple((count(patients(manifest[rows])), "") for rows in inside)),
        *([Row("Clusters of near-identical images", clusters)] if any(text != "0" for text, _ in clusters) else []),
        *([Row("Class")] if classes else []),
    ]
    for name in classes:
        has, unsure = (has_label(manifest["label"], said, multilabel=multilabel) for said in (name, f"{UNSURE}{name}"))
        unsure &= ~has
        rows.append(Row(name, share(has, ~unsure)))  # of those of which it is known
        if multilabel and unsure.any():
            rows.append(Row(f"{name}: not known", share(unsure)))
    unlabelled = manifest["label"] == ""
    if classes and unlabelled.any():
        rows.append(Row("no label", share(unlabelled)))
    for column in filter(is_age, manifest.columns):
        ages = years(manifest[column])
        rows += [Row("Age in years"), Row("mean ± SD, range", tuple(_spread(ages[place]) for place in inside))]
    for group in groups(manifest):
        rows.append(Row(group.name.capitalize()))
        rows += [Row(value, share(group.values == value)) for value in group.order]
        if (group.values == "").any():
            rows.append(Row("not known", share(group.values == "")))
    return [split_name(split) for split in splits], rows


def has_label(labels: pd.Series, name: str, *, multilabel: bool) -> pd.Series:
    """Whether each image has the class; several labels are joined by ``;``."""
    if not multilabel:
        return labels == name
    return labels.map(lambda text: name in [piece.strip() for piece in text.split(";")]).astype(bool)


def is_age(column: str) -> bool:
    """Whether a column of this name holds ages."""
    return column.lower() in ("age", "patient_age", "age_years")


def years(text: pd.Series) -> pd.Series:
    """Ages in years, float64, nan where not known; DICOM's ``045Y``, ``018M``, ``003W`` and ``010D`` are read, too, and
    ``60,5``."""
    unit = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}

    def one(value: str) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([YMWD]?)", str(value).strip().upper().replace(",", "."))
        return float(match[1]) * unit[match[2] or "Y"] if match else np.nan

    return text.map(one).astype(np.float64)


def age_bands(ages: pd.Series) -> pd.Series:
    """``0-19``, ``20-39``, ..., ``80+``; "" where not known."""
    names = [f"{low}–{high - 1}" for low, high in pairwise(AGE_BANDS)] + [f"{AGE_BANDS[-1]}+"]
    place = np.searchsorted(AGE_BANDS, ages.fillna(0).to_numpy(), side="right") - 1
    return pd.Series(np.array(names, dtype=object)[place], index=ages.index).where(ages.notna(), "")


def match_rows(manifest: pd.DataFrame, predictions: pd.DataFrame) -> np.ndarray:
    """For each prediction the place of its image in the manifest, int64 [n], -1 where it cannot be told.

    The two may name an image relative to different folders, so the shorter path must be the end of the longer one,
    and of one image only.
    """
    place_columns = [name for name in ("axis", "index", "frame") if name in manifest and name in predictions]
    known: dict[tuple[str, ...], dict[str, int]] = {}
    depths = {path.count("/") + 1 for path in predictions["image_path"]}
    keys = manifest[place_columns].itertuples(index=False, name=None) if place_columns else [()] * len(manifest)
    for row, (path, key) in enumerate(zip(manifest["image_path"], keys, strict=True)):
        endings = known.setdefault(tuple(key), {})
        parts = path.replace("\\", "/").split("/")
        for name in {path, *("/".join(parts[-depth:]) for depth in depths)}:
            endings[name] = -1 if name in endings else row  # of two images: neither
    wanted = predictions[place_columns].itertuples(index=False, name=None) if place_columns else [()] * len(predictions)
    return np.array(
        [known.get(tuple(key), {}).get(path, -1) for path, key in zip(predictions["image_path"], wanted, strict=True)],
        dtype=np.int64,
    )


def readable(column: str) -> str:
    """``patient_age`` -> patient age."""
    return column.replace("_", " ").strip()


def sentence(rows: pd.DataFrame) -> str:
    """ "603 images of 296 patients", or without the patients when none is named."""
    named = cluster_count(rows)
    together = f", with {of(named, 'cluster')} of near-identical images" if named else ""
    return images_of_patients(len(rows), patients(rows)) + together


def images_of_patients(images: int, named: int | None) -> str:
    """The same from numbers; ``named`` is None when the patients are not known."""
    return of(images, "image") + ("" if named is None else f" of {of(named, 'patient')}")


def _spread(ages: pd.Series) -> tuple[str, str]:
    known = ages.dropna()
    if known.empty:
        return "unknown", ""
    deviation = f" ± {known.std():.1f}" if len(known) > 1 else ""
    unknown = f"; {len(ages) - len(known)} unknown" if len(known) < len(ages) else ""
    return f"{known.mean():.1f}{deviation}", f"{known.min():.0f} to {known.max():.0f}{unknown}"


def _natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key: numbers by value, words by letter."""
    return tuple(
        (0, float(piece), "") if piece.isdigit() else (1, 0.0, piece) for piece in re.split(r"(\d+)", text) if piece
    )
