"""The evidence of a segmentation: figures by hand and by MONAI, empty cases, lesions, intervals, comparisons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from msmae.errors import UserError
from msmae.statistics.segmentation import (
    match_lesions,
    mean_entry,
    measure,
    read_segmentation,
    same_images,
    summarise_segmentation,
)


def square(top: int, left: int, side: int = 10, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_figures_of_shifted_squares_by_hand() -> None:
    figures = measure(square(5, 5), square(5, 10), tolerance=1.0)
    assert figures["reference"] == figures["predicted"] == 100
    assert figures["dice"] == pytest.approx(0.5)
    assert figures["iou"] == pytest.approx(50 / 150)
    assert figures["pixel_sensitivity"] == figures["pixel_precision"] == 0.5
    assert figures["hd95"] == pytest.approx(5)
    whole = measure(square(5, 5), square(5, 5, side=5), tolerance=0)
    assert (whole["pixel_sensitivity"], whole["pixel_precision"]) == (0.25, 1.0)


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
@pytest.mark.parametrize("seed", range(8))
def test_distances_and_overlaps_equal_monais(seed: int) -> None:
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(seed)
    first, second = (gaussian_filter(generator.normal(size=(40, 31)), 3) > 0.05 for _ in range(2))
    ours = measure(first, second, tolerance=1.5)
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in (first, second))
    assert ours["dice"] == pytest.approx(float(compute_dice(b, a)))
    assert ours["iou"] == pytest.approx(float(compute_iou(b, a)))
    assert ours["hd95"] == pytest.approx(
        float(compute_hausdorff_distance(b, a, include_background=True, percentile=95))
    )
    assert ours["nsd"] == pytest.approx(float(compute_surface_dice(b, a, [1.5], include_background=True)))


def test_empty_reference_and_empty_prediction() -> None:
    nothing, something = np.zeros((16, 16), dtype=bool), square(2, 2, side=4, size=16)
    both = measure(nothing, nothing)
    assert all(np.isnan(both[name]) for name in ("dice", "iou", "hd95", "nsd", "pixel_sensitivity", "pixel_precision"))
    alarm = measure(nothing, something)
    assert (alarm["dice"], alarm["iou"], alarm["nsd"], alarm["pixel_precision"]) == (0, 0, 0, 0)
    assert np.isnan(alarm["hd95"])
    assert np.isnan(alarm["pixel_sensitivity"])
    missed = measure(something, nothing)
    assert (missed["dice"], missed["nsd"], missed["pixel_sensitivity"]) == (0, 0, 0)
    assert np.isnan(missed["hd95"])
    assert np.isnan(missed["pixel_precision"])


def test_lesions_one_by_one() -> None:
    reference = square(2, 2, side=6) | square(20, 20, side=6)
    predicted = square(3, 3, side=6) | square(2, 22, side=4)
    assert match_lesions(reference, predicted) == (2, 1, 2, 1)
    graze = square(7, 7, side=12)  # one pixel in common: no finding
    assert match_lesions(square(2, 2, side=6), graze) == (1, 0, 1, 1)
    assert match_lesions(reference, np.zeros_like(reference)) == (2, 0, 0, 0)


def rows_of(dice: list[float], patients: list[str] | None = None) -> pd.DataFrame:
    rows = []
    for number, value in enumerate(dice):
        inside = 0 if np.isnan(value) else 10 + number
        rows.append(
            {
                "image_path": f"{number:03}.png", "patient_id": patients[number] if patients else "", "split": "test",
                "class": "lesion", "share": inside / 100, "reference": inside, "predicted": 0 if value == 0 else inside,
                "dice": value, "iou": value, "pixel_sensitivity": value, "pixel_precision": value, "hd95": value,
                "nsd": value, "lesions": int(inside > 0), "lesions_found": int(value > 0.1), "regions": int(inside > 0),
                "regions_false": 0,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_the_summary_averages_images_and_counts_the_empty_apart() -> None:
    split = summarise_segmentation(rows_of([0.5, 0.9, 0.0, np.nan, 0.6]), classes=["lesion"], resamples=200)["test"]
    dice = split["metrics"]["dice"]
    assert dice["value"] == pytest.approx(0.5)
    assert dice["low"] < 0.5 < dice["high"]
    assert split["counts"]["lesion"] == {"both_empty": 1, "false_alarms": 0, "missed": 1, "outlined": 3}
    assert split["n"] == 5
    assert split["per_class"]["lesion"]["n"] == 4  # images that show one
    assert split["patients"] is None
    assert split["metrics"]["lesion_sensitivity"]["value"] == pytest.approx(3 / 4)
    assert [row["n"] for row in split["by_size"][0]["strata"]] == [2, 1, 1]
    assert len(split["notes"]) == 2


def test_intervals_draw_patients_not_images() -> None:
    generator = np.random.default_rng(0)
    of_patient = generator.uniform(0.2, 0.95, 12)
    dice = np.repeat(of_patient, 8).tolist()
    named = summarise_segmentation(rows_of(dice, [f"p{i // 8}" for i in range(96)]), classes=["lesion"], resamples=500)[
        "test"
    ]["metrics"]["dice"]
    alone = summarise_segmentation(rows_of(dice), classes=["lesion"], resamples=500)["test"]["metrics"]["dice"]
    assert named["value"] == pytest.approx(alone["value"], abs=1e-12)  # summed in another order
    assert named["high"] - named["low"] > 2 * (alone["high"] - alone["low"])


def test_images_of_a_cluster_are_drawn_together_where_no_patient_is_named() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.95, 12)
    frame = rows_of(np.repeat(values, 8).tolist())
    groups = [f"near-{i // 8}" for i in range(96)]

    def interval(rows: pd.DataFrame) -> tuple[float, float]:
        found = mean_entry(rows[["dice"]].to_numpy(), rows, 300, 0)
        return found["low"], found["high"]

    named = frame.assign(patient_id=[name.replace("near", "p") for name in groups])
    clustered = interval(frame.assign(cluster=groups))
    assert clustered == pytest.approx(interval(frame.assign(patient_id=groups)))
    low, high = interval(frame.assign(cluster=""))
    assert clustered[1] - clustered[0] > 2 * (high - low)
    assert interval(named.assign(cluster="all")) == pytest.approx(interval(named))  # a patient counts for more


def test_a_mean_is_told_from_zero_by_its_patients() -> None:
    rows = rows_of([0.5] * 40, [f"p{i}" for i in range(40)])
    lost = np.random.default_rng(0).normal(0.1, 0.1, (40, 1))
    assert mean_entry(lost, rows, 400, 0, tested=True)["p_value"] < 0.01
    assert mean_entry(lost - lost.mean(), rows, 400, 0, tested=True)["p_value"] > 0.5
    assert mean_entry(lost[:1], rows[:1], 400, 0, tested=True)["p_value"] is None
    assert "p_value" not in mean_entry(lost, rows, 400, 0)
    assert mean_entry(lost * np.nan, rows, 400, 0)["value"] is None


def test_too_few_lesions_for_thirds_have_none_and_no_rows_are_refused() -> None:
    split = summarise_segmentation(rows_of([0.5, 0.9, np.nan]), classes=["lesion"], resamples=100)["test"]
    assert split["by_size"] == [{"class": "lesion", "strata": []}]
    with pytest.raises(UserError, match="no segmentations"):
        summarise_segmentation(rows_of([0.5])[:0], classes=["lesion"])


def test_runs_of_the_same_images_come_in_one_order_and_of_others_are_refused() -> None:
    one = rows_of([0.5, 0.9, 0.0, 0.6], ["a", "a", "b", "c"])
    other = one.assign(dice=[0.1, 0.2, 0.3, 0.4])[::-1]
    elsewhere = one.assign(split="val", image_path=[f"v{i}.png" for i in range(4)])
    first, second = same_images([one, pd.concat([elsewhere, other])], split="test")
    assert first["dice"].tolist() == [0.5, 0.9, 0.0, 0.6]
    assert second["dice"].tolist() == [0.1, 0.2, 0.3, 0.4]
    for column, cells in (("patient_id", "x"), ("reference", 3), ("class", "rim"), ("image_path", "x.png")):
        with pytest.raises(UserError, match="cannot be compared"):
            same_images([one, other.assign(**{column: cells})], split="test")
    frames = [one[:1].assign(frame=number) for number in "01"]
    assert same_images([pd.concat(frames[::-1]), pd.concat(frames)], split="test")[0]["frame"].tolist() == ["0", "1"]


def test_a_table_reads_back_and_one_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    frame = rows_of([0.5, np.nan], ["007", ""])
    frame.to_csv(tmp_path / "a.csv", index=False)
    pd.testing.assert_frame_equal(read_segmentation(tmp_path / "a.csv"), frame, check_dtype=False)
    for name in ("patient_id", "reference", "hd95"):
        frame.drop(columns=name).to_csv(tmp_path / "b.csv", index=False)
        with pytest.raises(UserError, match=f"no column {name}"):
            read_segmentation(tmp_path / "b.csv")
