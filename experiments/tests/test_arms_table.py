"""One figure of every arm on every data set: it is what the comparisons' own tables say."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from saved_comparison import write_folder
from study_tables import numbers
from study_tables.arms_table import table


def test_every_arm_has_its_figure_in_the_order_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path / "chests", arms={"supmae": 1.0, "msmae": 2.6}, seeds=(0,))
    write_folder(tmp_path / "moles", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    write_folder(tmp_path / "moles+half", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    (tmp_path / "moles" / "mae" / "2").mkdir()  # of a third seed, and of vit, nothing is finished
    plan = tmp_path / "moles" / "comparison.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"seeds": [0, 1, 2], "arms": ["mae", "msmae", "vit"]}))
    numbers.write_all(tmp_path, {"chests"})
    numbers.write_all(tmp_path, {"moles"})
    numbers.write_all(tmp_path, {"moles+half"})
    head, _, *rows = table(tmp_path, ["msmae", "vit", "mae"]).splitlines()
    assert head == "| arm | chests, 1 seed (patients only) | moles, 2 seeds |"  # and no variant
    assert [row.split(" | ")[0] for row in rows] == ["| msmae", "| mae", "| supmae"]
    found = pd.read_csv(tmp_path / "moles" / "table.csv")
    (of_mae,) = found[
        (found["kind"] == "mean") & (found["metric"] == "balanced_accuracy") & (found["first"] == "mae")
    ].to_dict("records")
    assert rows[1] == "| mae | — | {value:.1f} ({low:.1f} to {high:.1f}) |".format(
        **{name: 100 * of_mae[name] for name in ("value", "low", "high")}
    )


def test_without_a_comparison_it_says_so(tmp_path: Path) -> None:
    assert table(tmp_path) == "*Not run yet.*"
