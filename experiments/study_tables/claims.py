"""The paper's claims, a row a comparison: what was estimated, what it had to exceed, and the answer.

``claims`` makes the rows of results/claims.json. Estimates are points of balanced accuracy. From nothing: seeds on one
split, pooled over data sets (``pooled_difference``). From a pretrained encoder: folds, every image tested once, a
paired bootstrap over patients.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from msmae.statistics.paired import difference, matched, resample_together
from msmae.statistics.predictions import classes_of, read_predictions
from study_tables.markdown import NOT_YET, table
from study_tables.pooled_difference import Draws, differences, own_seed, pooled

METRIC = "balanced_accuracy"
NAMES = {
    "112-all": "112 px, all",
    "168-all": "168 px, all",
    "224-all": "224 px, all",
    "224-quarter-half": "224 px, a quarter: half attended, half random",
    "224-quarter-uniform": "224 px, a quarter at random",
    "224-mixed-half": "224 px, mixed shares, half attended",
}
"""Arms of the pretrained study as a reader meets them."""


@dataclass(frozen=True)
class Row:
    """One comparison. ``answer``: shown, refuted or open."""

    claim: int
    arm: str
    against: str
    start: str
    """What the encoders begin with: nothing, or DINOv2 ViT-S/14."""
    unit: str
    sets: list[str]
    folds: int
    """Of each set; from nothing: seeds on one split."""
    estimate: float
    low: float
    high: float
    must_exceed: float

    @property
    def answer(self) -> str:
        """By the whole interval."""
        return "shown" if self.low > self.must_exceed else "refuted" if self.high < self.must_exceed else "open"


FROM_NOTHING = (
    (1, "msmae", "supmae", 0.0),
    (1, "msmae", "vit", 0.0),
    (1, "msmae", "msmae-shuffled", 0.0),
    (2, "msmae+own", "msmae", -1.0),
)
"""(claim, arm, against, points that must be exceeded)."""
PRETRAINED = (
    (2, "224-quarter-half", "112-all", 0.0),
    (2, "224-quarter-half", "224-quarter-uniform", 0.0),
    (2, "224-quarter-half", "168-all", -1.0),
    (2, "224-quarter-half", "224-all", -1.0),
    (2, "224-mixed-half", "168-all", -1.0),
)


def claims(results: Path, draws: Draws) -> list[Row]:
    """All rows whose runs are there, from unpacked studies."""
    rows = [row for asked in FROM_NOTHING if (row := from_nothing(results, *asked, draws))]
    for study in sorted(results.glob("*+pretrained")):
        rows += [row for asked in PRETRAINED if (row := pretrained(study, *asked))]
    return rows


def from_nothing(results: Path, claim: int, arm: str, against: str, must_exceed: float, draws: Draws) -> Row | None:
    """A difference pooled over the data sets that have several seeds."""
    several = [row for row in differences(results, arm, against, draws) if row.seeds > 1]
    found = pooled(several)
    if found is None:
        return None
    low, high = found.interval()
    seeds = min(row.seeds for row in several)
    return of_points(
        claim, arm, against, "nothing", [row.data for row in several], seeds, found.value, low, high, must_exceed
    )


def pretrained(study: Path, claim: int, first: str, second: str, must_exceed: float) -> Row | None:
    """A difference over the folds that both arms have, every image tested once."""
    folds = common_folds(study, [first, second])
    if not folds:
        return None
    found = paired([tested(study, arm, folds) for arm in (first, second)], seed=own_seed(study))
    data = [study.name.partition("+")[0]]
    start = "DINOv2 ViT-S/14"
    return of_points(
        claim, NAMES[first], NAMES[second], start, data, len(folds), found[0], found[1], found[2], must_exceed
    )


def of_points(
    claim: int, arm: str, against: str, start: str, sets: list[str], folds: int, value: float, low: float, high: float,
    must_exceed: float,
) -> Row:  # fmt: skip
    """A row of points, of two digits."""
    points = [round(100 * one, 2) + 0.0 for one in (value, low, high)]
    return Row(claim, arm, against, start, "points", sets, folds, points[0], points[1], points[2], must_exceed)


def common_folds(study: Path, arms: Sequence[str]) -> list[str]:
    """The folds that all of these arms have run."""
    of_each = [{path.parent.name for path in (study / arm).glob("*/predictions.csv")} for arm in arms]
    return sorted(set.intersection(*of_each), key=int)


def tested(study: Path, arm: str, folds: Sequence[str]) -> pd.DataFrame:
    """The test predictions of all folds as one table."""
    parts = [read_predictions(study / arm / fold / "predictions.csv") for fold in folds]
    return pd.concat([part[part["split"] == "test"] for part in parts], ignore_index=True)


def paired(frames: Sequence[pd.DataFrame], *, seed: int) -> tuple[float, float, float]:
    """Balanced accuracy of the first minus that of the second, with its interval."""
    runs = matched(frames, classes=classes_of(frames[0]), split="test")
    found = difference(*resample_together(runs, seed=seed, areas=False), METRIC)
    return found["value"], found["low"], found["high"]


def as_json(rows: Sequence[Row]) -> str:
    """results/claims.json."""
    return json.dumps([{**asdict(row), "answer": row.answer} for row in rows], indent=1) + "\n"


def claims_table(rows: Sequence[Row]) -> str:
    """The rows for a reader."""

    def text(value: float) -> str:
        return f"{value:+.1f}".replace("-", "−")

    return table(
        ["claim", "begins with", "arm", "against", "data", "folds", "points (95 % CI)", "must exceed", "answer"],
        [
            [
                row.claim, row.start, row.arm, row.against, ", ".join(row.sets), row.folds,
                f"{text(row.estimate)} ({text(row.low)} to {text(row.high)})",
                f"{row.must_exceed:g}".replace("-", "−"), f"**{row.answer}**",
            ]
            for row in rows
        ],
    )  # fmt: skip


def arms_table(study: Path) -> str:
    """What every arm of a pretrained study reached, and what it cost, on the folds that all of them have."""
    arms = [arm for arm in NAMES if any((study / arm).glob("*/predictions.csv"))]
    if not arms:
        return NOT_YET
    folds = common_folds(study, arms)
    lines = []
    for arm in arms:
        frame = tested(study, arm, folds)
        runs = matched([frame], classes=classes_of(frame), split="test")
        (found,) = resample_together(runs, seed=own_seed(study), areas=False)
        draws = 100 * found.draws.overall[METRIC]
        low, high = (float(pd.Series(draws).quantile(q)) for q in (0.025, 0.975))
        costs = [json.loads((study / arm / fold / "metrics.json").read_text())["cost"] for fold in folds]
        gmacs = costs[0]["gmacs_train"]
        minutes = sum(cost["seconds_finetune"] for cost in costs) / len(costs) / 60
        value = 100 * float(found.value.overall[METRIC][0])
        lines.append([NAMES[arm], f"{value:.1f} ({low:.1f} to {high:.1f})", f"{gmacs:.2f}", f"{minutes:.0f}"])
    heads = [
        "fine-tuned on",
        "balanced accuracy, % (95 % CI)",
        "GMAC an image in training",
        "minutes of training a fold",
    ]
    return f"Folds {', '.join(folds)} of five.\n\n{table(heads, lines)}"
