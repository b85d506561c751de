"""Splits: nothing given is changed, no patient comes apart, every class keeps its share, any machine draws the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msmae.data.folds import write_folds
from msmae.data.manifest import Manifest, read_manifest
from msmae.data.splits import assign_splits, deal, group_images, make_folds
from msmae.errors import UserError


def manifest_of(**columns: list[str]) -> Manifest:
    number = len(next(iter(columns.values())))
    table = pd.DataFrame({"image_path": [f"{n:04d}.png" for n in range(number)], **columns}, dtype=object)
    return Manifest.from_table(table, root=Path("data"), layout="csv")


def sizes(manifest: Manifest) -> dict[tuple[str, str], int]:
    return manifest.table.groupby(["label", "split"]).size().to_dict()


def crossing(manifest: Manifest) -> set[str]:
    """Patients in more than one split."""
    known = manifest.table[manifest.table["patient_id"] != ""]
    numbers = known.groupby("patient_id")["split"].nunique()
    return set(numbers[numbers > 1].index)


def test_without_splits_every_class_is_cut_in_proportion():
    cut = assign_splits(manifest_of(label=["a"] * 100 + ["b"] * 50))
    assert sizes(cut) == {
        **{("a", "test"): 20, ("a", "val"): 12, ("a", "train"): 68},
        **{("b", "test"): 10, ("b", "val"): 6, ("b", "train"): 34},
    }
    assert len(cut.notes) == 2


def test_a_missing_validation_split_comes_from_training_alone():
    given = ["train"] * 60 + ["test"] * 40
    manifest = manifest_of(label=["a", "b"] * 50, split=given)
    cut = assign_splits(manifest)
    assert list(cut.ids("test")) == list(manifest.ids("test"))
    assert sizes(cut)["a", "val"] == sizes(cut)["b", "val"] == 5  # 15 % of 30, rounded half up
    assert set(cut.ids("val")) <= set(manifest.ids("train"))
    assert cut.rules["cut"] == "val"
    assert "val split: 10 images, cut by chance" in cut.notes[0]


def test_a_missing_test_split_leaves_validation_alone():
    manifest = manifest_of(label=["a", "b"] * 50, split=["train"] * 80 + ["val"] * 20)
    cut = assign_splits(manifest)
    assert list(cut.ids("val")) == list(manifest.ids("val"))
    assert len(cut.ids("test")) == 16


def test_complete_splits_stay_as_they_are():
    manifest = manifest_of(label=["a", "b"] * 3, split=["train", "train", "val", "val", "test", "test"])
    assert assign_splits(manifest).table.equals(manifest.table)
    only_test = manifest_of(label=["a", "b"], split=["test", "test"])
    assert assign_splits(only_test).table.equals(only_test.table)


def test_an_unmarked_image_follows_its_patient():
    manifest = manifest_of(
        label=["a", "b", "a", "b", "a", "b"],
        patient_id=["p", "q", "r", "p", "q", "s"],
        split=["test", "val", "train", "", "", ""],
    )
    assert list(assign_splits(manifest).table["split"]) == ["test", "val", "train", "test", "val", "train"]


def test_unlabelled_images_train_unless_their_patient_is_tested():
    patients = [f"p{n}" for n in range(40)] * 2
    manifest = manifest_of(label=["a", "b"] * 20 + [""] * 40, patient_id=patients)
    cut = assign_splits(manifest)
    assert crossing(cut) == set()
    assert set(cut.table["split"][40:]) == {"train", "val", "test"}
    alone = assign_splits(manifest_of(label=["a", "b"] * 20 + [""] * 40))
    assert set(alone.table["split"][40:]) == {"train"}


def test_without_any_label_images_with_masks_are_split():
    masks = ["m.png"] * 20 + [""] * 5
    cut = assign_splits(manifest_of(label=[""] * 25, mask_path=masks))
    assert (len(cut.ids("test")), len(cut.ids("val")), len(cut.ids("train"))) == (4, 2, 19)
    assert set(cut.table["split"][20:]) == {"train"}


def test_without_labels_and_masks_everything_trains():
    cut = assign_splits(manifest_of(label=[""] * 5))
    assert set(cut.table["split"]) == {"train"}
    assert cut.notes == ("no image has a label or a mask: all of them train",)


def test_groups_take_the_place_of_patients():
    manifest = manifest_of(label=["a"] * 12, patient_id=["p"] * 12)
    cut = assign_splits(manifest, groups=[f"g{n // 3}" for n in range(12)])
    assert sorted(len(cut.ids(split)) for split in ("train", "val", "test")) == [3, 3, 6]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"label": ["a"] * 9 + ["b"] * 2}, {}, r"too few images in a class to cut test and val: 'b' has 2"),
        ({"label": ["a"] * 9 + ["b"] * 9, "patient_id": ["p"] * 9 + ["q"] * 9}, {}, r"too few patients .*'a' has 1"),
        ({"label": ["a", "b"]}, {"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"label": ["a", "b"]}, {"test_fraction": -0.1}, "test_fraction is -0.1"),
    ],
)
def test_what_cannot_be_split_says_why(columns, settings, message):
    with pytest.raises(UserError, match=message):
        assign_splits(manifest_of(**columns), **settings)


def test_a_fraction_of_zero_cuts_nothing():
    cut = assign_splits(manifest_of(label=["a", "b"] * 10), val_fraction=0, test_fraction=0)
    assert set(cut.table["split"]) == {"train"}


def test_images_without_a_finding_are_stratified_too():
    """`;` says examined, and none of the classes: such images are tested and folded like those of any class."""
    manifest = manifest_of(label=["a"] * 20 + ["a;b"] * 20 + [";"] * 40 + [""] * 10)
    cut = assign_splits(manifest)
    assert [sizes(cut)[";", split] for split in ("test", "val", "train")] == [8, 5, 27]
    assert sizes(cut)["", "train"] == 10
    assert [sizes(fold)[";", "test"] for fold in make_folds(manifest, folds=5)] == [8] * 5


def test_folds_of_images_without_label_or_mask_are_refused():
    with pytest.raises(UserError, match="nothing to test"):
        make_folds(manifest_of(label=[""] * 20), folds=5)


def test_multilabel_images_are_stratified_by_each_label():
    generator = np.random.default_rng(0)
    common, rare = generator.random(600) < 0.5, generator.random(600) < 0.05
    labels = [
        ";".join(name for name, has in (("c", c), ("r", r)) if has) or ";" for c, r in zip(common, rare, strict=True)
    ]
    cut = assign_splits(manifest_of(label=labels))
    tested = np.isin(np.arange(600), cut.ids("test"))
    assert abs(common[tested].sum() - 0.2 * common.sum()) <= 1
    assert abs(rare[tested].sum() - 0.2 * rare.sum()) <= 1


def test_a_label_that_is_absent_from_a_split_is_named():
    labels = ["a", "b"] * 20 + ["a;c"]
    assert any(note.startswith("no image of c in") for note in assign_splits(manifest_of(label=labels)).notes)


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    manifest = manifest_of(label=["a", "b"] * 50)
    first = assign_splits(manifest, seed=0)
    backwards = assign_splits(manifest.select(np.arange(100)[::-1]), seed=0)
    assert list(backwards.table["split"][::-1]) == list(first.table["split"])
    assert list(assign_splits(manifest, seed=1).table["split"]) != list(first.table["split"])


def test_the_draw_is_the_same_on_every_machine():
    """The places of the test images are written here; another interpreter, with another hash seed, finds them again."""
    expected = [2, 5, 18, 19]
    program = (
        "from pathlib import Path; import pandas as pd\n"
        "from msmae.data.manifest import Manifest; from msmae.data.splits import assign_splits\n"
        "table = pd.DataFrame({'image_path': [f'{n:04d}.png' for n in range(20)], 'label': ['a', 'b'] * 10})\n"
        "print(assign_splits(Manifest.from_table(table, root=Path('.'), layout='csv')).ids('test').tolist())"
    )
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed})
        assert result.stdout.strip() == str(expected)


@settings(max_examples=80)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ""]), st.integers(0, 25), st.sampled_from(["", "", "", "train", "val", "test"])
        ),
        min_size=1,
        max_size=120,
    ),
    seed=st.integers(0, 5),
)
def test_no_group_crosses_and_every_row_is_assigned(rows, seed):
    """A patient given to one split stays there; one not given at all goes to one split whole."""
    given_to: dict[int, str] = {}
    label, patient, split = zip(*rows, strict=True)
    for person, name in zip(patient, split, strict=True):
        given_to.setdefault(person, name)
    consistent = [given_to[person] if name else "" for person, name in zip(patient, split, strict=True)]
    manifest = manifest_of(label=list(label), patient_id=[f"p{n}" if n else "" for n in patient], split=consistent)
    try:
        cut = assign_splits(manifest, seed=seed)
    except UserError as error:  # a class of one or two patients; its own test above
        if "too few" in str(error):
            return
        raise
    assert set(cut.table["split"]) <= {"train", "val", "test"}
    assert crossing(cut) <= crossing(manifest)
    kept = np.isin(manifest.table["split"], ["val", "test"])
    assert (cut.table["split"][kept] == manifest.table["split"][kept]).all()


@settings(max_examples=60)
@given(
    patients=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 7)), min_size=20, max_size=120),
    fraction=st.floats(0.1, 0.5),
)
def test_each_class_keeps_its_share_to_within_one_group(patients, fraction):
    """Patients of one class each, with 1 to 7 images: off by less than the largest patient of the class."""
    label = [name for name, images in patients for _ in range(images)]
    patient = [f"p{number}" for number, (_, images) in enumerate(patients) for _ in range(images)]
    if min(sum(name == one for name, _ in patients) for one in set(label)) < 3:
        return
    cut = assign_splits(manifest_of(label=label, patient_id=patient), test_fraction=fraction)
    left = {name: label.count(name) for name in set(label)}
    for split, share in (("test", fraction), ("val", 0.15)):
        for name in left:
            largest = max(images for one, images in patients if one == name)
            number = sizes(cut).get((name, split), 0)
            assert number >= 1
            assert abs(number - max(1, share * left[name])) <= largest
        left = {name: left[name] - sizes(cut)[name, split] for name in left}


def test_folds_test_every_image_once_and_keep_patients_whole():
    generator = np.random.default_rng(0)
    patients = [f"p{n}" for n in range(60) for _ in range(int(generator.integers(1, 5)))]
    labels = [("a", "b", "c")[int(patient[1:]) % 3] for patient in patients]
    folds = make_folds(manifest_of(label=labels, patient_id=patients), folds=5, seed=3)
    assert len(folds) == 5
    tested = np.concatenate([fold.ids("test") for fold in folds])
    assert sorted(tested) == list(range(len(patients)))
    for name in "abc":
        in_fold = [sizes(fold)[name, "test"] for fold in folds]
        assert max(in_fold) - min(in_fold) <= 4  # images of the largest patient
    for fold in folds:
        assert crossing(fold) == set()
        assert len(fold.ids("val")) > 0
        assert fold.notes[0].endswith("of 5 is the test split")


def test_folds_share_what_does_not_divide_evenly():
    """Six classes of 11 images in 5 folds: each class has one image over, and they must not all go to one fold."""
    folds = make_folds(manifest_of(label=[name for name in "abcdef" for _ in range(11)]), folds=5)
    in_fold = [len(fold.ids("test")) for fold in folds]
    assert max(in_fold) - min(in_fold) <= 1


def test_a_rare_class_is_spread_before_a_common_one():
    """Patients with a rare finding have common ones too; dealt by the common class, the rare one would fall anyhow."""
    generator = np.random.default_rng(0)
    labels, patients = [], []
    for number in range(100):
        images = ["b"] * (number % 10 == 0) + ["a"] * int(generator.integers(1, 9))
        labels += images
        patients += [f"p{number}"] * len(images)
    folds = make_folds(manifest_of(label=labels, patient_id=patients), folds=5)
    assert [sizes(fold)["b", "test"] for fold in folds] == [2] * 5


def test_repeats_draw_other_folds():
    manifest = manifest_of(label=["a", "b"] * 20, split=["train"] * 20 + ["test"] * 20)
    folds = make_folds(manifest, folds=2, repeats=2)
    assert len(folds) == 4
    assert sorted(np.concatenate([fold.ids("test") for fold in folds[2:]])) == list(range(40))
    assert list(folds[0].ids("test")) != list(folds[2].ids("test"))
    assert folds[2].notes[0] == "fold 1 of 2 is the test split, repeat 2"


def test_folds_refuse_what_they_cannot_do():
    with pytest.raises(UserError, match="2 folds or more"):
        make_folds(manifest_of(label=["a", "b"] * 9), folds=1)
    with pytest.raises(UserError, match="'b' has 4"):
        make_folds(manifest_of(label=["a"] * 9 + ["b"] * 4), folds=5)


def test_deal_reserves_groups_for_every_pile():
    """By images alone the first pile would be full with the one large group."""
    counts = np.array([[10], [1], [1]])
    pile = deal(counts, np.arange(3), targets=np.array([[10.0, 2.0]]), least=np.array([2, 1]))
    assert pile.tolist() == [0, 1, 0]
    beside = np.array([[10, 0], [1, 0], [1, 0], [0, 1], [0, 1]])  # groups without the class reserve nothing for it
    pile = deal(beside, np.arange(5), targets=np.array([[10.0, 2.0], [1.0, 1.0]]), least=np.array([2, 1]))
    assert pile[:3].tolist() == [0, 1, 0]


def test_images_of_a_volume_are_groups_of_their_own():
    groups = group_images(manifest_of(image_path=["v.nii"] * 3, index=["0", "1", "1"], label=["a"] * 3), seed=0)
    assert len(groups.counts) == 2
    assert groups.of[1] == groups.of[2] != groups.of[0]


def test_ham10000_keeps_lesions_whole(real_data):
    from msmae.data.tables.layouts import open_dataset

    cut = assign_splits(open_dataset(real_data / "ham10000"))
    assert crossing(cut) == set()
    share = cut.table.groupby("label")["split"].value_counts(normalize=True)
    for name in cut.classes:
        assert share[name, "test"] == pytest.approx(0.2, abs=0.01)
        assert share[name, "val"] == pytest.approx(0.12, abs=0.01)


@pytest.mark.parametrize(
    ("images", "fraction", "test"),
    [(10, 0.25, 3), (10, 0.24, 2), (6, 0.05, 1), (6, 0.95, 4), (8, 0.8, 6)],
)  # fmt: skip
def test_a_cut_is_the_nearest_number_of_images_and_leaves_the_others_some(images: int, fraction: float, test: int):
    """Rounded half up, at least one; a class keeps one image for training, and one for validation."""
    cut = assign_splits(manifest_of(label=["a"] * images + ["b"] * images), test_fraction=fraction, val_fraction=0.1)
    assert sizes(cut)["a", "test"] == sizes(cut)["b", "test"] == test
    assert sizes(cut)["a", "train"] >= 1


@pytest.mark.parametrize(
    ("images", "fraction", "test", "val"),
    [(6, 0.05, [2, 9], [0, 10]), (6, 0.95, [1, 2, 3, 5, 6, 7, 9, 11], [0, 10]),
     (8, 0.9, [1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 14, 15], [0, 13])],
)  # fmt: skip
def test_small_classes_are_cut_as_they_were_in_earlier_versions(
    images: int, fraction: float, test: list[int], val: list[int]
):
    cut = assign_splits(manifest_of(label=["a"] * images + ["b"] * images), test_fraction=fraction, val_fraction=0.1)
    assert (cut.ids("test").tolist(), cut.ids("val").tolist()) == (test, val)


def test_the_rule_says_which_splits_were_cut() -> None:
    manifest = manifest_of(label=["a", "b"] * 30)
    assert assign_splits(manifest).rules["cut"] == "train, val, test"
    given = manifest.with_splits(["test"] * 12 + ["train"] * 48)
    assert assign_splits(given).rules["cut"] == "val"


def test_a_group_without_a_class_does_not_count_as_one_that_has_it() -> None:
    """Each pile must get a group of the class 1; the groups of the class 0 alone are none."""
    counts = np.array([[4, 0], [4, 0], [0, 1], [0, 1]])
    targets = np.array([[4, 4], [2, 0]])  # the first pile lacks all of class 1
    pile = deal(counts, np.arange(4), targets=targets, least=np.array([0, 1]))
    assert sorted(pile[2:].tolist()) == [0, 1]


def test_a_class_without_a_group_here_does_not_limit_the_folds() -> None:
    label = ["a"] * 12 + ["b"] * 3 + ["c"] * 2
    patient = [f"p{n}" for n in range(15)] + ["", ""]
    manifest = manifest_of(label=label, patient_id=patient).with_splits([""] * 15 + ["test"] * 2)
    with pytest.raises(UserError, match="deal at most 3 folds") as raised:
        make_folds(manifest.select(np.arange(15)), folds=5)
    assert "'b' has 3" in str(raised.value)


def test_a_folds_validation_is_cut_by_the_repeats_own_seed(tmp_path: Path) -> None:
    manifest = manifest_of(label=["a", "b", "c"] * 20)
    made = make_folds(manifest, folds=3, repeats=2, seed=7)
    for number, fold in enumerate(made):
        tested = manifest.with_splits(np.where(fold.table["split"] == "test", "test", ""))
        assert (
            assign_splits(tested, test_fraction=0, seed=7 + number // 3).table["split"] == fold.table["split"]
        ).all()
    paths = [tmp_path / f"{n}.csv" for n in range(3)]
    write_folds(manifest, paths, folds=3, repeats=1, val_fraction=0.15, seed=7, groups=[""] * 60)
    for path, fold in zip(paths, make_folds(manifest, folds=3, seed=7), strict=True):
        assert (read_manifest(path).table["split"] == fold.table["split"]).all()


def test_too_few_for_the_folds_names_how_many_can_be_dealt() -> None:
    for images, said in (
        (3, r"deal at most 3 folds \(--ensemble: 4\)"),
        (2, r"deal at most 2 folds \(--ensemble: 3\)"),
    ):
        with pytest.raises(UserError, match=said):
            make_folds(manifest_of(label=["a"] * 20 + ["b"] * images), folds=5)
    with pytest.raises(UserError, match=r"'b' has 1 .*: give every class 5") as raised:
        make_folds(manifest_of(label=["a"] * 20 + ["b"]), folds=5)
    assert "deal at most" not in str(raised.value)
