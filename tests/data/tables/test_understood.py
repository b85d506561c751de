"""What a folder means: read as its makers meant it, or refused with the options; never wrong in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from listed_files import rows, touch
from msmae.config import DatasetSettings, Settings
from msmae.data.manifest import Manifest, read_manifest
from msmae.data.opening import divide, open_data
from msmae.data.tables.layouts import open_dataset
from msmae.data.tables.roles import is_list, kind_of, split_of
from msmae.data.understood import understand
from msmae.errors import UserError


def patients(manifest: Manifest) -> list[str]:
    return sorted(set(manifest.table["patient_id"]))


def test_folders_that_count_patients_are_no_classes(tmp_path: Path) -> None:
    for patient in range(10):
        folder = f"TCGA_CS_49{patient:02}_19960909"
        touch(tmp_path, *(f"{folder}/{slice_}{end}.tif" for slice_ in range(8) for end in ("", "_mask")))
    manifest = open_dataset(tmp_path)
    assert (manifest.layout, manifest.classes, len(manifest)) == ("patient-folders", (), 80)
    assert manifest.table["patient_id"].nunique() == 10
    assert all(manifest.table["mask_path"])


def test_where_it_cannot_be_known_both_readings_are_shown(tmp_path: Path) -> None:
    touch(tmp_path, *(f"S{number}/{image}.png" for number in range(1, 9) for image in "abc"))
    with pytest.raises(UserError, match=r"two ways.*8 folders is a class.*--layout folder .*--layout patient-fold"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, layout="folder").classes) == 8
    assert len(patients(open_dataset(tmp_path, layout="patient-folders"))) == 8


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (["P1", "P2"], "patient"),
        (["patient007", "patient008"], "patient"),
        (["BRATS_001", "BRATS_002"], "patient"),
        (["0", "1", "2", "3", "4"], "class"),
        (["grade1", "grade2"], "class"),
        (["benign", "malignant"], ""),
        (["covid19", "sars1"], ""),
        (["CIN1", "CIN2", "CIN3"], "?"),
        (["10253", "9022"], "patient"),
    ],
)
def test_which_names_count(names: list[str], role: str) -> None:
    assert is_list(names) == role


@pytest.mark.parametrize(
    ("folder", "split", "kind"),
    [
        ("ISIC2018_Task1-2_Training_Input", "train", "image"),
        ("ISIC2018_Task1_Validation_GroundTruth", "val", "mask"),
        ("stage_2_test_images", "test", "image"),
        ("a. Training Set", "train", ""),
        ("2. All Segmentation Groundtruths", "", "mask"),
        ("CXR_png", "", "image"),
        ("leftMask", "", "mask"),
        ("imagesTr", "", "image"),
        ("test_positive", "", ""),
        ("normal_images", "", ""),
    ],
)
def test_what_a_folders_name_says(folder: str, split: str, kind: str) -> None:
    assert (split_of(folder), kind_of(folder)) == (split, kind)


def test_a_folder_below_the_class_that_counts_is_the_patient(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/scan{p}/{s}.png" for c, first in (("ad", 10), ("cn", 30)) for p in range(first, first + 6)
                      for s in range(4)))  # fmt: skip
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("ad", "cn")
    assert len(patients(manifest)) == 12
    assert "the folder below the class" in manifest.rules["patient_id"]


def test_numbering_that_begins_anew_in_each_class_and_split_tells_patients_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        touch(tmp_path, *(f"{split}/{c}/case_{p:02}/{s}.png" for c in ("ad", "cn") for p in range(6) for s in "ab"))
    manifest = open_dataset(tmp_path)
    assert len(patients(manifest)) == 24
    touch(tmp_path / "same", *(f"{s}/ad/case_{p}/x.png" for s, p in (("train", 1007), ("test", 1007), ("test", 1020))))
    touch(tmp_path / "same", "train/cn/case_2001/x.png")
    assert "case_1007" in patients(open_dataset(tmp_path / "same")), "one person in two splits, and not two"


def test_brats_and_kits_keep_label_maps_from_the_images(tmp_path: Path) -> None:
    for number in range(1, 4):
        case = f"BraTS20_Training_{number:03}"
        touch(tmp_path / "brats", *(f"{case}/{case}_{name}.nii.gz" for name in ("flair", "t1", "seg")))
        touch(tmp_path / "kits", *(f"case_{number:05}/{name}.nii.gz" for name in ("imaging", "segmentation")))
        touch(tmp_path / "msd", *(f"{name}Tr/BRATS_{number:03}.nii.gz" for name in ("images", "labels")))
    touch(tmp_path / "msd", "imagesTs/BRATS_100.nii.gz")
    brats, kits, msd = (open_dataset(tmp_path / name) for name in ("brats", "kits", "msd"))
    assert [len(brats), len(kits), len(msd)] == [6, 3, 4]
    assert [m.table["patient_id"].nunique() for m in (brats, kits)] == [3, 3]
    assert not [path for m in (brats, kits, msd) for path in m.table["image_path"] if "seg" in path or "labels" in path]
    assert [int((m.table["mask_path"] != "").sum()) for m in (brats, kits, msd)] == [6, 3, 3]
    assert (brats.classes, kits.classes, msd.classes) == ((), (), ())


def test_images_and_masks_by_folders_of_published_names(tmp_path: Path) -> None:
    for split in ("Training", "Validation"):
        touch(tmp_path / "isic", f"ISIC-2017_{split}_Input/a.jpg", f"ISIC-2017_{split}_GroundTruth/a_segmentation.png")
    touch(tmp_path / "lungs", "CXR_png/a.png", "ManualMask/leftMask/a.png", "ManualMask/rightMask/a.png")
    isic, lungs = open_dataset(tmp_path / "isic"), open_dataset(tmp_path / "lungs")
    assert rows(isic, "split", "mask_path") == [
        ("train", "ISIC-2017_Training_GroundTruth/a_segmentation.png"),
        ("val", "ISIC-2017_Validation_GroundTruth/a_segmentation.png"),
    ]
    assert lungs.mask_classes == ("leftMask", "rightMask")
    assert len(lungs) == 1


@pytest.mark.parametrize("told", ["auto", "folder"])
def test_masks_inside_class_folders_keep_the_classes(told: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{k}/{c}-1.png" for c in ("COVID", "Normal") for k in ("images", "masks")))
    manifest = open_dataset(tmp_path, layout=told)
    assert rows(manifest, "image_path", "label", "mask_path") == [
        ("COVID/images/COVID-1.png", "COVID", "COVID/masks/COVID-1.png"),
        ("Normal/images/Normal-1.png", "Normal", "Normal/masks/Normal-1.png"),
    ]


@pytest.mark.parametrize("told", ["auto", "folder", "busi"])
def test_a_copy_of_busi_with_folders_of_masks_keeps_classes_and_every_mask(told: str, tmp_path: Path) -> None:
    for c in ("benign", "malignant", "normal"):
        touch(tmp_path, f"{c}/image/{c} (1).png", f"{c}/mask/{c} (1)_mask.png", f"{c}/mask/{c} (1)_mask_1.png")
    manifest = open_dataset(tmp_path, layout=told)
    assert (manifest.classes, len(manifest)) == (("benign", "malignant", "normal"), 3)
    assert [len(manifest.mask_paths(row)) for row in range(3)] == [2, 2, 2]


def test_splits_below_the_classes_are_splits_and_folds_are_folds(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{s}/1.png" for c in ("benign", "malignant") for s in ("train", "valid", "test")))
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("benign", "malignant")
    assert sorted(set(manifest.table["split"])) == ["test", "train", "val"]
    touch(tmp_path / "f", *(f"fold_{f}/{c}/{i}.bmp" for f in range(3) for c in ("all", "hem") for i in range(4)))
    folds = open_dataset(tmp_path / "f")
    assert folds.classes == ("all", "hem")
    assert sorted(set(folds.table["fold"])) == ["0", "1", "2"]


def test_a_folder_of_masks_that_belong_to_nothing_beside_one_that_does_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"training/{n}.png" for n in ("images/21_t", "1st_manual/21_manual1", "mask/21_t_mask")))
    with pytest.raises(UserError, match="the files of mask/ are named like the images, those of 1st_manual/ are not"):
        open_dataset(tmp_path)


def test_the_block_says_rule_examples_and_option(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/person1_x.png", "train/b/person2_x.png", "test/a/person3.png", "notes.txt")
    understood = understand(open_dataset(tmp_path))
    (people,) = understood.about("patients")
    assert (people.number, people.option) == (3, "--patients")
    assert ("person1", "train/a/person1_x.png") in people.examples
    (left,) = understood.about("left out")
    assert (left.number, left.rule) == (1, "no image by name: notes.txt")
    assert understood.about("splits")[0].said == "train 2, test 1 (train, test given by the folders)"
    assert understood.lines()[0] == "What was understood"
    assert understood.to_dict()["layout"] == "folder"
    again = understand(open_dataset(tmp_path, layout="unlabelled"))
    assert again.about("classes")[0].number == 0 != understood.about("classes")[0].number


def test_patients_as_told_set_aside_those_of_a_layout_or_a_table(tmp_path: Path) -> None:
    touch(tmp_path, *(f"P{p}/x{p}_{s}.png" for p in (1, 2) for s in "ab"))
    assert patients(open_dataset(tmp_path)) == ["P1", "P2"]
    told = open_dataset(tmp_path, patients=r"_([ab])\.")
    assert patients(told) == ["a", "b"]
    assert any("2 patients by the folders set aside, as told" in note for note in told.notes)
    assert patients(open_dataset(tmp_path, patients="none")) == [""]
    assert patients(open_dataset(tmp_path, patients="folder")) == ["P1", "P2"]
    with pytest.raises(UserError, match="no regular expression"):
        open_dataset(tmp_path, patients="(")
    (tmp_path / "m.csv").write_text("image_path,label,patient_id\nP1/x1_a.png,l,u\nP2/x2_b.png,m,v\n")
    assert patients(open_dataset(tmp_path / "m.csv", patients=r"_([ab])\.")) == ["a", "b"]


LAYOUTS = {
    "folder": ("a/1.png", "b/2.png"),
    "patient-folders": ("patient1/1.png", "patient2/2.png"),
    "mask-folders": ("images/1.png", "masks/1.png"),
    "unlabelled": ("1.png", "2.png"),
    "busi": ("benign/benign (1).png", "benign/benign (1)_mask.png", "normal/normal (1).png"),
    "brain-tumor-dataset": tuple(f"Training/{c}/1.png" for c in ("glioma", "meningioma", "notumor", "pituitary")),
    "chestxray2017": ("train/NORMAL/IM-0117-0001.jpeg", "train/PNEUMONIA/person1_virus_1.jpeg"),
    "nnunet": ("imagesTr/a_0000.png", "labelsTr/a.png"),
}
OPTIONS: dict[str, object] = {
    "image_column": "x",
    "label_column": "x",
    "patient_column": "x",
    "split_column": "x",
    "mask_column": "x",
    "site_column": "x",
    "slices": "axial",
    "window": "none",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_without_effect_is_an_error(option: str, layout: str, tmp_path: Path) -> None:
    touch(tmp_path, *LAYOUTS[layout])
    assert open_data(tmp_path, Settings()).layout == layout
    with pytest.raises(UserError, match="has no effect"):
        open_data(tmp_path, Settings(dataset=DatasetSettings(**{option: OPTIONS[option]})))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["patient-folders", "mask-folders", "unlabelled", "nnunet"])
def test_grades_without_classes_are_an_error(layout: str, tmp_path: Path) -> None:
    touch(tmp_path, *LAYOUTS[layout])
    for chosen in (DatasetSettings(ordinal=True), DatasetSettings(class_order="a;b")):
        with pytest.raises(UserError, match="has no effect"):
            open_data(tmp_path, Settings(dataset=chosen))


def test_a_share_of_a_split_that_is_given_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{c}/1.png" for split in ("train", "val", "test") for c in "ab"))
    for name in ("val_fraction", "test_fraction"):
        with pytest.raises(UserError, match="has no effect: the data gives its"):
            divide(tmp_path, settings=Settings(dataset=DatasetSettings(**{name: 0.3})))  # type: ignore[arg-type]


def test_the_order_of_classes_is_natural_or_given(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n} - x/1.png" for n in (1, 2, 3, 10)))
    assert open_dataset(tmp_path).classes == ("1 - x", "2 - x", "3 - x", "10 - x")
    given = open_data(tmp_path, Settings(dataset=DatasetSettings(class_order="10 - x; 1 - x")))
    assert given.classes == ("10 - x", "1 - x", "2 - x", "3 - x")
    with pytest.raises(UserError, match="there is no class '4 - x'"):
        open_data(tmp_path, Settings(dataset=DatasetSettings(class_order="4 - x")))


def test_the_unicode_form_of_a_name_makes_no_second_class(tmp_path: Path) -> None:
    composed, apart = "\u00d6dem", "O\u0308dem"
    touch(tmp_path, f"train/{composed}/1.png", f"test/{apart}/2.png", "train/none/3.png", "test/none/4.png")
    assert open_dataset(tmp_path).classes == (composed, "none") or open_dataset(tmp_path).classes == ("none", composed)
    (tmp_path / "m.csv").write_text(f"image_path,label\ntest/{composed}/2.png,{apart}\ntrain/none/3.png,{composed}\n")
    table = open_dataset(tmp_path / "m.csv")
    assert table.classes == (composed,)
    assert all(table.path(row).is_file() for row in range(2))


@pytest.mark.parametrize("name", ["NA", "nan", "None", "null", "a, b"])
def test_our_own_manifests_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{name}/1.png", "other/2.png")
    manifest = open_dataset(tmp_path)
    assert set(manifest.classes) == {name, "other"}
    manifest.write(tmp_path / "m.csv")
    for again in (open_dataset(tmp_path / "m.csv"), read_manifest(tmp_path / "m.csv")):
        assert again.classes == manifest.classes
        assert list(again.table.columns) == list(manifest.table.columns)


def test_folds_that_hold_splits_of_their_own_are_several_data_sets(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Fold {f}/{s}/{c}/1.png" for f in (1, 2) for s in ("train", "test") for c in "ab"))
    with pytest.raises(UserError, match="each of the 2 folds holds splits of its own"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "Fold 1").classes == ("a", "b")


def test_a_label_map_with_a_word_of_its_own_is_no_image(tmp_path: Path) -> None:
    for case in ("UCSF-PDGM-0004", "UCSF-PDGM-0007"):
        touch(tmp_path, *(f"{case}/{case}_{name}.nii.gz" for name in ("T1", "FLAIR", "tumor_segmentation")))
    manifest = open_dataset(tmp_path)
    assert len(manifest) == 4
    assert all("tumor_segmentation" in mask for mask in manifest.table["mask_path"])


def test_a_handful_of_plain_numbers_may_be_anything(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{name}_{n}.png" for name in (100, 200, 300) for n in range(3)))
    with pytest.raises(UserError, match="two ways"):
        open_dataset(tmp_path)


def test_a_single_folder_of_images_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "China/CXR_png/a.png", "China/CXR_png/b.png", "China/Readings/a.txt")
    manifest = open_dataset(tmp_path)
    assert (manifest.layout, manifest.classes, len(manifest)) == ("unlabelled", (), 2)


def test_both_eyes_are_one_patient_and_shared_beginnings_are_said(tmp_path: Path) -> None:
    touch(tmp_path / "eyes", *(f"{c}/{p}_{side}.jpeg" for c, p in (("0", 10), ("2", 13)) for side in ("left", "right")))
    assert patients(open_dataset(tmp_path / "eyes")) == ["10", "13"]
    touch(tmp_path / "mr", *(f"{c}/OAS1_{p:04}_MR1_{n}.jpg" for c, p in (("ad", 1), ("cn", 2)) for n in range(4)))
    told = open_dataset(tmp_path / "mr")
    assert patients(told) == [""]
    (hint,) = (note for note in told.notes if "share beginnings" in note)
    expression = hint.partition("--patients '")[2].rstrip("'")
    assert patients(open_dataset(tmp_path / "mr", patients=expression)) == ["OAS1_0001", "OAS1_0002"]
