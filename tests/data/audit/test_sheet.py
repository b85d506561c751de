"""The contact sheet: which pairs are chosen, in which order, and how a picture of any kind is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_audit import different, manifest_of, save, texture

from msmae.data.audit import draw_worst_pairs, find_duplicates
from msmae.data.audit.columns import Columns
from msmae.data.audit.duplicates import Duplicates, keep_together
from msmae.data.audit.sheet import GAP, LINE, SIDE, Pair, worst_pairs
from msmae.data.audit.threshold import given_threshold
from msmae.data.reading.images import Reading
from msmae.errors import UserError


def columns_of(labels: str, splits: str = "", patients: str = "") -> Columns:
    """A letter an image, ``-`` for none; splits of t(est) and others."""
    cells = [[letter.strip("-") for letter in (text or "-" * len(labels))] for text in (labels, patients, splits)]
    cells[2] = [{"t": "test", "r": "train", "": ""}[split] for split in cells[2]]
    return Columns(*(np.array(column, dtype=object) for column in (*cells, [""] * len(labels))))


def pictures(numbers: list[int], near: list[tuple[int, int, int]]) -> Duplicates:
    first = np.array([numbers.index(picture) for picture in range(max(numbers) + 1)])
    pairs = np.array(near, dtype=np.int64).reshape(-1, 3)
    return Duplicates(np.array(numbers), first, pairs, given_threshold(9), crowded=False)


def shown(columns: Columns, duplicates: Duplicates, at_most: int = 9) -> list[tuple[int, int, int, str]]:
    pairs = worst_pairs(columns, duplicates, at_most=at_most)
    return [(pair.first, pair.second, pair.bits, pair.kind) for pair in pairs]


def test_of_a_picture_shown_often_the_worst_pair_stands_for_all() -> None:
    thrice = pictures([0, 0, 0, 0], [])
    assert shown(columns_of("aaab", "rtrr"), thrice) == [(0, 3, 0, "identical, two labels")]
    assert shown(columns_of("aaaa", "rrrt"), thrice) == [(0, 3, 0, "identical, in test and in the pool")]
    assert shown(columns_of("-a-b", "rrrr"), thrice) == [(1, 3, 0, "identical, two labels")]
    assert shown(columns_of("----", "", "xxxy"), thrice) == [(0, 1, 0, "identical")]
    assert shown(columns_of("a-", "", "xy"), pictures([0, 0], [])) == [(0, 1, 0, "identical, two patients")]


def test_labels_that_do_not_contradict_each_other_are_not_two() -> None:
    columns = columns_of("-----", "rrrrr")
    columns.labels[:] = ["?a;b", "b", "?a;b", "b", "a"]
    assert shown(columns, pictures([0, 0, 1, 2, 3], [(1, 2, 4)])) == [(0, 1, 0, "identical"), (2, 3, 4, "near")]
    assert shown(columns, pictures([0, 0, 0, 1, 1], [])) == [
        (3, 4, 0, "identical, two labels"),
        (0, 1, 0, "identical"),
    ]
    columns.labels[:] = ["a;?b", "?a;b", "a", "", ""]
    assert shown(columns, pictures([0, 0, 0, 1, 2], [])) == [(1, 2, 0, "identical, two labels")]


def test_of_near_pictures_images_on_two_sides_are_shown_and_the_nearest_first() -> None:
    near = pictures([0, 0, 1, 2, 3], [(0, 1, 7), (2, 3, 4)])
    assert shown(columns_of("-----", "rtrrr"), near) == [
        (0, 1, 0, "identical, in test and in the pool"),
        (1, 2, 7, "near, in test and in the pool"),
        (3, 4, 4, "near"),
    ]
    assert shown(columns_of("----b", "----t"), pictures([0, 1, 2, 3, 4], [(3, 4, 2), (0, 1, 1), (1, 2, 3)])) == [
        (4, 3, 2, "near, in test and in the pool"),
        (0, 1, 1, "near"),
        (1, 2, 3, "near"),
    ]
    assert shown(columns_of("--", "tt"), pictures([0, 1], [(0, 1, 5)])) == [(0, 1, 5, "near")]  # both in test
    several = pictures([0, 1, 2, 3], [(0, 1, 9), (0, 2, 4), (0, 3, 6)])
    assert [pair[:3] for pair in shown(columns_of("----", "rrrr"), several, at_most=2)] == [(0, 2, 4), (0, 3, 6)]
    across = "near, in test and in the pool"
    assert (0, 2, 5, across) in shown(columns_of("---", "ttr"), pictures([0, 1, 1], [(0, 1, 5)]))
    assert (2, 0, 5, across) in shown(columns_of("---", "rrt"), pictures([0, 1, 1], [(0, 1, 5)]))


def test_every_kind_has_its_share_and_the_worst_come_first() -> None:
    columns = columns_of("ab" * 6, "r" * 12, "-" * 12)
    near = [(first, first + 1, first + 1) for first in range(0, 8, 2)] + [(8, 10, 3)]
    numbers = [*range(11), 10]
    assert shown(columns, pictures(numbers, near), at_most=3) == [
        (10, 11, 0, "identical, two labels"),
        (0, 1, 1, "near, two labels"),
        (8, 10, 3, "near"),
    ]
    assert [bits for *_, bits, _ in shown(columns, pictures(numbers, near), at_most=5)] == [0, 1, 3, 5, 3]
    pair = Pair(0, 1, bits=0, across=False, labels=True, patients=False, identical=True)
    assert pair.harm == (True, False, True, True)


def test_no_pairs_are_no_sheet_and_pictures_too_large_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png", texture(0))
    manifest = manifest_of([{"image_path": f"{name}.png", "label": name} for name in "ab"], tmp_path)
    sheet = tmp_path / "sheet.png"
    assert draw_worst_pairs(manifest, pictures([0, 1], []), sheet) == 0
    with pytest.raises(UserError, match="limit"):
        draw_worst_pairs(manifest, pictures([0, 0], []), sheet, reading=Reading(max_pixels=48 * 40 - 1))
    assert not sheet.exists()


@pytest.mark.parametrize("kind", ["colour", "grey", "16 bits", "one colour of 16 bits"])
def test_a_picture_stands_in_its_place_from_its_darkest_to_its_brightest(kind: str, tmp_path: Path) -> None:
    pixels = texture(0, size=(60, 90))
    made = {"colour": np.stack([pixels, 255 - pixels, pixels // 2], axis=2), "grey": pixels}
    made |= {
        "16 bits": 1000 + pixels.astype(np.uint16) * 16,
        "one colour of 16 bits": np.full((60, 90), 900, np.uint16),
    }
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", made[kind])
    manifest = manifest_of([{"image_path": f"{name}.png", "label": name} for name in "ab"], tmp_path)
    duplicates = pictures([0, 0], [])
    assert draw_worst_pairs(manifest, duplicates, tmp_path / "new" / "out" / "sheet.png") == 1
    sheet = np.asarray(Image.open(tmp_path / "new" / "out" / "sheet.png"))
    assert sheet.shape == (SIDE + 3 * LINE + 2 * GAP, 2 * SIDE + 3 * GAP, 3)
    top = GAP + 3 * LINE + (SIDE - 60) // 2
    for left in (GAP, GAP + SIDE + GAP):
        left += (SIDE - 90) // 2
        seen = sheet[top : top + 60, left : left + 90].astype(int)
        if kind == "colour":
            assert (seen == made[kind]).all()
        elif kind == "one colour of 16 bits":
            assert (seen == 0).all()
        else:
            scaled = pixels if kind == "grey" else (pixels - pixels.min().astype(float)) * 255 / np.ptp(pixels)
            assert np.abs(seen - scaled[..., None]).max() <= 1
            assert kind == "grey" or (seen.min(), seen.max()) == (0, 255)
        assert (sheet[top - 1, left : left + 90] == 211).all()  # light grey around it


def test_folds_are_kept_together_where_no_patient_is_named() -> None:
    rows = [{"image_path": f"{i}.png", "label": "ab"[i % 2], "fold": "xyz"[i // 2]} for i in range(6)]
    prints = different(6)
    groups = keep_together(manifest_of(rows), find_duplicates(prints), prints)
    assert groups[0] == groups[1] != groups[2] == groups[3] != groups[4] == groups[5]
    named = manifest_of([{**row, "patient_id": f"p{i}"} for i, row in enumerate(rows)])
    assert keep_together(named, find_duplicates(prints), prints) == [f"p{i}" for i in range(6)]
    two = manifest_of([{**row, "fold": "xy"[i // 3]} for i, row in enumerate(rows)])
    assert keep_together(two, find_duplicates(prints), prints) == [""] * 6


def test_a_group_without_a_patient_is_named_after_its_smallest_digest() -> None:
    rows = [{"image_path": f"{i}.png", "label": "a", "cluster": "x" if i else ""} for i in range(3)]
    prints = different(3)
    prints.record["digest"][1:] = [[0x2000000000000001, 5], [0x0706050403020100, 5]]  # their bytes: lowest first
    assert keep_together(manifest_of(rows), find_duplicates(prints), prints) == [
        "",
        "near-000102030405",
        "near-000102030405",
    ]


def test_the_lines_above_a_pair_say_what_it_is_and_which_picture_is_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[tuple[int, int], str]] = []
    write = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, place: tuple[int, int], words: str, *how: Any, **named: Any) -> None:
        lines.append((place, words))
        write(self, place, words, *how, **named)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    whole, cut, label = "x" * 31 + ".png", "y" * 8 + "z" * 31 + ".png", "L" * 50
    cells = [
        ("a.png", "cat\udcff", "train"),
        (whole, "", ""),
        (cut, "", ""),
        ("folder/of/pictures/d.png", label, "test"),
    ]
    for number, (name, *_) in enumerate(cells):
        save(tmp_path / name, texture(number))
    rows = [dict(zip(("image_path", "label", "split"), row, strict=True)) for row in cells]
    near = pictures([0, 1, 2, 3], [(0, 1, 1), (2, 3, 5)])
    assert draw_worst_pairs(manifest_of(rows, tmp_path), near, tmp_path / "sheet.png") == 2
    right = GAP + 2 * SIDE + 3 * GAP
    assert lines == [
        ((GAP, GAP), "near, in test and in the pool (5 bits apart)"),
        ((GAP, GAP + LINE), f"left: ...ctures/d.png (test / {label})"),  # twelve letters at least
        ((GAP, GAP + 2 * LINE), f"right: ...{'z' * 31}.png (no split / (no label))"),
        ((right, GAP), "near (1 bit apart)"),
        ((right, GAP + LINE), "left: a.png (train / cat\\xff)"),
        ((right, GAP + 2 * LINE), f"right: {whole} (no split / (no label))"),
    ]
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    for left in (GAP, right):
        for line in range(3):
            assert (sheet[GAP + line * LINE :][:LINE, left : left + 2 * SIDE] < 128).any(), "black on white"
