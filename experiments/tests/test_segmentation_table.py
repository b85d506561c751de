"""Segmentations compared over seeds: figures by hand, both sources of luck, and the table that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from study_tables import numbers
from study_tables.segmentation import compare_segmentations, text
from study_tables.segmentation import numbers as table_of

from msmae.errors import UserError
from msmae.statistics.segmentation import FIGURES


def run_of(dice: np.ndarray, *, classes: tuple[str, ...] = ("lesion",)) -> pd.DataFrame:
    """A run's table, two images a patient; dice [n, C]."""
    rows = []
    for number, of_image in enumerate(dice.reshape(len(dice), len(classes))):
        for name, value in zip(classes, of_image, strict=True):
            row = {"image_path": f"{number:03}.png", "patient_id": f"p{number // 2}", "split": "test", "class": name}
            rows.append({**row, "reference": 10 + number} | dict.fromkeys(FIGURES, value))
    return pd.DataFrame(rows)


def seeds_of(base: np.ndarray, shift: float, *, seeds: int = 3) -> list[pd.DataFrame]:
    noise = np.random.default_rng(int(1e6 * shift) + 1)
    return [run_of((base + shift + noise.normal(0, 0.01, len(base))).clip(0, 1)) for _ in range(seeds)]


@pytest.fixture
def base() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.4, 0.8, 80)


def test_means_and_differences_by_hand(base: np.ndarray) -> None:
    arms = {"msmae": seeds_of(base, 0.05), "none": seeds_of(base, 0.0)}
    found = compare_segmentations(arms, pairs=[("msmae", "none")], resamples=300)
    by_seed = [frame["dice"].mean() for frame in arms["msmae"]]
    dice = found["arms"]["msmae"]["dice"]
    assert (found["n"], found["patients"], found["seeds"]) == (80, 40, 3)
    assert dice["by_seed"] == pytest.approx(by_seed)
    assert dice["value"] == pytest.approx(np.mean(by_seed))
    assert dice["seed_sd"] == pytest.approx(np.std(by_seed, ddof=1))
    assert dice["low"] < dice["value"] < dice["high"]
    pair = found["differences"][0]["metrics"]["dice"]
    expected = np.mean(by_seed) - np.mean([frame["dice"].mean() for frame in arms["none"]])
    assert pair["value"] == pytest.approx(expected)
    assert 0.03 < pair["low"] < pair["high"] < 0.07, "images vary by 0.4, pairs by 0.02"
    assert pair["p_value"] == pair["p_holm"] < 0.001


def test_seeds_that_disagree_widen_the_interval(base: np.ndarray) -> None:
    steady = [run_of(base) for _ in range(2)] + [run_of(base + 0.001)]
    apart = [run_of(base + shift) for shift in (-0.1, 0.0, 0.101)]
    widths = []
    for runs in (steady, apart):
        dice = compare_segmentations({"a": runs}, pairs=[], resamples=300)["arms"]["a"]["dice"]
        widths.append(dice["high"] - dice["low"])
    assert widths[1] > 2 * widths[0]


def test_an_undefined_figure_is_left_out_of_its_images_alone() -> None:
    dice = np.array([[0.5, np.nan], [0.7, 0.2], [0.9, 0.4], [np.nan, np.nan]])
    runs = [run_of(dice, classes=("a", "b"))] * 2
    found = compare_segmentations({"x": runs}, pairs=[], resamples=300)
    assert found["arms"]["x"]["dice"]["value"] == pytest.approx((0.7 + 0.3) / 2)


def test_runs_of_other_images_or_other_numbers_of_seeds_are_refused(base: np.ndarray) -> None:
    with pytest.raises(UserError, match="different numbers of seeds"):
        compare_segmentations({"a": seeds_of(base, 0), "b": seeds_of(base, 0, seeds=2)}, pairs=[])
    with pytest.raises(UserError, match="cannot be compared"):
        compare_segmentations({"a": [run_of(base)], "b": [run_of(base[:-1])]}, pairs=[])


def saved(folder: Path, arms: dict[str, list[pd.DataFrame]], **plan: Any) -> Path:
    for arm, frames in arms.items():
        for seed, frame in enumerate(frames):
            (folder / arm / str(seed)).mkdir(parents=True)
            frame.round(5).to_csv(folder / arm / str(seed) / "segmentation.csv", index=False)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [["msmae", "none"], ["msmae", "mae"]]
    content = {
        "task": "segmentation",
        "data": "moles",
        "unit": "lesions",
        "budget": "Little.",
        "arms": [*arms, "mae"],
        "pairs": pairs,
    }
    (folder / "comparison.json").write_text(json.dumps({**content, "seeds": [0, 1, 2], **plan}))
    return folder


def test_the_table_is_written_from_the_saved_tables_alone(base: np.ndarray, tmp_path: Path) -> None:
    folder = saved(tmp_path / "moles", {"msmae": seeds_of(base, 0.05), "none": seeds_of(base, 0.0, seeds=2)})
    numbers.write_all(tmp_path, {"moles"})
    rows = pd.read_csv(folder / "table.csv")
    told = text(folder, rows)
    assert "Seeds 0, 1; 80 test images of 40 lesions." in told, "the third seed has no `none`"
    assert "| msmae − none | +0.0" in told
    tables = [part.splitlines() for part in told.split("\n\n") if part.startswith("|")]
    assert [[line.count("|") for line in table] for table in tables] == [[6] * 4, [5] * 3], "one block a table"
    assert "msmae − mae" not in told, "no run of it is there"
    entries = rows.fillna({"minus": ""}).set_index(["arm", "minus", "metric"])
    assert float(entries.at[("msmae", "none", "dice"), "value"]) == pytest.approx(0.05, abs=0.01)
    with pytest.raises(UserError, match="no seed is finished"):
        table_of(saved(tmp_path / "empty", {}, seeds=[7]))
