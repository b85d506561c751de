"""Recompute a comparison's table from its predictions, with scikit-learn and nothing of msmae.

    python experiments/recompute.py DIR [--resamples 1000]

DIR is the --out of `msmae compare`. Means of the seeds must agree with table.csv to 1e-9. The intervals of the paired
differences are made again from an independent bootstrap (own draws, own code): their half-widths must agree within the
error that two bootstraps of this size have, five standard errors of it. Exit status 1 names every number that does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics as sk

EXACT = 1e-9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)  # scikit-learn's on classes without predictions

    plan = json.loads((options.folder / "comparison.json").read_text(encoding="utf-8"))
    if plan.get("multilabel"):
        print("several labels an image: this script recomputes single-label comparisons only")
        return 2
    table = pd.read_csv(options.folder / "table.csv", keep_default_na=False)
    arms, seeds = finished(options.folder, plan)
    classes = plan["classes"]
    frames = {(arm, seed): test_rows(options.folder, arm, seed, plan) for arm in arms for seed in seeds}

    problems, compared = [], 0
    for row in table[table["kind"] == "mean"].itertuples():
        ours = [value(row.metric, frames[row.first, seed], classes) for seed in seeds]
        compared += 1
        theirs = float(row.value or "nan")
        if not np.isclose(np.mean(ours), theirs, rtol=0, atol=EXACT, equal_nan=True):
            problems.append(f"{row.first} {row.metric}: {np.mean(ours)} here, {row.value or 'nothing'} in table.csv")

    draws = resampled(frames, classes, sorted(set(table["metric"])), options.resamples)
    for row in table[table["kind"] == "difference"].itertuples():
        first = [value(row.metric, frames[row.first, seed], classes) for seed in seeds]
        second = [value(row.metric, frames[row.second, seed], classes) for seed in seeds]
        apart = np.array(first) - np.array(second)  # [S]
        drawn = np.mean([draws[row.first, s][row.metric] - draws[row.second, s][row.metric] for s in seeds], axis=0)
        compared += 1
        problems += check_difference(row, apart, drawn, patients=number_of_patients(frames))
    for problem in problems:
        print(problem)
    print(f"{compared} numbers of {len(arms)} arms x {len(seeds)} seeds recomputed, {len(problems)} disagree")
    return 1 if problems else 0


def finished(folder: Path, plan: dict) -> tuple[list[str], list[int]]:
    """Arms with a finished seed, and the seeds all of them have."""

    def done(arm: str, seed: int) -> bool:
        return all((place / "metrics.json").is_file() for place in places(folder, arm, seed, plan))

    arms = [arm for arm in plan["arms"] if any(done(arm, seed) for seed in plan["seeds"])]
    return arms, [seed for seed in plan["seeds"] if all(done(arm, seed) for arm in arms)]


def places(folder: Path, arm: str, seed: int, plan: dict) -> list[Path]:
    folds = int(plan.get("folds") or 0)
    return [folder / arm / f"{seed}-fold{k}" for k in range(1, folds + 1)] if folds else [folder / arm / str(seed)]


def test_rows(folder: Path, arm: str, seed: int, plan: dict) -> pd.DataFrame:
    """The labelled test rows of an arm and seed, folds joined, in the order of the images."""
    text = dict.fromkeys(("image_path", "patient_id", "split", "label", "predicted"), str)
    parts = [
        pd.read_csv(p / "predictions.csv", dtype=text, keep_default_na=False) for p in places(folder, arm, seed, plan)
    ]
    rows = pd.concat(parts)
    rows = rows[(rows["split"] == "test") & (rows["label"] != "")]
    places_inside = [name for name in ("axis", "index", "frame") if name in rows]
    rows["patient_id"] = rows["patient_id"].where(
        rows["patient_id"] != "", rows[["image_path", *places_inside]].astype(str).agg("|".join, axis=1)
    )
    return rows.sort_values(["image_path", *places_inside]).reset_index(drop=True)


def value(name: str, rows: pd.DataFrame, classes: list[str], weights: np.ndarray | None = None) -> float:
    """One metric of these rows, each counted ``weights`` times."""
    truth, said = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    scores = rows[[f"prob_{c}" for c in classes]].to_numpy(float)
    w = np.ones(len(rows)) if weights is None else weights
    if name == "accuracy":
        return float(sk.accuracy_score(truth, said, sample_weight=w))
    if name == "balanced_accuracy":
        shares = [np.average(said[truth == c] == c, weights=w[truth == c]) for c in classes if w[truth == c].any()]
        return float(np.mean(shares)) if len(shares) == len(set(truth)) else np.nan
    if name == "mcc":
        if len(set(said)) < 2 or len(set(truth)) < 2:
            return float("nan")  # undefined, where scikit-learn says 0
        return float(sk.matthews_corrcoef(truth, said, sample_weight=w))
    if name == "kappa_quadratic":
        return float(sk.cohen_kappa_score(truth, said, labels=classes, weights="quadratic", sample_weight=w))
    if name == "brier":
        squares = ((scores - (truth[:, None] == np.array(classes))) ** 2).sum(axis=1)
        return float(np.average(squares, weights=w)) / (2 if len(classes) == 2 else 1)
    if name == "ece":
        return calibration_error(scores, truth, classes, w)
    one = {"auroc": sk.roc_auc_score, "auprc": sk.average_precision_score}[name]
    areas = []
    for c, label in enumerate(classes):
        has = truth == label
        if has.any() and not has.all():
            if not w[has].any() or not w[~has].any():
                return np.nan
            areas.append(one(has, scores[:, c], sample_weight=w))
    return float(np.mean(areas))


def calibration_error(scores: np.ndarray, truth: np.ndarray, classes: list[str], w: np.ndarray) -> float:
    """15 bins of equal width, of the largest probability against being right (Guo et al. 2017)."""
    top, right = scores.max(axis=1), np.array(classes)[scores.argmax(axis=1)] == truth
    total = 0.0
    for k in range(15):
        inside = (top > k / 15) & (top <= (k + 1) / 15)
        total += abs(np.sum(w[inside] * (top[inside] - right[inside])))
    return total / w.sum()


def resampled(frames: dict, classes: list[str], names: list[str], resamples: int) -> dict:
    """Every metric of every run under the same draws of patients: (arm, seed) -> metric -> [R]."""
    generator = np.random.default_rng(20_000)
    everyone = np.unique(np.concatenate([rows["patient_id"] for rows in frames.values()]))
    found = {key: {name: np.empty(resamples) for name in names} for key in frames}
    who = {key: np.searchsorted(everyone, rows["patient_id"]) for key, rows in frames.items()}
    for r in range(resamples):
        counts = np.bincount(generator.integers(len(everyone), size=len(everyone)), minlength=len(everyone))
        for key, rows in frames.items():
            for name in names:
                found[key][name][r] = value(name, rows, classes, counts[who[key]].astype(float))
    return found


def number_of_patients(frames: dict) -> int:
    return len(set().union(*(set(rows["patient_id"]) for rows in frames.values())))


def check_difference(row, apart: np.ndarray, drawn: np.ndarray, *, patients: int) -> list[str]:
    """Compare one difference and its interval with table.csv: nothing, or what is wrong."""
    name = f"{row.first} - {row.second} {row.metric}"
    if row.value == "":
        return []  # undefined, with a reason beside it
    problems = []
    if not np.isclose(apart.mean(), float(row.value), rtol=0, atol=EXACT):
        problems.append(f"{name}: {apart.mean()} here, {row.value} in table.csv")
    if row.low == "":
        return problems
    drawn = drawn[~np.isnan(drawn)]
    of_patients = drawn.var(ddof=1) * patients / (patients - 1)
    of_seeds = apart.var(ddof=1) / len(apart) if len(apart) > 1 else 0.0
    spread = of_patients + of_seeds
    if len(apart) > 1:  # Student's t with Satterthwaite's degrees of freedom
        freedom = spread**2 / (of_patients**2 / (patients - 1) + of_seeds**2 / (len(apart) - 1))
    else:  # BCa ends are not symmetric: only their distance is compared, and loosely
        freedom = patients - 1
    half, theirs = stats.t.ppf(0.975, freedom) * np.sqrt(spread), (float(row.high) - float(row.low)) / 2
    error = np.sqrt(1 / (2 * len(drawn)) + 1 / (2 * 2000))  # relative, of the quotient of two bootstraps' deviations
    allowed = 5 * error if len(apart) > 1 else 0.25
    if abs(half / theirs - 1) > allowed:
        problems.append(f"{name}: half an interval of {half:.6f} here, {theirs:.6f} in table.csv")
    return problems


if __name__ == "__main__":
    sys.exit(main())
