"""Folders and tables as a new user has them: read as meant, or refused; each a kind that was wrong in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from listed_files import noted, rows, touch, write
from msmae.config import DatasetSettings, Settings
from msmae.data.audit import find_duplicates, keep_together, take_fingerprints
from msmae.data.manifest import Manifest
from msmae.data.opening import open_data
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError


def patients(manifest: Manifest) -> set[str]:
    return set(manifest.table["patient_id"]) - {""}


def test_two_tables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(6)))
    for reader in (1, 2):
        write(tmp_path, f"reader{reader}.csv", "image,grade", *(f"{n}.jpg,{(n + reader) % 3}" for n in range(6)))
    with pytest.raises(UserError, match="6 images with several rows that differ in grade"):
        open_dataset(tmp_path)


def test_of_several_readers_the_majority_counts_and_is_said(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(4)))
    said = {0: "aab", 1: "bbb", 2: "abc", 3: "a"}
    lines = [f"{n}.jpg,R{k},{label},{n % 2}" for n, labels in said.items() for k, label in enumerate(labels)]
    write(tmp_path, "m.csv", "image_path,reader,label,old", *lines)
    told = "up to 3 readers an image (column reader): what more than half of them say counts; 1 cell where they are"
    for manifest in (open_dataset(tmp_path / "m.csv"), open_dataset(tmp_path, label_column="label")):
        assert manifest.table["label"].tolist() == ["a", "b", "", "a"]
        assert noted(manifest, told)
    assert open_dataset(tmp_path / "m.csv").table["old"].tolist() == ["0", "1", "0", "1"]
    write(tmp_path, "m.csv", "image_path,site,label", *(line.rpartition(",")[0] for line in lines))
    with pytest.raises(UserError, match="3 images with several rows"):
        open_dataset(tmp_path / "m.csv")


def test_two_tables_that_call_the_classes_otherwise_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(8)))
    write(tmp_path, "train.csv", "image,label", *(f"{n}.jpg,{('benign', 'malignant')[n % 2]}" for n in range(4)))
    write(tmp_path, "test.csv", "image,label", *(f"{n}.jpg,{float(n % 2)}" for n in range(4, 8)))
    with pytest.raises(UserError, match="have no label in common"):
        open_dataset(tmp_path)


def test_an_excel_table_of_another_language_is_read(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Bilder/Läsion {n}.png" for n in range(8)))
    lines = [
        "sep=;",
        "Bild;Diagnose;Patient;;",
        *(f"Läsion {n}.png;{('Ödem', 'gesund')[n % 2]};{n // 2};;" for n in range(8)),
    ]
    (tmp_path / "Übersicht.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("gesund", "Ödem")
    assert patients(manifest) == {"0", "1", "2", "3"}, "patient 0 is somebody where others are numbers"


def test_folders_of_sites_are_sites_and_patients_may_be_numbered_anew_in_each(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"site{s}/{c}/pat{p}_{i}.png" for s in "AB" for c in ("ad", "cn") for p in (1, 2, 3) for i in "12")
    )
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("ad", "cn")
    assert set(manifest.table["site"]) == {"siteA", "siteB"}
    assert len(patients(manifest)) == 12
    touch(
        tmp_path / "one",
        *(f"{c}/pat{p}_{i}.png" for c, ps in (("ad", (7, 90)), ("cn", (90, 103))) for p in ps for i in "12"),
    )
    assert patients(open_dataset(tmp_path / "one")) == {"pat7", "pat90", "pat103"}, "one person in two classes"


@pytest.mark.parametrize("ends", [("_mask_lesion", "_mask_lung"), ("_lesion_mask", "_lung_mask")])
def test_masks_with_several_endings_are_masks_of_several_classes(ends: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}{end}.png" for n in range(4) for end in ("", *ends, "_overlay")))
    manifest = open_dataset(tmp_path)
    assert rows(manifest, "image_path", "mask_path")[0] == ("0.png", f"lesion=0{ends[0]}.png;lung=0{ends[1]}.png")
    assert (len(manifest), manifest.mask_classes) == (4, ("lesion", "lung"))


def test_changed_copies_stay_with_their_picture_and_are_no_patients(tmp_path: Path) -> None:
    paths = [f"{c}/im{n}{end}.png" for c in "ab" for n in range(4) for end in ("", "_aug1", "_flip")]
    paths += [f"a/scan{n}_jpg.rf.{k:032x}.png" for n in range(2) for k in (1, 2)]
    generator = np.random.default_rng(0)
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / path)
    manifest = open_dataset(tmp_path)
    assert not patients(manifest)
    prints = take_fingerprints(manifest)
    groups = keep_together(manifest, find_duplicates(prints), prints)
    of = dict(zip(manifest.table["image_path"], groups, strict=True))
    assert of["a/im0.png"] == of["a/im0_aug1.png"] == of["a/im0_flip.png"] != of["b/im0.png"]
    assert len({group for path, group in of.items() if "scan0" in path}) == 1


def test_frames_of_a_video_stay_together(tmp_path: Path) -> None:
    videos = (("polyp", (1, 2, 3)), ("normal", (4, 5, 6)))
    touch(tmp_path, *(f"{c}/video{v}_frame{f:04}.png" for c, vs in videos for v in vs for f in range(4)))
    assert len(patients(open_dataset(tmp_path))) == 6
    touch(tmp_path / "each", *(f"{c}/scan{n}_x.png" for c, ns in (("a", (1, 2)), ("b", (3, 4))) for n in ns))
    assert not patients(open_dataset(tmp_path / "each")), "an image each tells nobody apart"


def test_a_class_below_an_organ_is_asked_for(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{organ}/{c}/{n}.png" for organ in ("lung", "colon") for c in ("normal", "tumor") for n in range(3)),
    )
    with pytest.raises(UserError, match="two ways") as refusal:
        open_dataset(tmp_path)
    expression = str(refusal.value).partition("--label-column '")[2].partition("'")[0]
    assert open_dataset(tmp_path, label_column=expression).classes == ("normal", "tumor")
    assert open_dataset(tmp_path, layout="folder").classes == ("colon", "lung")


def test_a_table_may_name_images_by_number_or_beside_it_or_few_of_its_rows_be_here(tmp_path: Path) -> None:
    touch(tmp_path / "number", *(f"images/{n:06}.png" for n in range(10)))
    write(tmp_path / "number", "meta.csv", "id,label,age", *(f"{n},{'xy'[n % 2]},{40 + n}" for n in range(10)))
    touch(tmp_path / "beside", *(f"{split}/{n}.png" for split in ("train", "test") for n in range(6)))
    for split, classes in (("train", "ab"), ("test", "ba")):
        write(tmp_path / "beside" / split, "labels.csv", "name,class", *(f"{n}.png,{classes[n % 2]}" for n in range(6)))
    touch(tmp_path / "few", *(f"{n}.png" for n in range(6)))
    write(tmp_path / "few", "all.csv", "image,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(100)))
    number, beside, few = (open_dataset(tmp_path / name) for name in ("number", "beside", "few"))
    assert list(number.table["label"]) == ["x", "y"] * 5
    assert dict(rows(beside, "image_path", "label"))["test/0.png"] == "b"
    assert dict(rows(beside, "image_path", "label"))["train/0.png"] == "a"
    assert list(few.table["label"]) == ["a", "b"] * 3
    assert noted(few, "94 rows left out")


def test_a_table_with_a_row_a_patient_labels_the_images_in_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"P{p:03}/{i}.png" for p in range(12) for i in range(3)))
    write(tmp_path, "clinical.csv", "patient,outcome", *(f"P{p:03},{p % 2}" for p in range(12)))
    manifest = open_dataset(tmp_path)
    assert (manifest.classes, len(patients(manifest))) == (("0", "1"), 12)
    assert dict(rows(manifest, "image_path", "label"))["P003/2.png"] == "1"


def test_further_columns_of_two_tables_are_those_of_their_images(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{split}/{n}.png" for split, first in (("train", 0), ("valid", 6)) for n in range(first, first + 6)),
    )
    for split, first in (("train", 0), ("valid", 6)):
        lines = [f"{n}.png,{'ab'[n % 2]},{40 + n}" for n in range(first, first + 6)]
        write(tmp_path, f"{split}.csv", "image,label,age", *lines)
    found = rows(open_dataset(tmp_path), "image_path", "age")
    assert sorted(age for _, age in found) == [str(40 + n) for n in range(12)]
    assert ("valid/11.png", "51") in found


CLASSES = [f"{c}/{c}{n}.png" for c in ("ben", "mal") for n in range(6)]


def test_tables_beside_class_folders_say_patients_and_splits(tmp_path: Path) -> None:
    touch(tmp_path, *CLASSES)
    people = [f"{path[4:]},{path[:3]}{n // 2},4{n}" for n, path in enumerate(CLASSES)]
    write(tmp_path, "patients.csv", "image,patient_id,age", *people)
    manifest = open_dataset(tmp_path)
    assert (manifest.layout, manifest.classes, len(patients(manifest))) == ("folder", ("ben", "mal"), 6)
    assert manifest.rules["patient_id"] == "the column patient_id"
    assert noted(manifest, "tables used: patients.csv")
    assert not manifest.left_out
    touch(tmp_path / "lists", *CLASSES)
    for split, numbers in (("train", "0123"), ("val", "4"), ("test", "5")):
        write(tmp_path / "lists", f"{split}.txt", *(path for path in CLASSES if path[-5] in numbers))
    divided = open_dataset(tmp_path / "lists")
    assert divided.classes == ("ben", "mal")
    assert dict(rows(divided, "image_path", "split"))["mal/mal4.png"] == "val"


def test_a_table_of_boxes_beside_class_folders_changes_nothing(tmp_path: Path) -> None:
    touch(tmp_path, *CLASSES)
    write(tmp_path, "boxes.csv", "image,label,x", *(f"{p[4:]},{k},{n}" for n, p in enumerate(CLASSES) for k in "xy"))
    assert open_dataset(tmp_path).classes == ("ben", "mal")


def test_a_label_that_contradicts_the_class_folders_is_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, *CLASSES)
    write(tmp_path, "labels.csv", "image,label", *(f"{path[4:]},{'xy'[n % 2]}" for n, path in enumerate(CLASSES)))
    with pytest.raises(UserError, match=r"two ways.*--layout folder .*--layout tables"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, layout="folder").classes == ("ben", "mal")
    assert open_dataset(tmp_path, layout="tables").classes == ("x", "y")
    write(tmp_path, "labels.csv", "image,label", *(f"{path[4:]},{path[0]}" for path in CLASSES))
    assert open_dataset(tmp_path).classes == ("ben", "mal")


def test_days_are_no_patients_unasked(tmp_path: Path) -> None:
    touch(tmp_path, *(f"2020-01-{day:02}/{n}.png" for day in range(1, 8) for n in range(3)))
    with pytest.raises(UserError, match="two ways"):
        open_dataset(tmp_path)


def test_names_in_other_capitals_and_labels_in_brackets(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.JPG" for n in range(6)))
    cells = ("[]", "['edema', 'mass']")
    write(tmp_path, "t.csv", "image,labels", *(f'{n}.jpg,"{cells[n % 2]}"' for n in range(6)))
    manifest = open_dataset(tmp_path)
    assert list(manifest.table["label"]) == [";", "edema;mass"] * 3


def table(root: Path, header: str, *cells: str) -> Path:
    """Eight images and a CSV that names them, each with one of the cells."""
    touch(root, *(f"{n}.png" for n in range(8)))
    write(root, "m.csv", f"image_path,{header}", *(f"{n}.png,{cells[n % len(cells)]}" for n in range(8)))
    return root / "m.csv"


def test_a_file_that_is_image_and_mask_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "0.png", "1.png")
    write(tmp_path, "m.csv", "image_path,label,mask_path", "0.png,a,0.png", "1.png,b,0.png")
    with pytest.raises(UserError, match=r"1 file named as image and as mask: 0\.png"):
        open_dataset(tmp_path / "m.csv")


def test_measurements_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="measurements, not classes"):
        open_dataset(table(tmp_path, "label", *(f"{n * 1.37 + 0.5:.2f}" for n in range(8))))
    assert open_dataset(table(tmp_path, "label", "0.5", "1.5")).classes == ("0.5", "1.5")


def test_patients_that_are_nobody_or_one_in_two_spellings(tmp_path: Path) -> None:
    manifest = open_dataset(table(tmp_path, "label,patient_id", "a,anonymous", "b,p1", "a,P1", "b,removed"))
    assert patients(manifest) == {"P1"}
    assert noted(manifest, "4 cells of the patient_id name nobody ('anonymous')")
    numbered = open_dataset(table(tmp_path, "label,patient_id", "a,0.0", "b,1.0"))
    assert patients(numbered) == {"0", "1"}
    zeros = open_dataset(table(tmp_path, "label,patient_id", "a,0012", "b,12", "a,7"))
    assert patients(zeros) == {"0012", "7"}
    rounded = open_dataset(table(tmp_path, "label,patient_id", "a,1.23457E+15", "b,7"))
    assert noted(rounded, "a spreadsheet has rounded 1.23457E+15")
    assert not noted(open_dataset(table(tmp_path, "label,patient_id", "a,7", "b,100200300")), "rounded")


def test_a_question_mark_is_no_class(tmp_path: Path) -> None:
    assert open_dataset(table(tmp_path, "label", "a", "?", "b")).classes == ("a", "b")
    unknown = open_dataset(table(tmp_path, "label", "a", "Unknown", "b"))
    assert unknown.classes == ("Unknown", "a", "b")
    assert noted(unknown, "a class is called Unknown: if its images have no label")
    several = open_dataset(table(tmp_path, "label", "a;b", "?a;b"))
    assert noted(several, "4 labels with ? before it")


@pytest.mark.parametrize("option", ["image", "label", "patient", "split", "mask", "site"])
def test_a_column_that_no_table_beside_has_is_an_error(option: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(6)))
    write(tmp_path, "t.csv", "image,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(6)))
    for chosen in (DatasetSettings(), DatasetSettings(**{f"{option}_column": "x"})):  # type: ignore[arg-type]
        if chosen == DatasetSettings():
            assert open_data(tmp_path, Settings(dataset=chosen)).layout == "tables"
            continue
        with pytest.raises(UserError, match=r"column 'x'|has no effect"):
            open_data(tmp_path, Settings(dataset=chosen))


@pytest.mark.parametrize("copies", [("PNG", "TIF"), ("ODIR-5K", "preprocessed_images"), ("raw", "resized_224x224")])
def test_copies_of_a_data_set_are_no_classes(copies: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}_left.jpg" for folder in copies for n in range(5)))
    with pytest.raises(UserError, match=r"seem to hold the same images twice.*--layout folder"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, layout="folder").classes) == 2


def test_folders_of_a_number_and_a_class_are_asked_for(tmp_path: Path) -> None:
    names = [f"{p:03}_{('malignant', 'benign')[p % 2]}" for p in range(8)]
    touch(tmp_path, *(f"{name}/{n}.png" for name in names for n in range(3)))
    with pytest.raises(UserError, match=r"two ways.*patients folder"):
        open_dataset(tmp_path)
    told = open_dataset(tmp_path, label_column="path:(benign|malignant)", patients="folder")
    assert (told.classes, len(patients(told))) == (("benign", "malignant"), 8)


def test_a_column_of_masks_or_of_further_images_in_a_table_beside(tmp_path: Path) -> None:
    touch(
        tmp_path / "masks",
        *(f"{folder}/{n}{end}.png" for n in range(6) for folder, end in (("img", ""), ("out", "_s"))),
    )
    lines = [f"img/{n}.png,{'ab'[n % 2]},out/{n}_s.png" for n in range(6)]
    write(tmp_path / "masks", "t.csv", "image_path,label,mask_path", *lines)
    manifest = open_dataset(tmp_path / "masks")
    assert rows(manifest, "image_path", "label", "mask_path")[1] == ("img/1.png", "b", "out/1_s.png")
    assert len(manifest) == 6
    touch(tmp_path / "views", *(f"{n}_{view}.png" for n in range(6) for view in ("front", "side")))
    lines = [f"{n},{n}_front.png,{n}_side.png,{'ab'[n % 2]}" for n in range(6)]
    write(tmp_path / "views", "t.csv", "study,front,side,label", *lines)
    with pytest.raises(UserError, match=r"several images, in the columns front and side.*--image-column"):
        open_dataset(tmp_path / "views")
    assert sum(label != "" for (label,) in rows(open_dataset(tmp_path / "views", image_column="side"), "label")) == 6


def test_a_list_of_some_images_says_no_split_and_no_label(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(9)))
    write(tmp_path, "positives.csv", "image", *(f"{n}.png" for n in range(4)))
    assert open_dataset(tmp_path).layout == "unlabelled"


@pytest.mark.parametrize("name", ["all", "thumbnails"])
def test_a_folder_of_the_images_of_the_class_folders_again_is_no_class(name: str, tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{c}/{c}{n}.png" for c in "abc" for n in range(4)),
        *(f"{name}/{c}{n}.png" for c in "abc" for n in range(4)),
    )
    with pytest.raises(UserError, match=rf"{name} and the others seem to hold the same images twice"):
        open_dataset(tmp_path)
    touch(tmp_path / "anew", *(f"{c}/{n}.png" for c in "abc" for n in range(4)))
    assert open_dataset(tmp_path / "anew").classes == ("a", "b", "c"), "numbers that begin anew are no copies"


def test_a_picture_in_two_formats_stays_together(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{c}{n}.{e}" for c in "ab" for n in range(3) for e in ("png", "jpg")), "a/alone.png")
    manifest = open_dataset(tmp_path)
    of = dict(rows(manifest, "image_path", "cluster"))
    assert of["a/a0.png"] == of["a/a0.jpg"] not in ("", of["a/a1.png"])
    assert of["a/alone.png"] == ""
    assert noted(manifest, "6 images named like another")
    touch(tmp_path, *(f"film{n}.tif" for n in range(3)))
    write(tmp_path, "m.csv", "image_path,label,frame", *(f"film{n}.tif,{n % 2},{f}" for n in range(3) for f in "01"))
    assert "cluster" not in open_dataset(tmp_path / "m.csv").table, "frames of a file are no copies"


def test_both_sides_in_folders_of_their_own_are_one_patient(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{s}/{p:03}.png" for c in ("ill", "well") for s in ("left", "right") for p in range(6)))
    manifest = open_dataset(tmp_path)
    assert (manifest.classes, len(patients(manifest))) == (("ill", "well"), 12)
    people = dict(rows(manifest, "image_path", "patient_id"))
    assert people["ill/left/003.png"] == people["ill/right/003.png"] != people["well/left/003.png"]
