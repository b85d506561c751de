"""Every figure of an audit, counted by hand on a data set of seventeen images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_audit import different, manifest_of, save, texture

from msmae.config import make_settings
from msmae.data.audit import Audit, audit, describe_leakage, find_duplicates, list_warnings
from msmae.data.audit.against import Pool, audit_against, known_from
from msmae.data.audit.columns import Columns
from msmae.data.audit.counts import _differing
from msmae.data.audit.neighbours import FARTHEST
from msmae.data.audit.sheet import GAP, LINE, SIDE, draw_worst_pairs
from msmae.data.audit.threshold import _chance_limit, _reason, choose_threshold
from msmae.data.copies import ALIKE, COPIED
from msmae.data.manifest import SEPARATOR, Manifest

ROWS = [  # label, patient, split, cluster
    ("a", "p1", "train", f"{COPIED}x"),
    ("a", "p1", "train", f"{ALIKE}y"),  # shows the picture of 0
    ("b", "p2", "train", ""),  # so does this one, under another label
    ("a", "p3", "train", ""),
    ("a", "p3", "test", ""),  # the patient of 3 on the other side
    ("b", "p4", "val", ""),
    ("b", "p4", "train", ""),  # the patient of 5, of no matter to the test split
    ("a", "p5", "test", ""),  # the picture of 3
    ("b", "p6", "test", ""),  # four bits from 5
    ("a", "p7", "train", ""),
    ("b", "p8", "val", ""),  # three bits from 9
    ("", "", "", ""),  # of one colour
    ("c", "p9", "train", ""),
    ("b", "p4", "val", ""),  # the picture of 6
    ("a", "p10", "test", f"{COPIED}x"),
    ("c", "p9", "test", f"{ALIKE}y"),  # the patient of 12, and named like 1
    ("c", "p11", "train", ""),  # cannot be read
]


@pytest.fixture
def found() -> Audit:
    rows = [
        {"image_path": f"{i}.png", "label": label, "patient_id": patient, "split": split, "cluster": cluster,
         "mask_path": "" if i % 4 else f"mask{i}.png"}
        for i, (label, patient, split, cluster) in enumerate(ROWS)
    ]  # fmt: skip
    prints = different(len(ROWS))
    record = prints.record
    record["digest"] = np.arange(len(ROWS))[:, None]
    record["numbers"], record["channels"] = "uint8", 1
    record["numbers"][12], record["channels"][[1, 2]] = "uint16", 3
    for copy, first in ((1, 0), (2, 0), (7, 3), (13, 6)):
        record["digest"][copy], record["hash"][copy] = record["digest"][first], record["hash"][first]
    record["hash"][8], record["hash"][10] = record["hash"][5], record["hash"][9]
    record["hash"][8][3] ^= 0b10101 | 1 << 15
    record["hash"][10][9] ^= 0b111
    record["constant"][[11, 16]] = True  # 16 cannot be read
    prints.problems[16] = "cut short"
    prints.mask_problems[4] = "no mask"
    return audit(manifest_of(rows), prints=prints, source="DATA")


def test_every_figure_is_what_a_person_counts(found: Audit) -> None:
    told = found.to_dict()
    expected = {
        "source": "DATA", "layout": "csv", "images": 17, "patients": 11, "nameless": 1, "classes": 3, "masks": 5,
        "unreadable": 1, "constant": 1, "mask_problems": 1, "other_numbers": 1,
        "identical_pairs": 3 + 1 + 1, "label_conflicts": 1, "patient_conflicts": 2, "near_pairs": 2,
        "near_conflicts": 1, "near_across_patients": 2, "near_clusters": 2, "largest_cluster": 3, "crowded": False,
        "test_identical_to_pool": 1, "test_copies_in_pool": 1, "test_patients_in_pool": 2, "leaking_images": 4,
        "leaking_classes": {"a": 3, "c": 1}, "test_near_pool": 1, "near_classes": {"b": 1}, "test_named_like_pool": 1,
        "val_identical_to_train": 1, "patients_crossing": 3, "leaks": True, "shortcuts": [],
        "splits": {
            "(no label)": {"(none)": 1},
            "a": {"train": 4, "test": 3},
            "b": {"train": 2, "val": 3, "test": 1},
            "c": {"train": 2, "test": 1},
        },
        "small_classes": {"c": 2},  # p9 and p11
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert list(told["splits"]) == sorted(told["splits"])
    assert (told["threshold"]["bits"], told["threshold"]["resaved"]) == (6, None)


def test_the_images_behind_the_figures_are_named(found: Audit) -> None:
    assert found.details == {
        "unreadable": [["16.png", "cut short"]],
        "constant": ["11.png"],
        "identical": [["0.png", "1.png", "2.png"], ["3.png", "7.png"], ["6.png", "13.png"]],
        "near": [["9.png", "10.png", 3], ["5.png", "8.png", 4]],
        "label_conflicts": [[["0.png", "a"], ["1.png", "a"], ["2.png", "b"]]],
        "patient_conflicts": [["0.png", "1.png", "2.png"], ["3.png", "7.png"]],
        "test_identical_to_pool": ["7.png"],
        "test_near_pool": ["8.png"],
        "test_copies_in_pool": ["14.png"],
        "test_named_like_pool": ["15.png"],
        "patients_crossing": ["p3", "p4", "p9"],
        "mask_problems": [["4.png", "no mask"]],
        "other_numbers": [["12.png", "uint16 numbers where most images hold uint8"]],
        "channels": [[1, 14], [3, 2]],
    }


def test_every_figure_that_is_not_zero_is_a_warning(found: Audit) -> None:
    assert list_warnings(found) == [
        "1 image cannot be read",
        "1 image of one colour",
        "1 image present more than once, with different labels",
        "2 images present more than once, of different patients",
        "1 test image nearly identical to a training or validation image: 1 b",
        "1 test image named as a view or part of a training or validation image",
        "1 pair of images nearly identical, with different labels",
        "2 pairs of images nearly identical, of different patients",
        "1 validation image with exactly the pixels of a training image",
        "1 patient both in training and in validation",
        "1 image whose mask cannot be used",
        "1 image whose pixel type differs from most: training stops there, or leaves them out (--on-error skip)",
        "too few images (or patients, or clusters) of a class to be in every split: c has 2",
        "no validation image of a, c: no figure of that split covers this",
    ]
    assert "very many images are nearly identical" in list_warnings(replace(found, crowded=True))[-1]


@pytest.mark.parametrize(
    ("images_of_b", "test_of_b", "told"),
    [
        (20, 0, "no test image of b"),
        (20, 1, ""),  # as chance may have it: one image in five of all others is in test
        (20, 9, ""),
        (20, 10, "50 % of the images of b are in test"),
        (100, 5, "5 % of the images of b are in test"),
        (100, 25, ""),
        (100, 45, "45 % of the images of b"),
    ],
)
def test_classes_that_a_split_lacks_or_has_too_many_of_are_named(images_of_b: int, test_of_b: int, told: str) -> None:
    splits = {"a": ["train"] * 160 + ["test"] * 40, "b": ["train"] * (images_of_b - test_of_b) + ["test"] * test_of_b}
    rows = [
        {"image_path": f"{label}{i}.png", "label": label, "patient_id": "", "split": split}
        for label, of_class in splits.items()
        for i, split in enumerate(of_class)
    ]
    warnings = list_warnings(audit(manifest_of(rows), prints=different(len(rows)), source="d"))
    named = [line for line in warnings if " of b" in line or " of a" in line]
    assert len(named) == bool(told)
    assert all(told in line for line in named)


def test_a_name_that_is_not_utf_8_is_written_out() -> None:
    rows = [
        {"image_path": f"{i}\udcff.png", "label": "a", "patient_id": "p\udcfe", "split": split}
        for i, split in enumerate(("train", "test"))
    ]
    prints = different(2)
    prints.problems[0] = "cut\udcfd short"
    manifest = manifest_of(rows)
    found = audit(replace(manifest, notes=("n\udcff",)), prints=prints, source="d\udcff")
    assert found.source == "d\\xff"
    assert found.to_dict()["notes"] == ["n\\xff"]
    told = found.details
    assert told["patients_crossing"] == ["p\\xfe"]
    assert told["unreadable"] == [["0\\xff.png", "cut\\xfd short"]]


def test_leakage_of_every_kind_is_told_with_the_classes_of_its_images(found: Audit) -> None:
    assert describe_leakage(found) == (
        "the data leaks into the test split: 1 test image with exactly the pixels of a training or validation image "
        "and 1 test image named as a changed copy, or the original, of a training or validation image "
        "and 2 patients with images in test and in training or validation; by class: 3 a, 1 c"
    )


def test_one_leaking_image_is_a_leak(found: Audit) -> None:
    assert replace(found, leaking_images=1).leaks
    assert not replace(found, leaking_images=0).leaks


def test_labels_that_are_numbers_are_a_measurement_only_where_all_are_and_many() -> None:
    def told(names: list[str]) -> bool:
        rows = [{"image_path": f"{i}.png", "label": name} for i, name in enumerate(names * 3)]
        found = audit(manifest_of(rows), prints=different(len(rows)))
        return any("different numbers" in line for line in list_warnings(found))

    numbers = [f"{i / 2}" for i in range(21)]
    assert told([*numbers, ""])
    assert not told(numbers[:20])
    assert not told([*numbers, "unknown"])


def test_what_is_not_known_of_one_of_a_pair_differs_from_nothing() -> None:
    ends = np.array([["a", "b"], ["", "b"], ["a", ""], ["a", "a"], ["b", "a"]], dtype=object)
    assert _differing(ends) == [["a", "b"], ["b", "a"]]


def test_an_image_without_a_finding_is_not_one_without_a_label() -> None:
    cells = ([f"a{SEPARATOR}b", SEPARATOR, "", "a"], [""] * 4, ["test", "", "", "test"], [""] * 4)
    text = (np.array(column, dtype=object) for column in cells)
    assert Columns(*text).by_class_and_split() == {
        "(no finding)": {"(none)": 1}, "(no label)": {"(none)": 1}, "a": {"test": 2}, "b": {"test": 1},
    }  # fmt: skip


def test_copies_are_listed_from_the_most_frequent_on() -> None:
    prints = different(9)
    prints.record["digest"] = np.arange(9)[:, None]
    for copy, first in ((1, 0), (4, 3), (5, 3), (8, 7)):
        prints.record["digest"][copy] = prints.record["digest"][first]
    prints.problems[2] = "cut short"
    duplicates = find_duplicates(prints)
    assert [rows.tolist() for rows in duplicates.repeated()] == [[3, 4, 5], [0, 1], [7, 8]]
    assert duplicates.picture[2] == -1
    nothing = duplicates.first_among(np.zeros(9, dtype=bool))
    assert nothing.tolist() == [-1] * 4  # pictures
    later = duplicates.first_among(np.arange(9) >= 4)
    assert sorted(later[later >= 0].tolist()) == [4, 6, 7]


def test_a_threshold_of_no_bits_finds_equal_hashes_and_one_below_finds_nothing() -> None:
    known = np.array([3, 5])
    assert _reason(0, 5, known, 0, 40).startswith("two images whose 256-bit hashes differ in at most 0 bits. ")
    assert "100 % of the images saved again changed more" in _reason(0, 5, known, 0, 40)
    assert "usually differ in 40 bits. By chance, no two are expected to differ in 0 or fewer" in _reason(
        0, 5, known, 0, 40
    )
    assert "Of 2 images saved again (as JPEG, smaller, brighter), 99 % changed" in _reason(3, 5, known, 3, 40)
    assert ". 50 % of the images saved again changed more: not found" in _reason(3, 5, known, 3, 40)
    assert "not found" not in _reason(5, 5, known, 5, 40)
    assert _reason(-1, None, known, -1, 4).startswith("none, because different images are as alike")
    alike = _reason(-1, 5, known, -1, 4)
    assert alike.endswith(". Two different images usually differ in 4 bits")


def test_chance_is_asked_from_a_hundred_pairs_on() -> None:
    hashes = different(15).record["hash"]
    assert _chance_limit(hashes[:14]) == (None, None)  # 91 pairs
    limit, typical = _chance_limit(hashes)
    assert limit == FARTHEST
    assert 118 <= typical <= 138  # half of 256 bits


def pool_of(folder: Path, names: str, patients: str, first: int, split: str) -> Manifest:
    """Pictures ``first``, ``first`` + 1, ... in a folder; a letter each names file and patient."""
    rows = []
    for number, (name, patient) in enumerate(zip(names, patients, strict=True)):
        save(folder / f"{name}.png", texture(first + number))
        rows.append({"image_path": f"{name}.png", "label": "ab"[number % 2], "patient_id": patient, "split": split})
    return manifest_of(rows, folder)


def test_a_patients_name_counts_where_two_data_sets_share_a_picture_or_a_folder(tmp_path: Path) -> None:
    settings = make_settings("tiny")

    def leaking(pool: Manifest, test: Manifest, related_only: bool = True) -> tuple[int, int]:
        told = known_from(test, [Pool(pool, settings, related_only)], settings=settings)
        return told["test_patients_in_pool"], told["test_identical_to_pool"]

    pool = pool_of(tmp_path / "one", "abcd", "1234", 0, "train")
    apart = pool_of(tmp_path / "two", "efgh", "1256", 10, "test")
    assert leaking(pool, apart) == (0, 0)
    assert leaking(pool, apart, related_only=False) == (2, 0)
    assert leaking(pool, pool_of(tmp_path / "one", "ijkl", "1256", 10, "test")) == (2, 0)
    assert leaking(pool, pool_of(tmp_path / "three", "efgh", "1256", 3, "test")) == (2, 1)
    (tmp_path / "linked").mkdir()
    for name in "efgh":
        (tmp_path / "linked" / f"{name}.png").symlink_to(tmp_path / "one" / "a.png")
    links = manifest_of([{**row, "split": "test"} for row in apart.table.to_dict("records")], tmp_path / "linked")
    assert leaking(pool, links) == (2, 4)
    save(tmp_path / "one" / "unlisted.png", texture(20))
    for link in (tmp_path / "linked").iterdir():
        link.unlink()
        link.symlink_to(tmp_path / "one" / "unlisted.png")
    assert leaking(pool, links) == (2, 0)


def test_with_other_pools_leakage_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    settings = make_settings("tiny")
    pool = pool_of(tmp_path / "one", "abcd", "1234", 0, "train")
    test = pool_of(tmp_path / "two", "efgh", "5678", 2, "test")  # shows two of the pool's pictures
    alone = audit_against(test, settings=settings, source="DATA2")
    held = audit_against(test, [Pool(pool, settings)], settings=settings, source="DATA2")
    assert (alone.source, alone.test_identical_to_pool, alone.leaks) == ("DATA2", 0, False)
    assert (held.source, held.test_identical_to_pool, held.leaks) == ("DATA2", 2, True)
    leaking = {"test_identical_to_pool": ["e.png", "f.png"]}
    assert held.details == {**alone.details, **leaking} != alone.details


def test_saved_again_is_rounded_up_to_whole_bits() -> None:
    threshold = choose_threshold(different(3).record["hash"], np.array([0] * 99 + [10, -1]))
    assert (threshold.resaved, threshold.bits) == (1, 6)  # 99 % stay within 0.1 bits; six are allowed at least


def test_a_large_picture_is_shrunk_and_not_cut(tmp_path: Path) -> None:
    pixels = np.zeros((2 * SIDE, 4 * SIDE), np.uint8)
    pixels[:, 2 * SIDE :] = 250
    for name in "ab":
        save(tmp_path / f"{name}.png", pixels)
    rows = [{"image_path": f"{name}.png", "label": name} for name in "ab"]
    prints = different(2)
    prints.record["digest"][1] = prints.record["digest"][0]
    draw_worst_pairs(manifest_of(rows, tmp_path), find_duplicates(prints), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    middle = sheet[GAP + 3 * LINE + SIDE // 2, GAP : GAP + SIDE, 0]
    assert (middle[: SIDE // 2 - 2] == 0).all()
    assert (middle[SIDE // 2 + 2 :] == 250).all()
    assert sheet[GAP + 3 * LINE + SIDE // 8, GAP + SIDE // 2, 0] == 211  # twice as wide as high: grey above it


def test_pairs_stand_three_in_a_row_and_at_most_eighteen(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / f"{i}.png", np.full((SIDE, SIDE), 12 * i, np.uint8))
    rows = [{"image_path": f"{i}.png", "label": "a"} for i in range(20)]
    prints = different(20)
    prints.record["digest"][5::5] = 0  # four copies: one pair
    near = find_duplicates(prints)
    pairs = np.array([(i, i + 1, 1 + i) for i in range(12)])
    several = replace(near, near=pairs[:4])
    assert draw_worst_pairs(manifest_of(rows, tmp_path), several, tmp_path / "sheet.png", pairs=4) == 4
    width, height = 2 * SIDE + 3 * GAP, SIDE + 3 * LINE + 2 * GAP
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * height, 3 * width, 3)
    places = [(0, 0), (1, 0), (2, 0), (0, 1)]
    for column, row in places:
        middle = sheet[row * height + GAP + 3 * LINE + SIDE // 2, column * width + GAP + SIDE // 2]
        assert middle.tolist() != [255, 255, 255]
        line = sheet[row * height + GAP + LINE :][:LINE, column * width : (column + 1) * width]
        assert (line < 200).any()  # a caption
    assert (sheet[height:, width:] == 255).all()
    many = np.array([(i, j, 1 + i) for i in range(12) for j in range(i + 1, 14)])[:30]
    assert draw_worst_pairs(manifest_of(rows, tmp_path), replace(near, near=many), tmp_path / "sheet.png") == 18
