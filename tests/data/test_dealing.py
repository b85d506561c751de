"""Splits and folds against a dealer written out in plain Python, with groups, several labels and rare classes."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msmae.data.folds import name_folds, write_folds
from msmae.data.manifest import Manifest, read_manifest
from msmae.data.splits import assign_splits, deal, deal_folds, group_images, make_folds
from msmae.errors import UserError


def manifest_of(**columns: list[str]) -> Manifest:
    number = len(next(iter(columns.values())))
    table = pd.DataFrame({"image_path": [f"{n:03d}.png" for n in range(number)], **columns}, dtype=object)
    return Manifest.from_table(table, root=Path("data"), layout="csv")


def dealt(counts: list[list[int]], order: list[int], targets: list[list[float]], least: list[int]) -> list[int]:
    """Iterative stratification of groups: rarest class first, its largest groups first, each to the neediest pile."""
    classes, piles = range(len(targets)), range(len(least))
    pile = [-1] * len(counts)
    lacking, goal = [list(map(float, row)) for row in targets], [[max(x, 1e-9) for x in row] for row in targets]
    on = [[0 for _ in piles] for _ in classes]
    for rarest in sorted(classes, key=lambda c: sum(counts[g][c] for g in order)):
        members = [g for g in order if pile[g] < 0 and counts[g][rarest] > 0]
        members.sort(key=lambda g: (-counts[g][rarest], -sum(counts[g])))
        for done, group in enumerate(members):
            short = [max(least[k] - on[rarest][k], 0) for k in piles]
            some = len(members) - done <= sum(short)
            needs = {}
            for k in piles:
                share = lacking[rarest][k] / goal[rarest][k] if short[k] or not some else -math.inf
                overall = sum(lacking[c][k] for c in classes) / sum(goal[c][k] for c in classes)
                needs[k] = (share, overall, -k)
            best = max(piles, key=needs.__getitem__)
            pile[group] = best
            for c in classes:
                lacking[c][best] -= counts[group][c]
                on[c][best] += counts[group][c] > 0
    return pile


@pytest.mark.parametrize("seed", range(40))
def test_groups_are_dealt_as_by_the_book(seed: int) -> None:
    generator = np.random.default_rng(seed)
    groups, classes, piles = (int(generator.integers(*range_)) for range_ in ((1, 25), (1, 5), (2, 6)))
    counts = generator.integers(0, 4, (groups, classes)) * (generator.random((groups, classes)) < 0.5)
    order = generator.permutation(groups)[: int(generator.integers(1, groups + 1))]
    targets = generator.integers(0, 7, (classes, piles)).astype(float)
    least = generator.integers(0, 3, piles)
    wanted = dealt(counts.tolist(), order.tolist(), targets.tolist(), least.tolist())
    assert deal(counts, order, targets=targets, least=least).tolist() == wanted


def grouped_by_hand(
    rows: list[tuple[str, set[str]]], classes: list[str], seed: int
) -> tuple[list[int], list[list[int]], list[int]]:
    """Rows of (group, classes) -> the group of each, the counts, the order of their hash."""
    keys = [f"group {name}" if name else f"image {(f'{n:03d}.png',)}" for n, (name, _) in enumerate(rows)]
    names = sorted(set(keys))
    counts = [[0] * len(classes) for _ in names]
    for key, (_, found) in zip(keys, rows, strict=True):
        for name in found:
            counts[names.index(key)][classes.index(name)] += 1
    hashed = {name: hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names}
    order = sorted(range(len(names)), key=lambda g: hashed[names[g]])
    return [names.index(key) for key in keys], counts, order


def cut_by_hand(of: list[int], counts: list[list[int]], order: list[int], *, test: float, val: float) -> list[str]:
    """First the test split from all, then validation from the rest."""
    pool, split = set(range(len(counts))), ["train"] * len(of)
    for name, fraction, left in (("test", test, 2), ("val", val, 1)):
        here = [g for g in order if g in pool]
        totals = [sum(counts[g][c] for g in here) for c in range(len(counts[0]))]
        cut = [min(max(math.floor(fraction * n + 0.5), min(1, n)), max(n - left, 1)) for n in totals]
        targets = [[float(a), float(n - a)] for a, n in zip(cut, totals, strict=True)]
        pile = dealt(counts, here, targets, [1, left])
        taken = {g for g in pool if pile[g] == 0}
        pool -= taken
        split = [name if of[i] in taken else at for i, at in enumerate(split)]
    return split


@pytest.mark.parametrize("seed", range(8))
def test_splits_of_single_labels_are_cut_as_by_hand(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = [str(name) for name in generator.choice(["a", "b", "b", "c", "c", "c"], 90)]
    patients = [f"p{generator.integers(40)}" if generator.random() < 0.8 else "" for _ in labels]
    rows = [(patient, {label}) for patient, label in zip(patients, labels, strict=True)]
    found = assign_splits(
        manifest_of(label=labels, patient_id=patients), seed=seed, test_fraction=0.3, val_fraction=0.2
    )
    by_hand = cut_by_hand(*grouped_by_hand(rows, ["a", "b", "c"], seed), test=0.3, val=0.2)
    assert found.table["split"].tolist() == by_hand
    assert [set(by_hand)] == [{"test", "val", "train"}]


@pytest.mark.parametrize("seed", range(8))
def test_splits_of_several_labels_are_cut_as_by_hand_rare_classes_and_no_finding_too(seed: int) -> None:
    """The class d has one image, e two: too few for three splits, and no reason to refuse."""
    generator = np.random.default_rng(seed)
    sets = [{name for name in "abc" if generator.random() < 0.3} for _ in range(60)]
    sets[4].add("d")
    sets[9].add("e")
    sets[30].add("e")
    names = [*sorted(set().union(*sets)), "(no finding)"]
    labels = [";".join(sorted(found)) or ";" for found in sets]
    rows = [("", found or {"(no finding)"}) for found in sets]
    cut = assign_splits(manifest_of(label=labels), seed=seed)
    assert cut.table["split"].tolist() == cut_by_hand(*grouped_by_hand(rows, names, seed), test=0.2, val=0.15)


@pytest.mark.parametrize(("folds", "seed"), [(2, 0), (3, 1), (5, 2), (5, 3)])
def test_folds_are_dealt_as_by_hand(folds: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = [str(name) for name in generator.choice(["a", "a", "a", "b", "c", "c"], 120)]
    patients = [f"p{generator.integers(60)}" for _ in labels]
    rows = [(patient, {label}) for patient, label in zip(patients, labels, strict=True)]
    of, counts, order = grouped_by_hand(rows, ["a", "b", "c"], seed)
    targets = [[sum(row[c] for row in counts) / folds] * folds for c in range(3)]
    pile = dealt(counts, order, targets, [1] * folds)
    manifest = manifest_of(label=labels, patient_id=patients)
    assert deal_folds(manifest, folds, seed=seed).tolist() == [pile[g] for g in of]
    for number, fold in enumerate(make_folds(manifest, folds=folds, seed=seed, val_fraction=0)):
        assert (fold.table["split"] == "test").tolist() == [pile[g] == number for g in of]


def test_a_fold_has_no_image_without_a_label() -> None:
    found = deal_folds(manifest_of(label=["a", "b"] * 6 + [""] * 3), 3, seed=0)
    assert found[12:].tolist() == [-1] * 3
    assert [int((found == fold).sum()) for fold in range(3)] == [4, 4, 4]


def test_groups_count_their_images_in_an_order_of_the_seed() -> None:
    manifest = manifest_of(label=["a", "b", "a", "", "b"], patient_id=["p", "p", "", "q", "p"])
    groups = group_images(manifest, seed=3)
    of, counts, order = grouped_by_hand(
        [("p", {"a"}), ("p", {"b"}), ("", {"a"}), ("q", set()), ("p", {"b"})], ["a", "b"], 3
    )
    assert (groups.of.tolist(), groups.counts.tolist(), groups.order.tolist()) == (of, counts, order)
    assert groups.classes == ("a", "b")
    named = group_images(manifest, seed=3, names=["x", "y", "x", "y", ""])
    assert named.of[0] == named.of[2] != named.of[1] == named.of[3] != named.of[4]


def test_five_folds_once_of_seed_0_unless_said() -> None:
    manifest = manifest_of(label=["a", "b"] * 20)
    given = make_folds(manifest)
    assert len(given) == 5
    said = make_folds(manifest, folds=5, repeats=1, val_fraction=0.15, seed=0, groups=None)
    assert all(one.table.equals(other.table) for one, other in zip(given, said, strict=True))
    assert [fold.notes[0] for fold in given] == [f"fold {n} of 5 is the test split" for n in range(1, 6)]


def test_a_cut_is_15_and_20_percent_of_seed_0_unless_said() -> None:
    manifest = manifest_of(label=["a", "b"] * 100)
    said = assign_splits(manifest, val_fraction=0.15, test_fraction=0.2, seed=0)
    assert assign_splits(manifest).table.equals(said.table)
    assert [len(said.ids(split)) for split in ("test", "val", "train")] == [40, 24, 136]


@pytest.mark.parametrize("fraction", [-0.01, 1.0, 1.5])
@pytest.mark.parametrize("name", ["val_fraction", "test_fraction"])
def test_a_share_outside_0_to_1_is_refused_by_name(name: str, fraction: float) -> None:
    with pytest.raises(UserError, match=f"{name} is {fraction}"):
        assign_splits(manifest_of(label=["a", "b"] * 9), **{name: fraction})


def test_a_share_of_nothing_cuts_nothing() -> None:
    manifest = manifest_of(label=["a", "b"] * 9)
    cut = assign_splits(manifest, val_fraction=0, test_fraction=0)
    assert set(cut.table["split"]) == {"train"}
    assert cut.rules["cut"] == "train"
    alone = assign_splits(manifest, val_fraction=0, test_fraction=0.5)
    assert alone.rules["cut"] == "train, test"
    assert len(alone.ids("test")) == 10  # 4.5 of each class, rounded half up


def test_folds_keep_the_groups_that_are_named_whole_in_every_split() -> None:
    """Each group has an image of every class, each patient two groups: the groups named are what counts."""
    labels, groups = ["a", "b"] * 15, [f"g{n // 2}" for n in range(30)]
    manifest = manifest_of(label=labels, patient_id=[f"p{n}" for n in range(30)])
    for fold in make_folds(manifest, folds=3, val_fraction=0.3, groups=groups):
        by_group = fold.table["split"].groupby(pd.Series(groups)).nunique()
        assert (by_group == 1).all()
        assert [len(fold.ids(split)) for split in ("test", "val", "train")] == [10, 6, 14]
    apart = [fold.table["split"].groupby(pd.Series(groups)).nunique().max() for fold in make_folds(manifest, folds=3)]
    assert max(apart) > 1


def test_what_no_fold_can_be_made_of_is_refused() -> None:
    with pytest.raises(UserError, match="no image has a label or a mask"):
        make_folds(manifest_of(label=[""] * 8))
    for wrong in ({"folds": 1}, {"repeats": 0}):
        with pytest.raises(UserError, match="cross-validation needs"):
            make_folds(manifest_of(label=["a", "b"] * 9), **wrong)
    masked = make_folds(manifest_of(label=[""] * 8, mask_path=["m"] * 6 + [""] * 2), folds=2, val_fraction=0)
    assert [len(fold.ids("test")) for fold in masked] == [3, 3]


def test_a_class_too_small_is_named_with_what_there_is() -> None:
    with pytest.raises(UserError) as refused:
        assign_splits(manifest_of(label=["a"] * 9 + ["b"] * 2))
    for part in ("too few images", "cut test and val", "'b' has 2", "3 images or more"):
        assert part in str(refused.value)
    assert "deal at most" not in str(refused.value)
    patients = [f"p{n}" for n in range(9)] + ["q", "q"]
    with pytest.raises(UserError, match=r"too few patients .* 'b' has 1"):
        assign_splits(manifest_of(label=["a"] * 9 + ["b"] * 2, patient_id=patients))
    assert assign_splits(manifest_of(label=["a"] * 9 + ["b"] * 3)).table["split"].nunique() == 3


def test_a_note_names_the_classes_of_which_a_cut_has_none() -> None:
    labels = ["a;b" if n < 20 else "a" for n in range(40)]
    labels[0] = "a;b;rare"
    notes = assign_splits(manifest_of(label=labels)).notes
    assert [note for note in notes if "no image of" in note] == ["no image of rare in val"]
    assert sum("cut by chance" in note for note in notes) == 2


def test_a_class_without_any_image_is_not_said_to_lack_in_a_cut() -> None:
    manifest = manifest_of(label=["a", "b"] * 12 + ["z"], split=[""] * 24 + ["test"])
    rest = manifest.select(np.arange(24)).with_splits([""] * 24)
    assert not [note for note in assign_splits(rest).notes if "no image of" in note]


def test_images_beside_given_splits_count_as_training_and_are_counted() -> None:
    manifest = manifest_of(label=["a", "b"] * 20, split=["test"] * 8 + ["val"] * 8 + ["train"] * 20 + [""] * 4)
    cut = assign_splits(manifest)
    assert cut.table["split"].tolist() == ["test"] * 8 + ["val"] * 8 + ["train"] * 24
    assert [note[:9] for note in cut.notes] == ["4 images "]
    assert not assign_splits(manifest.with_splits(cut.table["split"])).notes


# --- as files ---


def test_folds_are_named_by_number_and_repeat() -> None:
    assert name_folds("out", folds=2, repeats=1) == [Path("out/fold-1.csv"), Path("out/fold-2.csv")]
    assert [path.name for path in name_folds("out", folds=2, repeats=2)] == [
        f"repeat-{repeat}-fold-{fold}.csv" for repeat in (1, 2) for fold in (1, 2)
    ]
    for wrong in ({"folds": 1, "repeats": 1}, {"folds": 2, "repeats": 0}):
        with pytest.raises(UserError, match="at least 2 folds"):
            name_folds("out", **wrong)
    with pytest.raises(UserError, match="need a folder"):
        name_folds(None, folds=2, repeats=1)


def test_written_folds_are_those_that_are_made(tmp_path: Path) -> None:
    groups = [f"g{n // 2}" for n in range(40)]
    manifest = manifest_of(label=["a", "b"] * 20)
    options = {"folds": 2, "repeats": 2, "val_fraction": 0.3, "seed": 9, "groups": groups}
    paths = name_folds(str(tmp_path), folds=2, repeats=2)
    found = write_folds(manifest, paths, **options)
    made = make_folds(manifest, **options)
    for path, fold, row in zip(paths, made, found, strict=True):
        splits = fold.table["split"].tolist()
        assert read_manifest(path).table["split"].tolist() == splits
        assert row == {"manifest": str(path), **{split: splits.count(split) for split in ("train", "val", "test")}}
    other = make_folds(manifest, **{**options, "seed": 8})
    assert [fold.ids("test").tolist() for fold in other] != [fold.ids("test").tolist() for fold in made]
