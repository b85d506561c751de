"""experiments/collect.py: what goes to results/ and comes back, on another machine too."""

from __future__ import annotations

import json
from pathlib import Path

import collect
import numpy as np
import packed
import pandas as pd


def finished_run(work: Path, paths: list[str], *, share: float = 0.1) -> Path:
    run = work / "msmae" / "0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps({"arm": "msmae", "data": str(work)}))
    table = pd.DataFrame({"image_path": paths, "patient_id": "", "split": "test", "label": "a", "predicted": "b"})
    table.assign(prob_a=share, prob_b=1 - share).to_csv(run / "predictions.csv", index=False)
    return run


def paths_of(results: Path) -> list[str]:
    return list(packed.read_study(results, "moles").tables["msmae/0/predictions.csv"]["image_path"])


def test_what_is_restored_names_the_images_of_this_machine(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for root in (there, here):
        (root / "moles").mkdir(parents=True)
        (root / "moles" / "a.png").touch()
        (root / "chests.npz").touch()
    finished_run(tmp_path / "work", [f"{there}/moles/a.png", f"{there}/chests.npz#train/3"])
    results = tmp_path / "results"
    assert collect.collect(tmp_path / "work", results, "moles", roots=[there, tmp_path]) == 1
    assert paths_of(results) == ["moles/a.png", "chests.npz#train/3"]
    assert str(tmp_path) not in packed.read_study(results, "moles").texts["msmae/0/metrics.json"]
    before = (results / "moles.npz").read_bytes()
    collect.restore(results, "moles", tmp_path / "again", roots=[tmp_path / "empty", here])
    back = pd.read_csv(tmp_path / "again" / "msmae" / "0" / "predictions.csv")["image_path"].tolist()
    assert back == [f"{here}/moles/a.png", f"{here}/chests.npz#train/3"]
    collect.collect(tmp_path / "again", results, "moles", roots=[here])
    assert (results / "moles.npz").read_bytes() == before


def test_a_run_that_is_here_is_not_replaced(tmp_path: Path) -> None:
    finished_run(tmp_path / "other", ["old.png"])
    collect.collect(tmp_path / "other", tmp_path / "results", "moles", roots=[])
    run = finished_run(tmp_path / "work", ["new.png"])
    collect.restore(tmp_path / "results", "moles", tmp_path / "work", roots=[tmp_path])
    assert "new.png" in (run / "predictions.csv").read_text()


def test_runs_restored_before_name_their_images_in_full_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    finished_run(tmp_path / "other", ["a.png"])
    collect.collect(tmp_path / "other", tmp_path / "results", "moles", roots=[])
    file = finished_run(tmp_path / "work", ["a.png", f"{tmp_path}/a.png", "elsewhere.png"]) / "predictions.csv"
    before = None
    for _ in range(2):
        collect.restore(tmp_path / "results", "moles", tmp_path / "work", roots=[tmp_path])
        paths = pd.read_csv(file)["image_path"].tolist()
        assert paths == [f"{tmp_path}/a.png", f"{tmp_path}/a.png", "elsewhere.png"]
        assert before in (None, file.stat().st_ino), "what is named in full already is not written again"
        before = file.stat().st_ino
    assert [path.name for path in file.parent.iterdir() if "predictions" in path.name] == ["predictions.csv"]


def test_what_is_added_joins_what_is_there_and_replaces_the_same_file(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for number, share in enumerate((0.1, 0.3)):
        run = finished_run(tmp_path / str(number), ["a.png", "b.png"], share=share)
        (run / f"only-{number}.csv").write_text("x\n")
        files = [run / "predictions.csv", run / f"only-{number}.csv"]
        collect.add(tmp_path / str(number), files, results, "moles", roots=[])
    collect.add_text("msmae/0/note.csv", "told\n", results, "moles")
    study = packed.read_study(results, "moles")
    assert set(study.texts) == {"msmae/0/only-0.csv", "msmae/0/only-1.csv", "msmae/0/note.csv"}
    assert study.tables["msmae/0/predictions.csv"]["prob_a"].tolist() == [np.float32(0.3)] * 2


def test_of_metrics_the_tested_images_are_kept_and_what_validation_chose_by() -> None:
    of_split = {"n": 3, "metrics": {"auroc": {"value": 0.75, "low": 0.5}}, "per_class": {"a": 1}}
    text = json.dumps({"arm": "mae", "splits": {"test": of_split, "val": of_split}, "cost": {"parameters": 7}})
    found = json.loads(collect.short_metrics(text))
    assert found["splits"] == {"test": {"n": 3, "metrics": {"auroc": {"value": 0.75, "low": 0.5}}}}
    assert found["not_collected"] == {"val": {"auroc": 0.75}}
    assert found["cost"] == {"parameters": 7}
