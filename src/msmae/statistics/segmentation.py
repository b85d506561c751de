"""The evidence of a segmentation: each image and class measured, then averaged, with intervals over patients.

Conventions, where the literature differs (Maier-Hein et al., "Metrics reloaded", Nature Methods 2024):

- Each image is measured by itself and the images are averaged; overall figures are means over the classes.
- Reference and prediction both empty: Dice, IoU, surface Dice and distance are undefined (nan) and the image is counted
  in ``both_empty``, not averaged. Only the reference empty: Dice, IoU and surface Dice are 0 (``false_alarms``); only
  the prediction empty: they are 0 too (``missed``). In both cases the distance is undefined.
- ``hd95`` is the larger of the two directed 95th percentiles of the distances between outlines; ``nsd`` (surface Dice,
  Nikolov et al. 2018) is the share of both outlines within the tolerance of the other. Outlines are the pixels of a
  region that have a neighbour (of four) outside; distances are in pixels.
- A lesion is a connected region (of eight neighbours) of the reference. It is found where a predicted region covers it
  with an IoU of at least 0.1; a predicted region that covers no lesion so is a false one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from msmae.errors import UserError, count
from msmae.statistics.intervals import bca, bca_p_value, draw_patients, entry, leave_out, undefined
from msmae.statistics.uncertainty import ONE_PATIENT

FIGURES = ("dice", "iou", "pixel_sensitivity", "pixel_precision", "hd95", "nsd")
COUNTS = ("lesions", "lesions_found", "regions", "regions_false")
HIT = 0.1
"""IoU from which a predicted region counts as having found a lesion."""
EIGHT = np.ones((3, 3), dtype=bool)


def measure(reference: np.ndarray, predicted: np.ndarray, *, tolerance: float = 1.0) -> dict[str, float]:
    """The figures of one class in one image, from two bool [H, W]; nan = undefined. ``tolerance`` is in pixels."""
    both, either = int((reference & predicted).sum()), int((reference | predicted).sum())
    inside, said = int(reference.sum()), int(predicted.sum())
    there, back = outline_distances(reference, predicted)
    apart = np.concatenate([there, back])
    lesions, found, regions, false = match_lesions(reference, predicted)
    one_sided = bool(inside) != bool(said)
    return {
        "reference": inside,
        "predicted": said,
        "dice": 2 * both / (inside + said) if either else np.nan,
        "iou": both / either if either else np.nan,
        "pixel_sensitivity": both / inside if inside else np.nan,
        "pixel_precision": both / said if said else np.nan,
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)) if inside and said else np.nan,
        "nsd": 0.0 if one_sided else float((apart <= tolerance).mean()) if len(apart) else np.nan,
        "lesions": lesions,
        "lesions_found": found,
        "regions": regions,
        "regions_false": false,
    }


def outline_distances(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each outline pixel of the first to the second's outline, and the reverse; none if one is empty."""
    if not first.any() or not second.any():
        return np.empty(0), np.empty(0)
    a, b = (region & ~ndimage.binary_erosion(region) for region in (first, second))
    return ndimage.distance_transform_edt(~b)[a], ndimage.distance_transform_edt(~a)[b]


def match_lesions(reference: np.ndarray, predicted: np.ndarray) -> tuple[int, int, int, int]:
    """Lesions, those found, predicted regions, and those that lie on no lesion."""
    truth, lesions = ndimage.label(reference, EIGHT)
    said, regions = ndimage.label(predicted, EIGHT)
    joint = np.histogram2d(
        truth.ravel(), said.ravel(), bins=(np.arange(lesions + 2) - 0.5, np.arange(regions + 2) - 0.5)
    )[0]  # [1 + lesions, 1 + regions] pixels
    union = joint.sum(axis=1)[1:, None] + joint.sum(axis=0)[None, 1:] - joint[1:, 1:]
    hits = joint[1:, 1:] >= HIT * union
    return lesions, int(hits.any(axis=1).sum()), regions, int((~hits.any(axis=0)).sum())


def summarise_segmentation(
    frame: pd.DataFrame, *, classes: Sequence[str], resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """All figures of every split, ready for JSON, from one row per image and class (segmentation.csv).

    Returns ``{split: {"n", "patients", "resamples", "metrics": {name: entry}, "per_class": {class: {"n", name: entry}},
    "counts": {class: {...}}, "by_size": [...], "notes"}}``; entries as in ``msmae.statistics.summary``. ``by_size`` has
    the Dice of the smallest, middle and largest third of the lesions by their share of the image.
    """
    if frame.empty:
        raise UserError("there are no segmentations to evaluate", mend="check that the test split has images")
    return {
        split: _split(frame[frame["split"] == split], classes, resamples, seed)
        for split in ("test", "val", "train")
        if (frame["split"] == split).any()
    }


def same_images(runs: Sequence[pd.DataFrame], *, split: str) -> list[pd.DataFrame]:
    """The runs' rows of a split, in one order. Raises UserError unless images, classes, patients and masks agree."""
    keys = ["image_path", *(c for c in ("axis", "index", "frame") if c in runs[0]), "class"]
    ordered = [run[run["split"] == split].sort_values(keys).reset_index(drop=True) for run in runs]
    same = [*keys, "patient_id", "reference"]
    if any(not run[same].equals(ordered[0][same]) for run in ordered):
        raise UserError(
            "the runs cannot be compared: their images, masks or patients differ", mend="evaluate both on one split"
        )
    return ordered


def read_segmentation(path: Path) -> pd.DataFrame:
    """A segmentation.csv: one row per image and class. Raises UserError where it is not there or is another table."""
    texts = {"image_path": str, "patient_id": str, "split": str, "class": str}
    frame = pd.read_csv(
        path, dtype=texts | {"cluster": str}, keep_default_na=False, na_values={name: [""] for name in FIGURES}
    )
    lacking = [name for name in (*texts, "reference", *FIGURES) if name not in frame]
    if lacking:
        raise UserError(f"the table has no column {', '.join(lacking)}", where=str(path), mend="evaluate the run again")
    return frame


def _split(rows: pd.DataFrame, classes: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    parts = {name: rows[rows["class"] == name].reset_index(drop=True) for name in classes}
    images = next(iter(parts.values()))
    patients = images["patient_id"].replace("", np.nan).nunique()
    metrics = {
        name: mean_entry(np.stack([part[name] for part in parts.values()], axis=1), images, resamples, seed)
        for name in FIGURES
    }
    metrics |= _lesion_entries(rows, resamples, seed)
    shown = np.stack([_of_lesions(part) for part in parts.values()], axis=1)
    metrics["dice_lesion"] = mean_entry(shown, images, resamples, seed)
    per_class = {
        label: {"n": int((part["reference"] > 0).sum())}
        | {name: mean_entry(part[[name]].to_numpy(float), part, resamples, seed) for name in FIGURES}
        | _lesion_entries(part, resamples, seed)
        | {"dice_lesion": mean_entry(_of_lesions(part)[:, None], part, resamples, seed)}
        for label, part in parts.items()
    }
    counts = {label: _empties(part) for label, part in parts.items()}
    return {
        "n": len(images),
        "patients": patients or None,
        "resamples": resamples,
        "metrics": metrics,
        "per_class": per_class,
        "counts": counts,
        "by_size": [_by_size(part, label, resamples, seed) for label, part in parts.items()],
        "notes": [note for label, part in counts.items() for note in _notes(label, part, len(images))],
    }


def _empties(part: pd.DataFrame) -> dict[str, int]:
    inside, said = part["reference"] > 0, part["predicted"] > 0
    return {
        "both_empty": int((~inside & ~said).sum()),
        "false_alarms": int((~inside & said).sum()),
        "missed": int((inside & ~said).sum()),
        "outlined": int((inside & said).sum()),
    }


def _notes(label: str, counts: dict[str, int], images: int) -> list[str]:
    empty = counts["both_empty"] + counts["false_alarms"]
    notes = []
    if empty:
        notes.append(
            f"without {label}: {empty} of {count(images, 'image')}; {counts['both_empty']} of them without an outline "
            f"(left out of the means), {counts['false_alarms']} with one (Dice 0)"
        )
    if counts["missed"]:
        notes.append(f"with {label} but without an outline: {count(counts['missed'], 'image')} (Dice 0, no distance)")
    return notes


def _of_lesions(part: pd.DataFrame) -> np.ndarray:
    """Dice of the images that show a lesion, [n]; nan elsewhere."""
    return part["dice"].where(part["reference"] > 0).to_numpy(float)


def _by_size(part: pd.DataFrame, label: str, resamples: int, seed: int) -> dict[str, Any]:
    """Dice of the smallest, middle and largest third of the lesions of a class."""
    shown = part[part["reference"] > 0]
    if len(shown) < 3:
        return {"class": label, "strata": []}
    edges = np.quantile(shown["share"], [1 / 3, 2 / 3])
    third = np.searchsorted(edges, shown["share"].to_numpy(), side="left")
    strata = []
    for number, name in enumerate(("small", "middle", "large")):
        rows = shown[third == number]
        if len(rows):
            dice = mean_entry(rows[["dice"]].to_numpy(float), rows, resamples, seed)
            span = [float(rows["share"].min()), float(rows["share"].max())]
            strata.append({"size": name, "share_of_image": span, "n": len(rows), "dice": dice})
    return {"class": label, "strata": strata}


def _lesion_entries(rows: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """Share of the lesions found, and of the predicted regions that lie on one."""
    hit = (rows["regions"] - rows["regions_false"]).to_numpy(float)
    return {
        "lesion_sensitivity": _ratio_entry(
            rows["lesions_found"].to_numpy(float), rows["lesions"].to_numpy(float), rows, resamples, seed
        ),
        "lesion_precision": _ratio_entry(hit, rows["regions"].to_numpy(float), rows, resamples, seed),
    }


def mean_entry(
    values: np.ndarray, rows: pd.DataFrame, resamples: int, seed: int, *, tested: bool = False
) -> dict[str, Any]:
    """Mean of [n, C] over the images where defined, then over the classes, with a BCa interval over patients."""
    defined = ~np.isnan(values)
    return _ratios(np.nan_to_num(values), defined.astype(float), rows, resamples, seed, tested=tested)


def _ratio_entry(above: np.ndarray, below: np.ndarray, rows: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """Sum over sum, with a BCa interval over patients."""
    return _ratios(above[:, None], below[:, None], rows, resamples, seed)


def _ratios(
    above: np.ndarray, below: np.ndarray, rows: pd.DataFrame, resamples: int, seed: int, *, tested: bool = False
) -> dict[str, Any]:
    """Mean over the columns of sum(above) / sum(below), both [n, C], with a BCa interval over draws of the patients."""
    if not below.any():
        return undefined("there is none in any image")
    figure, count = under_weights(above, below, rows)
    value = float(figure(np.ones((1, count)))[0])
    if count == 1:
        return entry(value, ONE_PATIENT) | ({"p_value": None} if tested else {})
    width = len(rows)
    draws = np.concatenate([figure(w) for w in draw_patients(count, width=width, resamples=resamples, seed=seed)])
    left_out = np.concatenate([figure(w) for w in leave_out(count, width=width, seed=seed)])
    found = entry(value, bca(value, draws, left_out, units=count))
    if tested:
        found["p_value"] = bca_p_value(draws, left_out, value, units=count)
    return found


def under_weights(
    above: np.ndarray, below: np.ndarray, rows: pd.DataFrame
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Weights of patients [R, P] -> mean over the columns of sum(above) / sum(below), both [n, C]; and P.

    A column that is undefined in every image is left out; one that a draw leaves without an image makes it undefined.
    """
    used = below.any(axis=0)
    units = _patients(rows)
    count = int(units.max()) + 1
    sums = [np.stack([np.bincount(units, column, count) for column in part[:, used].T], 1) for part in (above, below)]

    def figure(weights: np.ndarray) -> np.ndarray:
        top, bottom = weights @ sums[0], weights @ sums[1]  # [R, C]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(bottom > 0, top / bottom, np.nan).mean(axis=1))

    return figure, count


def _patients(rows: pd.DataFrame) -> np.ndarray:
    """The number of each row's patient; an image without one is a patient of its own."""
    names = np.where(rows["patient_id"] == "", "image " + rows["image_path"], "patient " + rows["patient_id"])
    if "cluster" in rows:
        alike = (rows["patient_id"] == "") & (rows["cluster"] != "")
        names = np.where(alike, "cluster " + rows["cluster"].astype(str), names)
    return np.asarray(np.unique(names.astype(str), return_inverse=True)[1])
