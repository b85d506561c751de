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
SEEN = {
    "all": "all",
    "quarter-half": "a quarter: half attended, half random",
    "quarter-uniform": "a quarter at random",
    "mixed-half": "mixed shares, half attended",
    "taught": "all, then taught by itself to prune early",
}
"""What an arm SIDE-NAME sees of an image of SIDE pixels, as a reader meets it."""
OTHERS = {
    "efficientnet-lite0": "EfficientNet-Lite0 from ImageNet, 224 px",
    "coarse-located": "336 px, coarse and fine",
    "coarse-random": "336 px, coarse and 32 of 576 at random",
}
"""Arms whose names say no side."""
ASKED = {"": "all", "early": "a quarter, attended", "grid": "a quarter, evenly spread"}
"""How many tokens an arm answers from: its own name, or ARM+early and ARM+grid."""


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
    """Of each set; from nothing: seeds on one split; of speed: rounds in turns."""
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
DRAWN = (
    ("quarter-half", "", "small", 0.0),
    ("quarter-half", "", "{side}-quarter-uniform", 0.0),
    ("quarter-half", "", "168-all", -1.0),
    ("quarter-half", "", "{side}-all", -1.0),
    ("quarter-half", "+early", "small", 0.0),
    ("quarter-half", "+early", "{side}-all", -1.0),
    ("all", "+early", "{side}-all", -1.0),
    ("all", "+early", "small", 0.0),
    ("all", "+early", "{side}-all+grid", 0.0),
    ("all", "+early", "154-all", 0.0),
    ("taught", "+early", "{side}-all", -1.0),
    ("taught", "+early", "154-all", 0.0),
    ("taught", "+early", "{side}-all+early", 0.0),
    ("mixed-half", "", "small", 0.0),
    ("mixed-half", "", "168-all", -1.0),
    ("mixed-half", "", "{side}-all", -1.0),
    ("mixed-half", "+early", "{side}-mixed-half", -1.0),
    ("mixed-half", "+early", "small", 0.0),
    ("mixed-half", "+early", "{side}-mixed-half+grid", 0.0),
)
"""Of claim 2, from a pretrained encoder: (what the arm sees, what it answers from, against, points that must be
exceeded). ``small``: the smaller image at the cost of a quarter, all patches."""
SIDES = {224: 112, 168: 84}
"""The side of an image of which a quarter is seen, and of the smaller one that costs as much."""
PRETRAINED = [
    (2, f"{side}-{seen}{asked}", f"{small}-all" if against == "small" else against.format(side=side), must)
    for side, small in SIDES.items()
    for seen, asked, against, must in DRAWN
    if side == 224 or not against[0].isdigit()
]
COARSE = (
    (2, "coarse-located", "140-all", 0.0),
    (2, "coarse-located", "154-all", 10.0),
    (2, "coarse-located", "336-all", -1.0),
    (2, "coarse-located", "coarse-random", 0.0),
)
"""The same of coarse and fine, on a phantom; its folds are seeds."""
SPEED = "dinov2-small+speed"
"""The study that holds speed.json, of experiments/speed.py."""


def claims(results: Path, draws: Draws) -> list[Row]:
    """All rows whose runs are there, from unpacked studies."""
    rows = [row for asked in FROM_NOTHING if (row := from_nothing(results, *asked, draws))]
    for study in sorted(results.glob("*+pretrained")):
        rows += [row for asked in PRETRAINED if (row := pretrained(study, *asked))]
    for study in sorted(results.glob("*+coarse")):
        rows += [row for asked in COARSE if (row := pretrained(study, *asked))]
    return rows + faster(results / SPEED / "speed.json")


def named(arm: str) -> str:
    """An arm of the pretrained study for a reader, with the tokens it answers from where it is asked for fewer."""
    base, _, asked = arm.partition("+")
    side, _, seen = base.partition("-")
    name = OTHERS[base] if base in OTHERS else f"{side} px, {SEEN[seen]}"
    return f"{name}; answers from {ASKED[asked]}" if asked else name


def faster(file: Path) -> list[Row]:
    """Claim 3: how many times as fast a prediction is, the choosing counted; measured in turns on one machine."""
    if not file.is_file():
        return []
    told = json.loads(file.read_text())
    return [
        Row(
            3, row["name"], row["against"], "DINOv2 ViT-S/14", "times", [f"batches of {row['batch']}"],
            told["rounds"], row["ratio"], row["low"], row["high"], 1.0,
        )
        for row in told["rows"]
    ]  # fmt: skip


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
    """A difference over the folds that both arms have, every image tested once; None where it has no interval, since
    every resample gives the same."""
    folds = common_folds(study, [first, second])
    if not folds:
        return None
    found = paired([tested(study, arm, folds) for arm in (first, second)], seed=own_seed(study))
    if None in found:
        return None
    data = [study.name.partition("+")[0]]
    start = "DINOv2 ViT-S/14"
    return of_points(
        claim, named(first), named(second), start, data, len(folds), found[0], found[1], found[2], must_exceed
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

    def text(row: Row) -> str:
        shown = [f"{one:+.1f}" if row.unit == "points" else f"{one:.2f}" for one in (row.estimate, row.low, row.high)]
        return "{} ({} to {})".format(*shown).replace("-", "−") + (" times" if row.unit == "times" else "")

    heads = ["claim", "begins with", "arm", "against", "data", "folds or rounds", "difference or ratio (95 % CI)"]
    return table(
        [*heads, "must exceed", "answer"],
        [
            [
                row.claim, row.start, row.arm, row.against, ", ".join(row.sets), row.folds, text(row),
                f"{row.must_exceed:g}".replace("-", "−"), f"**{row.answer}**",
            ]
            for row in rows
        ],
    )  # fmt: skip


def arms_table(study: Path) -> str:
    """What every arm of a pretrained study reached on the folds it has, what it cost, and how far it is from the
    smallest image on the folds that both have."""
    arms = sorted((path.parent.parent.name for path in study.glob("*/1/predictions.csv")), key=place)
    if not arms:
        return NOT_YET
    rival = arms[0]
    heads = [
        "fine-tuned on",
        "answers from",
        "folds",
        "balanced accuracy, % (95 % CI)",
        f"points above {rival.partition('-')[0]} px, same folds",
        "GMAC an image in training",
        "minutes of training, the quickest fold",
    ]
    return table(heads, [arm_line(study, arm, rival) for arm in arms])


def place(arm: str) -> tuple[int, int, int]:
    """Where an arm stands in the table: whole images by size, then draws, each by what it answers from."""
    base, _, asked = arm.partition("+")
    side, _, seen = base.partition("-")
    if base in OTHERS:
        return len(SEEN), list(OTHERS).index(base), 0
    return list(SEEN).index(seen), int(side), ["", "grid", "early"].index(asked)


def accuracy(study: Path, arm: str, folds: Sequence[str]) -> tuple[float, float, float]:
    """Balanced accuracy of an arm on these folds, in percent, with its interval."""
    frame = tested(study, arm, folds)
    runs = matched([frame], classes=classes_of(frame), split="test")
    (found,) = resample_together(runs, seed=own_seed(study), areas=False)
    low, high = (float(pd.Series(100 * found.draws.overall[METRIC]).quantile(q)) for q in (0.025, 0.975))
    return 100 * float(found.value.overall[METRIC][0]), low, high


def arm_line(study: Path, arm: str, rival: str) -> list[str]:
    """An arm's row, beside the arm ``rival``."""
    base, _, asked = arm.partition("+")
    folds = common_folds(study, [arm])
    value, low, high = accuracy(study, arm, folds)
    costs = [json.loads((study / base / fold / "metrics.json").read_text())["cost"] for fold in folds]
    minutes = min(cost["seconds_finetune"] for cost in costs) / 60  # some folds shared their core
    beside = "" if arm == rival else pretrained(study, 2, arm, rival, 0.0)
    return [
        named(base), ASKED[asked], str(len(folds)), f"{value:.1f} ({low:.1f} to {high:.1f})",
        f"{beside.estimate:+.1f} ({beside.low:+.1f} to {beside.high:+.1f})".replace("-", "−") if beside else "",
        f"{costs[0].get('gmacs_train') or costs[0]['gmacs_predict']:.2f}", f"{minutes:.0f}",
    ]  # fmt: skip
