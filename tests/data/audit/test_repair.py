"""Repairing a data set that leaks: nothing leaks afterwards, and nothing is lost unsaid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_audit import different, manifest_of

from msmae.data.audit import (
    audit,
    find_duplicates,
    hashing,
    keep_together,
)
from msmae.data.audit.fingerprints import Fingerprints
from msmae.data.audit.hashing import bits_apart
from msmae.data.audit.neighbours import FARTHEST
from msmae.data.manifest import Manifest
from msmae.data.repair import left_out_path, repair
from msmae.errors import UserError


@st.composite
def messy(draw: st.DrawFn) -> tuple[Manifest, Fingerprints]:
    """A data set with copies, near-copies, contradictions, shared patients and unreadable images."""
    number = draw(st.integers(30, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    prints = different(number)
    some_patients = draw(st.booleans())
    rows: list[dict[str, str]] = []
    for i in range(number):
        rows.append({
            "image_path": f"{i}.png",
            "label": str(generator.choice(["a", "b", "b", ""])),
            "patient_id": f"p{generator.integers(number)}" if some_patients and generator.random() < 0.8 else "",
            "split": str(generator.choice(["train", "val", "test"])),
            "mask_path": "",
        })  # fmt: skip
        if i and generator.random() < 0.4:
            source = generator.integers(i)
            prints.record[i] = prints.record[source]
            if generator.random() < 0.5:  # nearly the same
                prints.record["digest"][i] = generator.integers(0, 2**63, 2)
                turned = generator.choice(256, generator.integers(16), replace=False)
                np.bitwise_xor.at(prints.record["hash"][i], turned // 16, (1 << (turned % 16)).astype(np.uint16))
            elif generator.random() < 0.9:
                rows[i]["label"] = rows[source]["label"]
    prints.problems.update({int(i): "damaged" for i in generator.choice(number, 2, replace=False)})
    blank = prints.record["digest"][generator.choice(number, 2, replace=False), 0]
    prints.record["constant"] = np.isin(prints.record["digest"][:, 0], blank)
    return manifest_of(rows), prints


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(messy())
@pytest.mark.slow
def test_a_repaired_data_set_leaks_nothing_and_loses_nothing_unsaid(data: tuple[Manifest, Fingerprints]) -> None:
    manifest, prints = data
    try:
        mended = repair(manifest, prints, find_duplicates(prints))
    except UserError:  # a class too small to be split
        assume(False)
    assert sorted([*mended.kept, *mended.left_out]) == list(range(len(manifest)))
    again = prints.select(mended.kept)
    found = audit(mended.manifest, prints=again)
    zero = ("unreadable", "constant", "identical_pairs", "label_conflicts", "test_identical_to_pool", "test_near_pool")
    assert {
        name: getattr(found, name) for name in (*zero, "patients_crossing", "test_patients_in_pool")
    } == dict.fromkeys((*zero, "patients_crossing", "test_patients_in_pool"), 0)
    assert set(mended.manifest.table["split"]) == {"train", "val", "test"}
    table, hashes = mended.manifest.table, again.record["hash"]
    for i in range(len(table)):  # in other words: no patient and no pair up to 15 bits apart lies in two splits
        near = (bits_apart(hashes[i], hashes) <= FARTHEST) | (
            (table["patient_id"] == table.at[i, "patient_id"]).to_numpy() & (table.at[i, "patient_id"] != "")
        )
        assert set(table["split"][near]) == {table.at[i, "split"]}
        assert near.sum() == 1 or table.at[i, "cluster"] != ""
    pictures = {digest.tobytes() for digest in prints.record["digest"]}
    lost = pictures - {digest.tobytes() for digest in again.record["digest"]}
    labels: dict[bytes, set[str]] = {}
    for i, digest in enumerate(prints.record["digest"]):
        labels.setdefault(digest.tobytes(), set()).add(manifest.table.at[i, "label"])
    faulty = {*prints.problems, *np.flatnonzero(prints.record["constant"])}
    spoilt = {prints.record["digest"][i].tobytes() for i in faulty}
    assert all(len(labels[picture] - {""}) > 1 or picture in spoilt for picture in lost)


def test_the_copy_that_says_most_is_the_one_kept() -> None:
    rows = [{"image_path": f"{i}.png", "label": "ab"[i % 2], "patient_id": f"p{i}"} for i in range(12)]
    rows += [
        {**rows[0], "image_path": "first.png", "label": ""},
        {**rows[1], "image_path": "second.png", "mask_path": "m"},
    ]
    prints = different(14)
    prints.record[12:] = prints.record[:2]
    mended = repair(manifest_of(rows), prints, find_duplicates(prints))
    assert mended.left_out == {12: "the same pixels as another image", 1: "the same pixels as another image"}


def test_clusters_have_a_column_of_their_own_and_are_no_patients() -> None:
    rows = [{"image_path": f"{i}.png", "label": "ab"[i % 2]} for i in range(20)]
    prints = different(20)
    prints.record["hash"][3] = prints.record["hash"][0]
    nameless = repair(manifest_of(rows), prints, find_duplicates(prints)).manifest.table
    assert nameless.at[0, "cluster"] == nameless.at[3, "cluster"] != ""
    assert nameless.at[0, "split"] == nameless.at[3, "split"]
    assert not nameless["patient_id"].any()
    named = [{**row, "patient_id": f"p{i}"} for i, row in enumerate(rows)]
    table = repair(manifest_of(named), prints, find_duplicates(prints)).manifest.table
    assert table["patient_id"].tolist() == [f"p{i}" for i in range(20)]
    assert table.at[0, "cluster"] == table.at[3, "cluster"] not in ("", "p0", "p3")
    assert table.at[0, "split"] == table.at[3, "split"]


def test_data_without_duplicates_is_split_as_by_patient_alone() -> None:
    rows = [
        {"image_path": f"{i}.png", "label": "ab"[i % 2], "patient_id": f"p{i // 2}" if i < 10 else ""}
        for i in range(20)
    ]
    manifest, prints = manifest_of(rows), different(20)
    assert keep_together(manifest, find_duplicates(prints), prints) == manifest.table["patient_id"].tolist()


def test_nothing_left_is_an_error_that_says_so() -> None:
    prints = different(2)
    prints.problems.update({0: "damaged", 1: "damaged"})
    assert prints.other_numbers() == {}
    with pytest.raises(UserError, match="no image is left"):
        repair(manifest_of([{"image_path": "0.png"}, {"image_path": "1.png"}]), prints, find_duplicates(prints))


def test_masks_that_can_be_read_stay_and_the_others_are_dropped() -> None:
    rows = [
        {"image_path": f"{i}.png", "label": "ab"[i % 2], "patient_id": "", "split": "", "mask_path": f"{i}_mask.png"}
        for i in range(20)
    ]
    manifest, prints = manifest_of(rows), different(20)
    prints.mask_problems[7] = "the mask is damaged"
    mended = repair(manifest, prints, find_duplicates(prints))
    masks = dict(zip(mended.kept.tolist(), mended.manifest.table["mask_path"], strict=True))
    assert masks == {i: "" if i == 7 else f"{i}_mask.png" for i in range(20)}
    assert mended.without_mask == (7,)


def test_a_repaired_data_set_is_split_as_asked() -> None:
    prints = different(40)
    manifest = manifest_of([{"image_path": f"{i}.png", "label": "ab"[i % 2]} for i in range(40)])
    mended = repair(manifest, prints, find_duplicates(prints), val_fraction=0.5, test_fraction=0.4).manifest
    assert [len(mended.ids(split)) for split in ("test", "val", "train")] == [16, 12, 12]
    assert mended.rules["cut"] == "train, val, test"
    other = repair(manifest, prints, find_duplicates(prints), val_fraction=0.5, test_fraction=0.4, seed=1).manifest
    assert other.ids("test").tolist() != mended.ids("test").tolist()


def alike(prints: Fingerprints, first: int, second: int, *, bits: int) -> None:
    """Make the picture ``second`` the picture ``first`` with so many bits turned."""
    hashes = prints.record["hash"]
    hashes[second] = hashes[first]
    for bit in range(bits):
        hashes[second, bit // 16] ^= np.uint16(1 << (bit % 16))


def test_near_pairs_are_the_right_pictures_where_others_are_left_out_of_the_search() -> None:
    """Images of one colour, and unreadable ones, are not searched: the places among the rest are others."""
    prints = different(8)
    prints.record["constant"][[0, 4]] = True
    prints.problems[2] = "damaged"
    alike(prints, 3, 6, bits=5)
    found = find_duplicates(prints, near_bits=9)
    (pair,) = found.near
    assert (sorted(found.first[pair[:2]].tolist()), pair[2]) == ([3, 6], 5)


def test_problems_of_joined_data_sets_keep_their_images() -> None:
    first, second = different(3), different(4)
    first.problems[1], second.problems[2], second.mask_problems[1] = "cut", "empty", "another size"
    joined = Fingerprints.join([first, second])
    assert (len(joined.select([])), joined.select([6, 5]).problems) == (0, {1: "empty"})
    assert (joined.problems, joined.mask_problems) == ({1: "cut", 5: "empty"}, {4: "another size"})


def test_a_repair_keeps_together_what_is_just_beyond_near() -> None:
    prints = different(60)
    duplicates = find_duplicates(prints)
    assert duplicates.threshold.bits < duplicates.threshold.widest
    alike(prints, 7, 41, bits=duplicates.threshold.widest)
    table = manifest_of([{"image_path": f"{i}.png", "label": "ab"[i % 2]} for i in range(60)])
    found = repair(table, prints, find_duplicates(prints, near_bits=duplicates.threshold.bits), test_fraction=0.2)
    assert not found.manifest.table["cluster"].any(), "an asked threshold is its own widest"
    found = repair(table, prints, find_duplicates(prints), test_fraction=0.4)
    cluster = found.manifest.table["cluster"].tolist()
    assert cluster[7] == cluster[41] != ""
    assert sum(map(bool, cluster)) == 2
    assert (found.manifest.table["split"] == "test").sum() == 24


def test_a_repair_notes_what_it_left_out_and_nothing_else() -> None:
    prints = different(40)
    prints.problems[5] = "damaged"
    prints.record["constant"][9] = True
    table = manifest_of([{"image_path": f"{i}.png", "label": "ab"[i % 2]} for i in range(40)])
    notes = [note for note in repair(table, prints, find_duplicates(prints)).manifest.notes if "left out" in note]
    assert [note.partition(":")[0] for note in notes] == ["1 image left out"] * 2


def test_a_repair_counts_the_clusters_that_it_keeps_whole() -> None:
    prints = different(40)
    alike(prints, 4, 20, bits=3)
    alike(prints, 7, 31, bits=3)
    table = manifest_of([
        {"image_path": f"{i}.png", "label": "ab"[i % 2], "patient_id": f"p{i // 2}" if i in (10, 11) else ""}
        for i in range(40)
    ])  # fmt: skip
    notes = repair(table, prints, find_duplicates(prints)).manifest.notes
    assert any(note.startswith("2 clusters of near-identical images") for note in notes)


def test_the_first_image_of_a_picture_among_some() -> None:
    prints = different(6)
    prints.record["digest"][[3, 5]] = prints.record["digest"][1]  # one picture, three times
    prints.problems[0] = "damaged"
    found = find_duplicates(prints, near_bits=0)
    picture = found.picture[1]
    for among, first in (([1, 3, 5], 1), ([3, 5], 3), ([2, 4], -1), ([0, 5], 5)):
        assert found.first_among(np.isin(np.arange(6), among))[picture] == first


def test_the_hashs_waves_are_orthonormal() -> None:
    waves = hashing._cosines()
    np.testing.assert_allclose(waves @ waves.T, np.eye(16), atol=1e-12)


def test_the_label_counts_more_than_the_patient_and_the_patient_more_than_the_mask() -> None:
    """Of equals the first stays."""
    rows = [
        {"image_path": f"{i}.png", "label": "ab"[i % 2], "patient_id": "", "mask_path": ""} for i in range(20)
    ]  # fmt: skip
    rows += [
        {"image_path": "20.png", "label": "", "patient_id": "p", "mask_path": "m"},  # of 0: a label says more
        {"image_path": "21.png", "label": "", "patient_id": "", "mask_path": "m"},
        {"image_path": "22.png", "label": "", "patient_id": "q", "mask_path": ""},  # of 21: a patient says more
        {"image_path": "23.png", "label": "b", "patient_id": "", "mask_path": ""},  # of 1: no more than that
        {"image_path": "24.png", "label": "a", "patient_id": "", "mask_path": "m"},  # of 2: a mask besides
    ]
    prints = different(25)
    for copy, source in ((20, 0), (22, 21), (23, 1), (24, 2)):
        prints.record[copy] = prints.record[source]
    mended = repair(manifest_of(rows), prints, find_duplicates(prints))
    assert mended.left_out == dict.fromkeys((2, 20, 21, 23), "the same pixels as another image")
    assert mended.kept.tolist() == [i for i in range(25) if i not in (2, 20, 21, 23)]


def test_of_several_reasons_the_gravest_is_given_in_the_order_of_the_images() -> None:
    rows = [{"image_path": f"{i}.png", "label": "ab"[i % 2], "mask_path": f"m{i}"} for i in range(30)]
    prints = different(30)
    prints.record[[5, 6, 7]] = prints.record[4]  # labels a, b, a, b: all are out
    prints.record["constant"][[7, 9, 20]] = True
    prints.problems.update({20: "damaged", 3: "damaged", 6: "damaged"})
    prints.mask_problems.update({9: "another size", 11: "another size", 12: "another size"})
    mended = repair(manifest_of(rows), prints, find_duplicates(prints))
    unreadable, constant, conflict = "cannot be read", "of one colour", "the same pixels with different labels"
    assert list(mended.left_out.items()) == [
        (3, unreadable), (4, conflict), (5, conflict), (6, unreadable), (7, constant), (9, constant), (20, unreadable)
    ]  # fmt: skip
    assert mended.without_mask == (11, 12)
    notes = [note for note in mended.manifest.notes if "left out" in note or "kept" in note]
    assert [note.split(":")[0].split(" kept")[0] for note in notes[:4]] == [
        "3 images left out", "2 images left out", "2 images left out", "2 images"
    ]  # fmt: skip
    assert [reason in note for reason, note in zip((unreadable, constant, conflict), notes, strict=False)] == [True] * 3
    assert notes[4].startswith("0 clusters of near-identical images")
    assert mended.manifest.table["cluster"].tolist() == [""] * 23
    masks = dict(zip(mended.kept.tolist(), mended.manifest.table["mask_path"], strict=True))
    assert masks == {i: "" if i in (11, 12) else f"m{i}" for i in mended.kept.tolist()}


def test_a_cluster_is_named_where_two_of_it_are_left() -> None:
    """The patient of a cluster names it; one that is left of a nameless cluster needs no name."""
    rows = [
        {"image_path": f"{i}.png", "label": "ab"[i % 2], "patient_id": "p" if i in (2, 30, 40) else ""}
        for i in range(60)
    ]
    prints = different(60)
    alike(prints, 2, 17, bits=3)  # one of them is of patient p
    alike(prints, 8, 21, bits=3)
    alike(prints, 9, 33, bits=3)
    prints.problems[33] = "damaged"
    mended = repair(manifest_of(rows), prints, find_duplicates(prints))
    cluster = dict(zip(mended.kept.tolist(), mended.manifest.table["cluster"], strict=True))
    named = {i: name for i, name in cluster.items() if name}
    assert {i: name for i, name in named.items() if name == "p"} == dict.fromkeys((2, 17, 30, 40), "p")
    assert set(named) == {2, 17, 30, 40, 8, 21}
    assert named[8] == named[21]
    assert named[8].startswith("near-")
    split = dict(zip(mended.kept.tolist(), mended.manifest.table["split"], strict=True))
    assert len({split[i] for i in (2, 17, 30, 40)}) == len({split[8], split[21]}) == 1
    assert mended.manifest.notes.count(
        "1 cluster of near-identical images kept whole, named in the column cluster"
    ) == 1  # fmt: skip
    assert not any("without the mask" in note for note in mended.manifest.notes)


def test_a_repair_cuts_15_and_20_percent_of_seed_0_and_drops_old_splits_unless_said() -> None:
    prints = different(60)
    manifest = manifest_of(
        [{"image_path": f"{i}.png", "label": "ab"[i % 2], "split": "val" if i < 30 else "test"} for i in range(60)]
    )
    duplicates = find_duplicates(prints)
    given = repair(manifest, prints, duplicates).manifest
    said = repair(manifest, prints, duplicates, val_fraction=0.15, test_fraction=0.2, seed=0).manifest
    assert given.table.equals(said.table)
    assert [len(given.ids(split)) for split in ("test", "val", "train")] == [12, 8, 40]


def test_what_was_left_out_is_listed_beside_the_clean_table(tmp_path: Path) -> None:
    rows = [{"image_path": f"{i:03}.png", "label": "ab"[i % 2]} for i in range(24)]
    prints = different(24)
    prints.problems[7] = "damaged"
    prints.record["constant"][3] = True
    manifest = manifest_of(rows, tmp_path)
    target = tmp_path / "clean.v2.csv"
    repair(manifest, prints, find_duplicates(prints)).write(target, original=manifest)
    assert left_out_path(target) == tmp_path / "clean.v2.left-out.csv"
    listed = pd.read_csv(left_out_path(target), dtype=str)
    assert [Path(name).name for name in listed["image_path"]] == ["003.png", "007.png"]
    assert listed["reason"].tolist() == ["of one colour", "cannot be read"]
    clean = pd.read_csv(target, dtype=str)
    assert [Path(name).name for name in clean["image_path"]] == [f"{i:03}.png" for i in range(24) if i not in (3, 7)]
