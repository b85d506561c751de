"""Which pictures are near, which images show them, and what hangs together, on pictures by hand."""

from __future__ import annotations

import numpy as np
from scipy.linalg import hadamard
from test_audit import different
from test_sheet import pictures

from msmae.data.audit.columns import Columns
from msmae.data.audit.counts import count_copies, count_leakage, small_classes
from msmae.data.audit.duplicates import clusters, find_duplicates
from msmae.data.audit.neighbours import FARTHEST, near_pairs
from msmae.data.audit.threshold import _chance_limit, choose_threshold

SHOWN = pictures([0, 1, 0, 2, 3, 1, 4], [(0, 3, 1), (1, 2, 4)])  # seven images of five pictures
SHOWN.picture[6] = -1  # cannot be read; no image shows picture 4


def places(found: np.ndarray) -> list[int]:
    return np.flatnonzero(found).tolist()


def mask(number: int, *chosen: int) -> np.ndarray:
    return np.isin(np.arange(number), chosen)


def test_nearness_goes_both_ways_and_no_further() -> None:
    for chosen, near in ((0, [3]), (3, [0]), (1, [2]), (2, [1]), (4, [])):
        assert places(SHOWN.near_to(mask(5, chosen))) == near
    assert places(SHOWN.near_to(mask(5, 0, 1, 2))) == [1, 2, 3]


def test_images_show_their_pictures_and_an_unreadable_one_shows_none() -> None:
    assert places(SHOWN.of_images(mask(5, 1, 3, 4))) == [1, 4, 5]
    assert places(SHOWN.show(mask(7, 2, 5, 6))) == [0, 1]
    assert SHOWN.first_among(mask(7, 2, 4, 6)).tolist() == [2, -1, -1, 4, -1]
    assert SHOWN.copies.tolist() == [2, 2, 1, 1, 0]
    assert [rows.tolist() for rows in SHOWN.repeated()] == [[0, 2], [1, 5]]


def test_counts_are_of_pictures_and_not_of_images() -> None:
    cells = (list("abcd"), ["p", "q", "p", "q"], ["train", "val", "val", "train"], [""] * 4)
    columns = Columns(*(np.array(column, dtype=object) for column in cells))
    assert count_leakage(columns, pictures([0, 1, 0, 1], []))["val_identical_to_train"] == 2
    told = count_copies(columns, pictures([0, 1, 2, 2], [(0, 1, 9)]))
    assert (told["near_pairs"], told["near_conflicts"], told["near_across_patients"]) == (1, 1, 1)
    assert (told["identical_pairs"], told["near_clusters"], told["largest_cluster"]) == (1, 1, 2)


def test_a_class_is_small_by_its_groups_and_not_by_its_images() -> None:
    labels = ["mild;rare", "mild", "mild", "rare", "rare", "", "also rare"]
    columns = Columns(np.array(labels, dtype=object), *(np.array([""] * 7, dtype=object) for _ in range(3)))
    small = small_classes(columns, np.array([0, 1, 2, 0, 5, 6, 7]))
    assert list(small.items()) == [("also rare", 1), ("rare", 2)]


def test_labels_are_counted_in_their_order() -> None:
    columns = Columns(*(np.array(list(cells), dtype=object) for cells in ("baca", "pppp", "xxxx", "yyyy")))
    columns.labels[2] = ""
    assert list(columns.by_label(mask(4, 0, 1, 2)).items()) == [("(no label)", 1), ("a", 1), ("b", 1)]


def test_clusters_are_of_pixels_nearness_patients_and_other_names() -> None:
    def of(patients: str = "", *others: str) -> list[int]:
        named = np.array(list((patients or "-" * 7).replace("-", " ")), dtype=object)
        named[named == " "] = ""
        more = [np.array(["" if name == "-" else name for name in text], dtype=object) for text in others]
        return clusters(SHOWN, patients=named if patients else None, others=more).tolist()

    assert of() == [0, 1, 0, 1, 0, 1, 2]
    assert of("--x---x") == [0, 1, 0, 1, 0, 1, 0]
    assert of("xx-----") == [0, 0, 0, 0, 0, 0, 1]
    assert of("x------", "-x-----") == [0, 1, 0, 1, 0, 1, 2]  # a patient and a cluster of one name
    unreadable = pictures([0, 1, 1, 2], [])
    unreadable.picture[0] = -1
    assert clusters(unreadable).tolist() == [0, 1, 1, 2]
    assert of("-------", "---a--a", "a------") == [0, 1, 0, 1, 0, 1, 1]


def test_where_different_pictures_are_as_alike_as_copies_none_is_near() -> None:
    prints = different(20)
    prints.record["hash"] = prints.record["hash"][0]
    found = find_duplicates(prints)
    assert (found.threshold.bits, found.threshold.typical, found.crowded) == (-1, 0, False)
    assert found.near.shape == (0, 3)
    assert len(find_duplicates(prints, near_bits=0).near) == 190  # each with each


def test_pictures_that_are_all_equally_far_apart_have_no_spread() -> None:
    hashes = np.packbits(hadamard(256)[:20] > 0, axis=1).view(np.uint16)  # 128 bits from each other
    threshold = choose_threshold(hashes, np.array([20]))
    assert (threshold.typical, threshold.chance, threshold.bits) == (128, FARTHEST, FARTHEST)


def test_pictures_usually_fifteen_bits_apart_are_as_alike_as_copies() -> None:
    """Each sets seven or eight bits of its own: two differ by 14, by 15 (half of all pairs) or by 16."""
    bits, start = np.zeros((34, 256), np.uint8), 0
    for row in range(34):
        bits[row, start : start + 7 + row % 2] = 1
        start += 7 + row % 2
    threshold = choose_threshold(np.packbits(bits, axis=1).view(np.uint16), np.array([3]))
    assert (threshold.typical, threshold.chance, threshold.bits) == (15, -1, -1)


def test_pairs_come_in_the_order_of_their_pictures() -> None:
    hashes = different(9).record["hash"]
    for picture, like, words in ((8, 0, [5]), (3, 0, [9, 10]), (7, 2, [0]), (4, 2, [1, 15])):
        hashes[picture] = hashes[like]
        hashes[picture, words] ^= 1
    near, crowded = near_pairs(hashes, within=3)
    assert near.tolist() == [[0, 3, 2], [0, 8, 1], [2, 4, 2], [2, 7, 1], [3, 8, 3], [4, 7, 3]]
    assert not crowded


def test_chance_is_that_of_as_many_tosses_as_the_hashes_have_independent_bits() -> None:
    """Of 32 independent bits, each eight times in a hash, two of 2,000 pictures share all once in 2,000 such sets. All
    but one (eight of the hash) they share once in 65: more often than is allowed, so the limit is under eight."""
    bits = np.random.default_rng(0).random((2000, 32)) < 0.5
    hashes = np.packbits(np.repeat(bits, 8, axis=1), axis=1).view(np.uint16)  # [n, 16]
    limit, typical = _chance_limit(hashes)
    assert typical == 128
    assert limit is not None
    assert 0 <= limit < 8
