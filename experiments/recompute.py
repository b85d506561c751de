"""Recompute a comparison's table from its predictions, with NumPy and nothing of msmae.

    python experiments/recompute.py results/NAME.npz     against results/tables/NAME.csv
    python experiments/recompute.py DIR                  the --out of `msmae compare`, against DIR/table.csv

Means of the seeds must agree with the table to 1e-9. The intervals of the paired differences are made again from an
independent bootstrap (own draws, own code): their half-widths must agree within the error that two bootstraps of this
size have, five standard errors of it. Exit status 1 names every number that does not.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EXACT = 1e-9
IDENTITY = ("image_path", "axis", "index", "frame")


@dataclass
class Rows:
    """The labelled test images of one run: who, what is true, what was said, and the probabilities [n, C]."""

    images: np.ndarray
    patients: np.ndarray
    truth: np.ndarray
    said: np.ndarray
    scores: np.ndarray


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    plan, runs, table = (
        from_npz(options.comparison) if options.comparison.is_file() else from_folder(options.comparison)
    )
    if plan.get("multilabel"):
        print("several labels per image: this script recomputes single-label comparisons only")
        return 2
    classes = plan["classes"]
    arms = [arm for arm in plan["arms"] if any((arm, seed) in runs for seed in plan["seeds"])]
    seeds = [seed for seed in plan["seeds"] if all((arm, seed) in runs for arm in arms)]
    runs = {(arm, seed): runs[arm, seed] for arm in arms for seed in seeds}

    problems, compared = [], 0
    for row in [row for row in table if row["kind"] == "mean"]:
        ours = np.mean([value(row["metric"], runs[row["first"], seed], classes) for seed in seeds])
        compared += 1
        theirs = float(row["value"] or "nan")
        if not np.isclose(ours, theirs, rtol=0, atol=EXACT, equal_nan=True):
            problems.append(f"{row['first']} {row['metric']}: {ours} here, {row['value'] or 'nothing'} in the table")

    draws = resampled(runs, classes, sorted({row["metric"] for row in table}), options.resamples)
    patients = len(set().union(*(set(rows.patients) for rows in runs.values())))
    for row in [row for row in table if row["kind"] == "difference"]:
        name, pair = row["metric"], (row["first"], row["second"])
        first, second = ([value(name, runs[arm, seed], classes) for seed in seeds] for arm in pair)
        drawn = np.mean([draws[pair[0], seed][name] - draws[pair[1], seed][name] for seed in seeds], axis=0)
        compared += 1
        problems += check_difference(row, np.array(first) - np.array(second), drawn, patients=patients)
    for problem in problems:
        print(problem)
    print(f"{compared} numbers of {len(arms)} arms x {len(seeds)} seeds recomputed, {len(problems)} disagree")
    return 1 if problems else 0


def from_npz(path: Path) -> tuple[dict, dict, list[dict]]:
    """The plan, the finished runs by (arm, seed), and the rows of the table, of a study in results/."""
    with np.load(path, allow_pickle=False) as study:
        about, texts = (json.loads(study[name].tobytes()) for name in ("about", "texts"))
        plan, runs = json.loads(texts["comparison.json"]), {}
        for number, group in enumerate(about["groups"]):
            places = {name: place for place, name in enumerate(group["tables"]) if name.endswith("/predictions.csv")}
            if not places:
                continue
            with np.load(path.parent / "images" / f"{group['images']}.npz", allow_pickle=False) as held:
                images = {column: held[column] for column in held.files}
            said = np.array(group["coded"]["predicted"])[study[f"{number}/predicted"]]
            scores = np.stack([study[f"{number}/prob_{c}"] for c in plan["classes"]], axis=2).astype(float)
            for name, place in places.items():
                arm, seed, _ = name.split("/")
                runs[arm, int(seed)] = rows_of({**images, "predicted": said[place]}, scores[place])
    return plan, runs, read_csv(path.parent / "tables" / f"{path.stem}.csv")


def from_folder(folder: Path) -> tuple[dict, dict, list[dict]]:
    """The same of a comparison's folder; the folds of a seed are joined."""
    plan = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    folds, runs = int(plan.get("folds") or 0), {}
    for arm in plan["arms"]:
        for seed in plan["seeds"]:
            names = [f"{seed}-fold{k}" for k in range(1, folds + 1)] if folds else [str(seed)]
            if all((folder / arm / name / "metrics.json").is_file() for name in names):
                rows = [row for name in names for row in read_csv(folder / arm / name / "predictions.csv")]
                columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
                scores = np.array([[row[f"prob_{c}"] for c in plan["classes"]] for row in rows], dtype=float)
                runs[arm, seed] = rows_of(columns, scores)
    return plan, runs, read_csv(folder / "table.csv")


def read_csv(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def rows_of(columns: dict, scores: np.ndarray) -> Rows:
    """The labelled test rows, in the order of the images; an unknown patient is a patient of his own."""
    images = np.array(["|".join(parts) for parts in zip(*(columns[n] for n in IDENTITY if n in columns), strict=True)])
    patients = np.where(columns["patient_id"] == "", images, columns["patient_id"])
    kept = np.flatnonzero((columns["split"] == "test") & (columns["label"] != ""))
    kept = kept[np.argsort(images[kept], kind="stable")]
    return Rows(images[kept], patients[kept], columns["label"][kept], columns["predicted"][kept], scores[kept])


def value(name: str, rows: Rows, classes: list[str], weights: np.ndarray | None = None) -> float:
    """One metric of these rows, each counted ``weights`` times."""
    truth, said = (np.searchsorted(sorted(classes), one) for one in (rows.truth, rows.said))
    order = np.argsort(np.argsort(classes))  # class -> its place among the sorted
    w = np.ones(len(truth)) if weights is None else weights
    if name in ("accuracy", "balanced_accuracy", "mcc", "kappa_quadratic"):
        table = np.zeros((len(classes), len(classes)))  # [truth, said], classes in their own order
        np.add.at(table, (truth, said), w)
        return from_counts(name, table[np.ix_(order, order)])
    has = truth[:, None] == order  # [n, C]
    if name == "brier":
        squares = ((rows.scores - has) ** 2).sum(axis=1)
        return float(np.average(squares, weights=w)) / (2 if len(classes) == 2 else 1)
    if name == "ece":
        return calibration_error(rows.scores, has, w)
    areas = []
    for c in range(len(classes)):
        if has[:, c].any() and not has[:, c].all():
            if not w[has[:, c]].any() or not w[~has[:, c]].any():
                return float("nan")
            areas.append(area(name, has[:, c], rows.scores[:, c], w))
    return float(np.mean(areas))


def from_counts(name: str, table: np.ndarray) -> float:
    """What the confusion matrix [truth, said] says."""
    n, of_truth, of_said, right = table.sum(), table.sum(axis=1), table.sum(axis=0), np.trace(table)
    if name == "accuracy":
        return float(right / n)
    if name == "balanced_accuracy":
        return float(np.mean(np.diag(table)[of_truth > 0] / of_truth[of_truth > 0]))
    if name == "mcc":
        spread = (n * n - of_said @ of_said) * (n * n - of_truth @ of_truth)
        return float((n * right - of_truth @ of_said) / math.sqrt(spread)) if spread > 0 else float("nan")
    apart = np.subtract.outer(np.arange(len(table)), np.arange(len(table))) ** 2
    chance = (apart * np.outer(of_truth, of_said)).sum() / n
    return float(1 - (apart * table).sum() / chance)


def area(name: str, has: np.ndarray, score: np.ndarray, w: np.ndarray) -> float:
    """The area under the ROC curve, or the average precision, of one class."""
    levels, place = np.unique(-score, return_inverse=True)  # the largest score first
    hits = np.bincount(place, weights=w * has, minlength=len(levels))
    others = np.bincount(place, weights=w * ~has, minlength=len(levels))
    true, false = np.cumsum(hits), np.cumsum(others)
    if name == "auroc":
        return float((others * (true - hits / 2)).sum() / (true[-1] * false[-1]))
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
    return float((precision * hits).sum() / true[-1])


def calibration_error(scores: np.ndarray, has: np.ndarray, w: np.ndarray) -> float:
    """15 bins of equal width, of the largest probability against being right (Guo et al. 2017)."""
    top, right = scores.max(axis=1), has[np.arange(len(has)), scores.argmax(axis=1)]
    total = 0.0
    for k in range(15):
        inside = (top > k / 15) & (top <= (k + 1) / 15)
        total += abs(np.sum(w[inside] * (top[inside] - right[inside])))
    return float(total / w.sum())


def resampled(runs: dict, classes: list[str], names: list[str], resamples: int) -> dict:
    """Every metric of every run under the same draws of patients: (arm, seed) -> metric -> [R]."""
    generator = np.random.default_rng(20_000)
    everyone = np.unique(np.concatenate([rows.patients for rows in runs.values()]))
    found = {key: {name: np.empty(resamples) for name in names} for key in runs}
    who = {key: np.searchsorted(everyone, rows.patients) for key, rows in runs.items()}
    present = {key: len(set(rows.truth)) for key, rows in runs.items()}
    for r in range(resamples):
        counts = np.bincount(generator.integers(len(everyone), size=len(everyone)), minlength=len(everyone))
        for key, rows in runs.items():
            w = counts[who[key]].astype(float)
            complete = len(set(rows.truth[w > 0])) == present[key]
            for name in names:
                lacking = name == "balanced_accuracy" and not complete  # a class without an image
                found[key][name][r] = np.nan if lacking else value(name, rows, classes, w)
    return found


def check_difference(row: dict, apart: np.ndarray, drawn: np.ndarray, *, patients: int) -> list[str]:
    """Compare one difference and its interval with the table: nothing, or what is wrong."""
    name = f"{row['first']} - {row['second']} {row['metric']}"
    if row["value"] == "":
        return []  # undefined, with a reason beside it
    problems = []
    if not np.isclose(apart.mean(), float(row["value"]), rtol=0, atol=EXACT):
        problems.append(f"{name}: {apart.mean()} here, {row['value']} in the table")
    if row["low"] == "":
        return problems
    drawn = drawn[~np.isnan(drawn)]
    of_patients = drawn.var(ddof=1) * patients / (patients - 1)
    of_seeds = apart.var(ddof=1) / len(apart) if len(apart) > 1 else 0.0
    spread = of_patients + of_seeds
    if len(apart) > 1:  # Student's t with Satterthwaite's degrees of freedom
        freedom = spread**2 / (of_patients**2 / (patients - 1) + of_seeds**2 / (len(apart) - 1))
    else:  # BCa ends are not symmetric: only their distance is compared, and loosely
        freedom = patients - 1
    half, theirs = t_quantile(0.975, freedom) * np.sqrt(spread), (float(row["high"]) - float(row["low"])) / 2
    error = np.sqrt(1 / (2 * len(drawn)) + 1 / (2 * 2000))  # relative, of the quotient of two bootstraps' deviations
    allowed = 5 * error if len(apart) > 1 else 0.25
    if abs(half / theirs - 1) > allowed:
        problems.append(f"{name}: half an interval of {half:.6f} here, {theirs:.6f} in the table")
    return problems


def t_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t: with t = sqrt(f) tan(a), the density in the angle a is as cos(a)^(f - 1)."""
    angles = np.linspace(0, np.pi / 2, 400_001)
    heights = np.cos(angles) ** (freedom - 1) if freedom > 1 else np.cos(angles).clip(1e-12) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    return float(np.sqrt(freedom) * np.tan(np.interp(2 * share - 1, below / below[-1], angles)))


if __name__ == "__main__":
    sys.exit(main())
