"""experiments/packed.py: a study comes back as it was, numbers as float32, and NumPy alone reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import packed
import pandas as pd
import pytest

from msmae.statistics.answers import with_plain
from msmae.statistics.predictions import classes_of, write_predictions
from saved_run import make_predictions

ROWS = pd.DataFrame(
    {
        "image_path": ["a/1.png", "a/2.png", "\udcff.png"], "patient_id": ["007", "", "NA"], "split": "test",
        "label": ["nv", "bcc", "nv"], "predicted": ["bcc", "bcc", "nv"], "prob_bcc": [0.1, 1 / 3, 0.0],
        "prob_nv": [0.9, 2 / 3, 1.0],
    }
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of two runs: predictions of the same images, a segmentation of one of them, and settings."""
    for seed in "01":
        run = tmp_path / "work" / "msmae" / seed
        run.mkdir(parents=True)
        packed.write_table(ROWS.assign(prob_nv=ROWS["prob_nv"] / (1 + int(seed))), run / "predictions.csv")
        (run / "metrics.json").write_text(json.dumps({"seed": seed, "note": "Größe"}))
    dice = {"image_path": ["a/1.png"], "patient_id": "007", "split": "test", "class": "x", "predicted": 243, "hd95": ""}
    pd.DataFrame({**dice, "dice": 0.9434}).to_csv(tmp_path / "work/msmae/0/segmentation.csv", index=False)
    return tmp_path / "work"


def test_what_a_run_of_today_predicts_comes_back(tmp_path: Path) -> None:
    run = tmp_path / "work" / "vit" / "0"
    run.mkdir(parents=True)
    frame = make_predictions(splits=("test",))
    write_predictions(with_plain(frame, classes_of(frame), multilabel=False), run / "predictions.csv")
    again = packed.read_study(packed_of(tmp_path / "work"), "moles+half").tables["vit/0/predictions.csv"]
    pd.testing.assert_frame_equal(again, packed.read_table(run / "predictions.csv"), check_like=True, check_dtype=False)


def packed_of(folder: Path) -> Path:
    results = folder.parent / "results"
    study = packed.gather(folder, [file for file in folder.rglob("*") if file.is_file()])
    packed.write_study(study, results, "moles+half")
    return results


def test_a_study_comes_back_and_numbers_as_float32(folder: Path) -> None:
    results = packed_of(folder)
    assert packed.names(results) == ["moles+half"]
    packed.unpack(packed.read_study(results, "moles+half"), folder.parent / "again")
    for run in ("msmae/0", "msmae/1"):
        before, after = (packed.read_table(top / run / "predictions.csv") for top in (folder, folder.parent / "again"))
        pd.testing.assert_frame_equal(after, before)  # as text; numbers to the last digit of float32
        assert after["prob_bcc"].tolist() == [float(np.float32(one)) for one in ROWS["prob_bcc"]]
        names = ["image_path", "patient_id", "label", "predicted"]
        assert after[names].to_dict() == ROWS[names].to_dict()
        same = [(top / run / "metrics.json").read_bytes() for top in (folder, folder.parent / "again")]
        assert same[0] == same[1]
    mask = pd.read_csv(folder.parent / "again/msmae/0/segmentation.csv")
    assert (mask["predicted"].item(), float(np.float32(mask["dice"].item()))) == (243, float(np.float32(0.9434)))
    assert mask["hd95"].isna().all()


def test_numpy_alone_reads_it_as_the_first_lines_say(folder: Path) -> None:
    results = packed_of(folder)
    study = np.load(results / "moles+half.npz", allow_pickle=False)
    groups = json.loads(study["about"].tobytes())["groups"]
    place = next(number for number, group in enumerate(groups) if "msmae/1/predictions.csv" in group["tables"])
    group = groups[place]
    table = group["tables"].index("msmae/1/predictions.csv")
    assert study[f"{place}/prob_nv"].dtype == np.float32
    assert study[f"{place}/prob_nv"][table].tolist() == pytest.approx([0.45, 1 / 3, 0.5])
    said = np.array(group["coded"]["predicted"])[study[f"{place}/predicted"][table]]
    assert said.tolist() == ["bcc", "bcc", "nv"]
    labels = np.load(results / "images" / f"{group['images']}.npz", allow_pickle=False)["label"]
    assert labels.tolist() == ["nv", "bcc", "nv"]
    assert json.loads(json.loads(study["texts"].tobytes())["msmae/1/metrics.json"])["note"] == "Größe"


def test_studies_of_the_same_images_share_a_table_of_images(folder: Path) -> None:
    results = packed_of(folder)
    packed.write_study(packed.Study(tables={"vit/0/predictions.csv": ROWS}), results, "lungs")
    held = {path.stem for path in (results / "images").iterdir()}
    assert held == {"moles", "moles-2"}  # of the predictions, and of the segmentation
    packed.write_study(packed.Study(tables={"vit/0/predictions.csv": ROWS[::-1]}), results, "lungs")
    assert {path.stem for path in (results / "images").iterdir()} == {*held, "lungs"}, "in another order"


def test_a_study_is_written_to_the_same_bytes_in_any_order(folder: Path) -> None:
    results = packed_of(folder)
    before = (results / "moles+half.npz").read_bytes()
    study = packed.read_study(results, "moles+half")
    turned = packed.Study(dict(reversed(study.texts.items())), dict(reversed(study.tables.items())))
    packed.write_study(turned, results, "moles+half")
    assert (results / "moles+half.npz").read_bytes() == before
    assert packed.read_study(results, "never").files() == set()
