"""What a start from pretrained weights reached, under both rules of answering, from the predictions."""

from __future__ import annotations

import json
from pathlib import Path

import packed
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from study_tables import minutes

from msmae.statistics.answers import PLAIN
from msmae.statistics.predictions import read_predictions, write_predictions
from saved_run import make_predictions


def test_the_row_is_the_mean_of_the_seeds_under_either_rule(tmp_path: Path) -> None:
    work = tmp_path / "moles+minutes"
    for seed in (0, 1):
        frame = make_predictions(splits=("test",), separation=1.5, seed=seed)
        frame["label"] = make_predictions(splits=("test",), separation=1.5, seed=0)["label"]
        run = work / "vit" / str(seed)
        run.mkdir(parents=True)
        other = frame["predicted"].where(frame.index % 5 > 0, frame["label"].iloc[0])
        write_predictions(frame.assign(**{PLAIN: other}), run / "predictions.csv")
        (run / "metrics.json").write_text(json.dumps({"cost": {"seconds_finetune": 600 + 1200 * seed}}))
        (run / "config.yaml").write_text("settings: {model: {image_size: [168, 140]}, finetune: {epochs: 8}}")
    assert minutes.minutes_table(tmp_path / "nothing") == "*Not run yet.*"

    files = [file for file in work.rglob("*") if file.is_file()]
    packed.write_study(packed.gather(work, files), tmp_path / "results", work.name)
    packed.unpack(packed.read_study(tmp_path / "results", work.name), tmp_path / "again" / work.name)
    cells = minutes.minutes_table(tmp_path / "again").splitlines()[-1].split(" | ")
    kept = [read_predictions(tmp_path / "again" / work.name / "vit" / seed / "predictions.csv") for seed in ("0", "1")]

    def mean(score: object, column: str) -> str:
        return f"{100 * sum(score(one['label'], one[column]) for one in kept) / 2:.1f}"  # type: ignore[operator]

    assert cells[:5] == ["| moles", "2", "168", "8", "10"]
    assert cells[5].startswith(f"{mean(balanced_accuracy_score, 'predicted')} (")
    assert cells[6].startswith(f"{mean(balanced_accuracy_score, PLAIN)} (")
    assert cells[7].startswith(f"{mean(accuracy_score, PLAIN)} (")
    assert cells[5] != cells[6]
