"""The paper's claims: an answer follows from the whole interval, over folds in which every image is tested once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import packed
import pytest
import results
from pretrained import PLANS, arms
from sklearn.metrics import balanced_accuracy_score
from study_tables import claims, coarse
from study_tables.pooled_difference import Draws

from msmae.statistics.predictions import write_predictions
from saved_run import make_predictions


def write_study(folder: Path, arms: dict[str, float], *, folds: int) -> Path:
    """Arms by how far apart their scores set the classes; every fold has images and patients of its own."""
    for arm, separation in arms.items():
        for fold in range(1, folds + 1):
            frame = make_predictions(splits=("test",), separation=separation, seed=fold)
            named = frame.assign(
                image_path=f"{fold}/" + frame["image_path"], patient_id=f"{fold}/" + frame["patient_id"]
            )
            run = folder / arm / str(fold)
            run.mkdir(parents=True)
            write_predictions(named, run / "predictions.csv")
            (run / "metrics.json").write_text(
                json.dumps({"arm": "vit", "cost": {"gmacs_train": 1.4, "seconds_finetune": 60.0 * fold}})
            )
    return folder


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"), [(2.6, 0.4, "shown"), (0.4, 2.6, "refuted"), (1.0, 1.05, "open")]
)
def test_the_answer_is_the_whole_intervals(ours: float, theirs: float, answer: str, tmp_path: Path) -> None:
    study = write_study(tmp_path / "moles+pretrained", {"224-quarter-half": ours, "112-all": theirs}, folds=2)
    (row,) = claims.claims(tmp_path, Draws())
    assert (row.claim, row.against, row.folds, row.sets) == (2, "112 px, all", 2, ["moles"])
    assert row.answer == answer
    assert row.low < row.estimate < row.high
    both = [claims.tested(study, arm, ["1", "2"]) for arm in ("224-quarter-half", "112-all")]
    values = [balanced_accuracy_score(frame["label"], frame["predicted"]) for frame in both]
    assert row.estimate == pytest.approx(100 * (values[0] - values[1]), abs=0.01)


def test_a_claim_is_held_to_what_it_must_exceed() -> None:
    def row(low: float, high: float, must: float) -> str:
        return claims.of_points(2, "a", "b", "nothing", ["x"], 2, np.mean([low, high]), low, high, must).answer

    assert row(-0.005, 0.01, -1.0) == "shown"
    assert row(-0.012, 0.01, -1.0) == "open"
    assert row(-0.03, -0.012, -1.0) == "refuted"


def test_the_pages_tables_and_the_file_say_the_same(tmp_path: Path) -> None:
    study = write_study(tmp_path / "work" / "moles+pretrained", {"224-quarter-half": 2.6, "112-all": 0.4}, folds=2)
    files = [file for file in study.rglob("*") if file.is_file()]
    packed.write_study(packed.gather(study, files), tmp_path / "results", study.name)
    pages = {Path("PAGE.md"): "{{ claims }}\n\n{{ pretrained of moles+pretrained }}\n"}
    results.build(tmp_path / "results", pages, tmp_path)
    (row,) = json.loads((tmp_path / "results" / "claims.json").read_text())
    assert row["answer"] == "shown"
    page = (tmp_path / "PAGE.md").read_text()
    assert f"{row['estimate']:+.1f}" in page
    assert "| 112 px, all |" in page
    assert "| 2 |" in page  # one and two minutes: the mean, rounded


def test_answers_from_a_quarter_have_rows_of_their_own(tmp_path: Path) -> None:
    arms = {"224-mixed-half": 2.0, "224-mixed-half+early": 1.0, "224-mixed-half+grid": 0.2, "112-all": 0.4}
    study = write_study(tmp_path / "moles+pretrained", arms, folds=1)
    rows = {(row.arm, row.against): row for row in claims.claims(tmp_path, Draws())}
    early = "224 px, mixed shares, half attended; answers from a quarter, attended"
    assert rows[early, "224 px, mixed shares, half attended"].answer == "refuted"
    assert rows[early, "112 px, all"].estimate > 0
    lines = claims.arms_table(study).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        "all",
        "all",
        "a quarter, evenly spread",
        "a quarter, attended",
    ]


def test_speed_is_a_claim_of_its_own(tmp_path: Path) -> None:
    told = {"rounds": 9, "rows": [{"name": "a", "against": "b", "batch": 8, "ratio": 2.0, "low": 1.9, "high": 2.1}]}
    (tmp_path / claims.SPEED).mkdir()
    (tmp_path / claims.SPEED / "speed.json").write_text(json.dumps(told))
    (row,) = claims.claims(tmp_path, Draws())
    assert (row.claim, row.unit, row.folds, row.answer) == (3, "times", 9, "shown")
    assert "2.00 (1.90 to 2.10) times" in claims.claims_table([row])


def test_coarse_and_fine_stand_beside_the_whole_image_at_equal_cost(tmp_path: Path) -> None:
    arms = {"140-all": 0.4, "coarse-located": 2.6}
    study = write_study(tmp_path / "phantom-336+coarse", arms, folds=1)
    for arm in arms:
        (study / arm / "1").rename(study / arm / "0")
        cost = {"gmacs_train": 2.2, "gmacs_predict": 2.25}
        (study / arm / "0" / "metrics.json").write_text(json.dumps({"cost": cost, "lesions_found": 0.5}))
    rows = [line.split(" | ") for line in coarse.table_of(study).splitlines()[2:]]
    assert [row[0] for row in rows] == ["| 140 px, all 100 patches", f"| {coarse.NAMES['coarse-located']}"]
    assert rows[0][2] == ""
    values = [
        balanced_accuracy_score(frame["label"], frame["predicted"])
        for frame in (claims.tested(study, arm, ["0"]) for arm in ("coarse-located", "140-all"))
    ]
    assert rows[1][2].startswith(f"+{100 * (values[0] - values[1]):.1f} (")
    assert rows[1][4] == "50 % |"
    assert coarse.table_of(tmp_path / "none") == "*Not run yet.*"


def test_every_claim_is_between_arms_that_an_experiment_makes() -> None:
    made = {
        f"{arm}{asked}"
        for plan in PLANS.values()
        for arm in [*arms(plan.side, plan.smaller), f"{plan.side}-taught"]
        for asked in ("", "+early", "+grid")
    }
    asked = {arm for _, first, second, _ in claims.PRETRAINED for arm in (first, second)}
    assert {arm for arm in asked if arm not in made} <= {"168-taught+early"}
