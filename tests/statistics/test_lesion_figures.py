"""Figures of a segmentation by hand at their limits: an exact hit, three lesions, and names that stay text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from msmae.errors import UserError
from msmae.statistics.intervals import bca, bca_p_value, draw_patients, leave_out
from msmae.statistics.segmentation import (
    match_lesions,
    mean_entry,
    measure,
    outline_distances,
    read_segmentation,
    same_images,
    summarise_segmentation,
    under_weights,
)


def bar(start: int, length: int, row: int = 4) -> np.ndarray:
    mask = np.zeros((9, 30), dtype=bool)
    mask[row, start : start + length] = True
    return mask


def a_row(path: str, dice: float, **cells: object) -> dict[str, object]:
    """A row of segmentation.csv: an image with one lesion of ten pixels unless said otherwise."""
    row: dict[str, object] = {
        "image_path": path, "patient_id": "", "split": "test", "class": "a", "share": 0.1, "reference": 10,
        "predicted": 10, "dice": dice, "iou": dice / 2, "pixel_sensitivity": dice, "pixel_precision": dice,
        "hd95": 4 * dice, "nsd": dice, "lesions": 1, "lesions_found": 1, "regions": 1, "regions_false": 0,
    }  # fmt: skip
    return row | cells


def test_one_pixel_is_the_tolerance_unless_another_is_asked() -> None:
    one, two = measure(bar(2, 10), bar(2, 10, row=5)), measure(bar(2, 10), bar(2, 10, row=6))
    assert (one["nsd"], two["nsd"]) == (1.0, 0.0)
    assert measure(bar(2, 10), bar(2, 10, row=5), tolerance=0.5)["nsd"] == 0.0
    assert measure(bar(2, 10), bar(2, 10, row=6), tolerance=2)["nsd"] == 1.0


def test_every_figure_of_two_overlapping_bars_by_hand() -> None:
    """Ten pixels and six, four of them shared: the outlines are the bars themselves."""
    figures = measure(bar(0, 10), bar(6, 6), tolerance=1)
    there, back = [6, 5, 4, 3, 2, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 2]
    assert figures == pytest.approx(
        {
            "reference": 10, "predicted": 6, "dice": 8 / 16, "iou": 4 / 12, "pixel_sensitivity": 0.4,
            "pixel_precision": 4 / 6, "hd95": max(np.percentile(there, 95), np.percentile(back, 95)), "nsd": 10 / 16,
            "lesions": 1, "lesions_found": 1, "regions": 1, "regions_false": 0,
        }
    )  # fmt: skip
    turned = measure(bar(6, 6), bar(0, 10), tolerance=1)
    assert turned["hd95"] == figures["hd95"]
    assert (turned["pixel_sensitivity"], turned["pixel_precision"]) == pytest.approx((4 / 6, 0.4))


def test_an_outline_is_what_has_a_neighbour_outside() -> None:
    square, dot = np.zeros((2, 9, 9), dtype=bool)
    square[2:7, 2:7] = True
    dot[4, 4] = True
    there, back = outline_distances(square, dot)
    ring = [np.hypot(y - 4, x - 4) for y in range(2, 7) for x in range(2, 7) if {y, x} & {2, 6}]
    assert sorted(there) == pytest.approx(sorted(ring))
    assert back == pytest.approx([2.0])
    for one, other in ((square, ~np.ones_like(dot)), (~np.ones_like(dot), dot)):
        assert [len(part) for part in outline_distances(one, other)] == [0, 0]


def test_a_lesion_is_found_from_a_tenth_of_the_union() -> None:
    """One pixel of ten is just enough, one of eleven is not."""
    assert match_lesions(bar(0, 10), bar(4, 1)) == (1, 1, 1, 0)
    assert match_lesions(bar(0, 11), bar(4, 1)) == (1, 0, 1, 1)
    assert match_lesions(bar(0, 6), bar(5, 5)) == (1, 1, 1, 0)
    assert match_lesions(bar(0, 6), bar(5, 6)) == (1, 0, 1, 1)
    nothing = np.zeros((9, 30), dtype=bool)
    assert match_lesions(nothing, bar(0, 3)) == (0, 0, 1, 1)
    assert match_lesions(nothing, nothing) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_lesions_are_matched_as_region_by_region(seed: int) -> None:
    generator = np.random.default_rng(seed)
    reference, predicted = (ndimage.gaussian_filter(generator.normal(size=(40, 50)), 1.5) > 0.12 for _ in range(2))
    predicted |= reference & (generator.random((40, 50)) < 0.3)
    truth, lesions = ndimage.label(reference, np.ones((3, 3)))
    said, regions = ndimage.label(predicted, np.ones((3, 3)))
    found, true = set(), set()
    for lesion in range(1, lesions + 1):
        for region in range(1, regions + 1):
            a, b = truth == lesion, said == region
            if (a & b).sum() >= 0.1 * (a | b).sum():
                found.add(lesion)
                true.add(region)
    assert match_lesions(reference, predicted) == (lesions, len(found), regions, regions - len(true))


def test_names_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    rows = [
        a_row("001", 0.5, patient_id="007", split="01", cluster="08", **{"class": "1"}),
        a_row("002", np.nan, patient_id="NA", split="01", cluster="", **{"class": "null"}),
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "segmentation.csv", index=False)
    read = read_segmentation(tmp_path / "segmentation.csv")
    names = ["image_path", "patient_id", "split", "cluster", "class"]
    assert read[names].to_numpy().tolist() == [["001", "007", "01", "08", "1"], ["002", "NA", "01", "", "null"]]
    assert read["dice"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert read["reference"].tolist() == [10, 10]


@pytest.mark.parametrize("column", ["image_path", "patient_id", "split", "class", "reference", "dice", "nsd"])
def test_a_table_without_a_column_is_refused_with_its_name(tmp_path: Path, column: str) -> None:
    pd.DataFrame([a_row("a.png", 0.5)]).drop(columns=column).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(UserError, match=f"no column {column}") as refused:
        read_segmentation(tmp_path / "s.csv")
    assert str(tmp_path / "s.csv") in str(refused.value)


def by_size(dice: list[float], shares: list[float]) -> list[dict[str, object]]:
    rows = [a_row(f"{i}.png", d, share=s) for i, (d, s) in enumerate(zip(dice, shares, strict=True))]
    rows.append(a_row("none.png", 0.0, reference=0, share=0.0, predicted=5, lesions=0, lesions_found=0))
    return summarise_segmentation(pd.DataFrame(rows), classes=["a"], resamples=20)["test"]["by_size"]


def test_three_lesions_are_a_small_a_middle_and_a_large_one() -> None:
    (entry,) = by_size([0.9, 0.5, 0.7], [0.3, 0.1, 0.2])
    assert entry["class"] == "a"
    assert [(part["size"], part["n"], part["share_of_image"]) for part in entry["strata"]] == [
        ("small", 1, [0.1, 0.1]),
        ("middle", 1, [0.2, 0.2]),
        ("large", 1, [0.3, 0.3]),
    ]
    assert [part["dice"]["value"] for part in entry["strata"]] == pytest.approx([0.5, 0.7, 0.9])
    assert by_size([0.5, 0.7], [0.1, 0.2]) == [{"class": "a", "strata": []}]


def test_lesions_of_one_size_are_one_third() -> None:
    (entry,) = by_size([0.25, 0.5, 0.75, 1.0], [0.2] * 4)
    assert [(part["size"], part["n"], part["dice"]["value"]) for part in entry["strata"]] == [("small", 4, 0.625)]


def two_classes() -> pd.DataFrame:
    """Class a: Dice 0.8, 0.6, a false alarm and nothing at all; class b: shown and missed once, else 0.5."""
    empty = {"reference": 0, "lesions": 0, "lesions_found": 0}
    rows = [
        a_row("0", 0.8, patient_id="p"),
        a_row("1", 0.6, patient_id="p"),
        a_row("2", 0.0, patient_id="q", regions_false=1, **empty),
        a_row("3", np.nan, patient_id="", predicted=0, regions=0, **empty),
    ]
    other = [0.5, 0.5, 0.5, 0.0]
    rows += [
        a_row(row["image_path"], dice, patient_id=row["patient_id"], lesions=2, **{"class": "b"})  # type: ignore[arg-type]
        for row, dice in zip(rows, other, strict=True)
    ]
    rows[-1] |= {"predicted": 0, "regions": 0, "lesions_found": 0}
    return pd.DataFrame(rows)


def test_a_split_by_hand() -> None:
    found = summarise_segmentation(two_classes(), classes=["a", "b"], resamples=30)
    assert list(found) == ["test"]
    split = found["test"]
    assert (split["n"], split["patients"], split["resamples"]) == (4, 2, 30)
    figure = {name: entry["value"] for name, entry in split["metrics"].items()}
    assert figure == pytest.approx(
        {
            "dice": (1.4 / 3 + 1.5 / 4) / 2, "iou": (0.7 / 3 + 0.75 / 4) / 2, "hd95": (5.6 / 3 + 1.5) / 2,
            "nsd": (1.4 / 3 + 1.5 / 4) / 2, "pixel_sensitivity": (1.4 / 3 + 1.5 / 4) / 2,
            "pixel_precision": (1.4 / 3 + 1.5 / 4) / 2, "lesion_sensitivity": 5 / 10, "lesion_precision": 5 / 6,
            "dice_lesion": (0.7 + 1.5 / 4) / 2,
        }
    )  # fmt: skip
    a, b = split["per_class"]["a"], split["per_class"]["b"]
    assert (a["n"], b["n"]) == (2, 4)
    assert (a["dice"]["value"], a["dice_lesion"]["value"]) == pytest.approx((1.4 / 3, 0.7))
    assert (b["dice"]["value"], b["dice_lesion"]["value"]) == pytest.approx((0.375, 0.375))
    assert (a["lesion_sensitivity"]["value"], b["lesion_sensitivity"]["value"]) == pytest.approx((1, 3 / 8))
    assert (a["lesion_precision"]["value"], b["lesion_precision"]["value"]) == pytest.approx((2 / 3, 1))
    assert split["counts"] == {
        "a": {"both_empty": 1, "false_alarms": 1, "missed": 0, "outlined": 2},
        "b": {"both_empty": 0, "false_alarms": 0, "missed": 1, "outlined": 3},
    }
    first, second = split["notes"]
    assert first.startswith("without a: 2 of 4 images; 1 of them without an outline")
    assert second.startswith("with b but without an outline: 1 image ")


def test_splits_come_in_one_order_and_have_their_own_rows() -> None:
    rows = [a_row(f"{split}{i}", dice, split=split) for split, dice in
            (("train", 0.25), ("val", 0.5), ("test", 0.75)) for i in range(2)]  # fmt: skip
    found = summarise_segmentation(pd.DataFrame(rows), classes=["a"], resamples=5)
    assert [(name, part["n"], part["metrics"]["dice"]["value"]) for name, part in found.items()] == [
        ("test", 2, 0.75),
        ("val", 2, 0.5),
        ("train", 2, 0.25),
    ]


def test_the_interval_of_a_mean_is_that_of_its_own_draws() -> None:
    generator = np.random.default_rng(4)
    names = [f"p{i // 3}" for i in range(21)]
    rows = pd.DataFrame({"patient_id": names, "image_path": [str(i) for i in range(21)]})
    values = generator.random((21, 2)) - 0.2
    values[[3, 11], 0] = np.nan
    figure, count = under_weights(np.nan_to_num(values), (~np.isnan(values)).astype(float), rows)
    assert count == 7
    kept = np.arange(21) % 21 >= 3  # without the first patient
    without = figure(np.array([[0.0, 1, 1, 1, 1, 1, 1]]))
    assert without == pytest.approx([np.nanmean(values[kept], axis=0).mean()])
    draws = np.concatenate([figure(w) for w in draw_patients(7, width=21, resamples=150, seed=9)])
    left_out = np.concatenate([figure(w) for w in leave_out(7, width=21, seed=9)])
    value = float(np.nanmean(values, axis=0).mean())
    wanted = bca(value, draws, left_out, units=7)
    found = mean_entry(values, rows, 150, 9, tested=True)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((value, wanted.low, wanted.high))
    assert found["p_value"] == pytest.approx(bca_p_value(draws, left_out, value, units=7))
    assert "p_value" not in mean_entry(values, rows, 150, 9)


def test_a_column_that_a_draw_leaves_empty_makes_it_undefined_and_an_empty_one_is_left_out() -> None:
    rows = pd.DataFrame({"patient_id": ["p", "q"], "image_path": ["0", "1"]})
    values = np.array([[0.5, np.nan, np.nan], [1.0, 0.25, np.nan]])
    figure, _ = under_weights(np.nan_to_num(values), (~np.isnan(values)).astype(float), rows)
    assert figure(np.array([[1.0, 1], [2, 0], [1, 2]])) == pytest.approx(
        [0.5, np.nan, (2.5 / 3 + 0.25) / 2], nan_ok=True
    )
    nothing = mean_entry(np.full((2, 1), np.nan), rows, 20, 0)
    assert (nothing["value"], nothing["low"], nothing["high"]) == (None, None, None)
    single = mean_entry(np.array([[0.5], [0.75]]), rows.assign(patient_id="p"), 20, 0, tested=True)
    assert (single["value"], single["low"], single["p_value"]) == (0.625, None, None)


def test_runs_are_put_in_the_order_of_image_slice_and_class() -> None:
    rows = [a_row("v", 0.1 * i, index=i, **{"class": name}) for i in (2, 10, 1) for name in ("b", "a")]
    rows.append(a_row("v", 0.9, split="val", index=0))
    first, second = same_images([pd.DataFrame(rows), pd.DataFrame(rows[::-1])], split="test")
    assert first.equals(second)
    assert list(zip(first["index"], first["class"], strict=True)) == [(i, c) for i in (1, 2, 10) for c in "ab"]
    for change in ({"reference": 11}, {"patient_id": "other"}, {"image_path": "w"}):
        other = [rows[0] | change, *rows[1:]]
        with pytest.raises(UserError, match="cannot be compared"):
            same_images([pd.DataFrame(rows), pd.DataFrame(other)], split="test")


def test_a_lesion_of_one_pixel_is_a_lesion() -> None:
    rows = [a_row(f"{i}.png", 0.25 * (i + 1), reference=1, predicted=1, share=0.1 * (i + 1)) for i in range(3)]
    split = summarise_segmentation(pd.DataFrame(rows), classes=["a"], resamples=5)["test"]
    assert split["per_class"]["a"]["n"] == 3
    assert split["metrics"]["dice_lesion"]["value"] == pytest.approx(0.5)
    assert split["counts"]["a"] == {"both_empty": 0, "false_alarms": 0, "missed": 0, "outlined": 3}
    assert [part["n"] for part in split["by_size"][0]["strata"]] == [1, 1, 1]
    alarm = measure(bar(0, 1) & False, bar(0, 1))
    assert (alarm["dice"], alarm["nsd"], alarm["predicted"]) == (0.0, 0.0, 1)
    missed = measure(bar(0, 1), bar(0, 1) & False)
    assert (missed["iou"], missed["nsd"], missed["reference"]) == (0.0, 0.0, 1)


def test_images_without_a_patient_are_drawn_by_cluster_or_alone() -> None:
    rows = pd.DataFrame(
        {"patient_id": ["p", "", "", "", "p", "x"], "image_path": ["p", "a", "b", "x", "c", "d"],
         "cluster": ["near-1", "near-1", "near-1", "", "", "near-1"]}
    )  # fmt: skip
    values = np.arange(6.0)[:, None] + 1
    _, count = under_weights(values, np.ones((6, 1)), rows)
    assert count == 4  # p, x, the cluster of a and b, and the image x
    assert under_weights(values, np.ones((6, 1)), rows.drop(columns="cluster"))[1] == 5
