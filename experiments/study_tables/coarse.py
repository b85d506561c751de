"""Coarse and fine on a phantom of small lesions: what each way of choosing reached, beside whole images. Seed 0."""

from __future__ import annotations

import json
from pathlib import Path

from study_tables.claims import accuracy, pretrained
from study_tables.markdown import NOT_YET, table

NAMES = {
    "112-all": "112 px, all 64 patches",
    "140-all": "140 px, all 100 patches",
    "154-all": "154 px, all 121 patches",
    "336-all": "336 px, all 576 patches",
    "coarse-random": "coarse, and 32 of 576 at random",
    "coarse-centre": "coarse, and the 32 in the middle",
    "coarse-located": "coarse, and the 32 that the locator chooses (`--finetune.draw coarse`)",
    "coarse-oracle": "coarse, and those that the lesion's mask touches (a bound)",
}
RULES = {
    "middle": "the 32 patches in the middle",
    "dark": "the 32 darkest",
    "contrast": "the 32 with the largest contrast to what is around",
}
RIVAL = "140-all"
SEED = ["0"]


def table_of(study: Path) -> str:
    """A Markdown table, an arm a row; "*Not run yet.*" where there is none."""
    lines = [line(study, arm) for arm in NAMES if any((study / arm).glob("*/predictions.csv"))]
    heads = [
        "seen",
        "balanced accuracy, % (95 % CI)",
        "points above 140 px",
        "GMAC an image",
        "lesion patches seen",
    ]
    rules = json.loads((study / "rules.json").read_text()) if (study / "rules.json").is_file() else {}
    lines += [[f"no model: {RULES[name]}", "", "", "", f"{100 * seen:.0f} %"] for name, seen in rules.items()]
    return table(heads, lines) if lines else NOT_YET


def line(study: Path, arm: str) -> list[str]:
    """An arm's row."""
    value, low, high = accuracy(study, arm, SEED)
    row = None if arm == RIVAL else pretrained(study, 2, arm, RIVAL, 0.0)
    beside = f"{row.estimate:+.1f} ({row.low:+.1f} to {row.high:+.1f})".replace("-", "−") if row else ""
    told = json.loads((study / arm / SEED[0] / "metrics.json").read_text())
    seen = told.get("lesions_found")
    return [
        NAMES[arm], f"{value:.1f} ({low:.1f} to {high:.1f})", beside,
        f"{told['cost']['gmacs_predict']:.2f}", "" if seen is None else f"{100 * seen:.0f} %",
    ]  # fmt: skip
