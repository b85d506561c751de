"""Lists and texts that name images, columns of images not to be used, tables with one row per folder: said or asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from listed_files import noted, rows, touch, write
from msmae.config import DatasetSettings, Settings
from msmae.data.opening import open_data
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError

IMAGES = [f"{c}/{c}{n}.png" for c in ("ben", "mal") for n in range(6)]


@pytest.mark.parametrize("name", ["exclude.txt", "Blacklist.csv", "subset_b.txt", "removed.json"])
def test_a_list_of_some_images_is_not_passed_over(name: str, tmp_path: Path) -> None:
    """They were trained on, and the list was "no image by name"."""
    touch(tmp_path, *IMAGES)
    write(tmp_path, name, *([json.dumps(IMAGES[:3])] if name.endswith("json") else IMAGES[:3]))
    with pytest.raises(UserError, match=rf"{name} names 3 of .*12 images"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, layout="folder")) == 12
    (tmp_path / name).unlink()
    write(tmp_path, "filelist.txt", *IMAGES)
    assert open_dataset(tmp_path).classes == ("ben", "mal"), "a list of all says nothing"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("splits.json", {"train": IMAGES[::2], "test": IMAGES[1::2]}),
        ("test.json", IMAGES[:2]),
        ("index.json", [{"file": path, "label": path[0]} for path in IMAGES]),
    ],
)
def test_a_json_that_says_something_of_the_images_is_not_passed_over(name: str, said: object, tmp_path: Path) -> None:
    """The split that it gives was dropped, and another one cut."""
    touch(tmp_path, *IMAGES)
    (tmp_path / name).write_text(json.dumps(said, indent=1))
    with pytest.raises(UserError, match=rf"{name} names \d+ of the 12 images, and is no table"):
        open_dataset(tmp_path)
    (tmp_path / name).write_text(json.dumps({"name": "a set", "version": 3}))
    assert open_dataset(tmp_path).classes == ("ben", "mal")


@pytest.mark.parametrize("given", ["", "t.csv"])
def test_a_column_of_images_not_to_be_used_is_asked_for(given: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(8)))
    write(tmp_path, "t.csv", "image_path,label,excluded", *(f"{n}.png,{'ab'[n % 2]},{int(n > 5)}" for n in range(8)))
    with pytest.raises(UserError, match="the column excluded says which images are not to be used"):
        open_dataset(tmp_path / given)


def test_tables_of_a_class_each_are_told_how_to_become_one(tmp_path: Path) -> None:
    touch(tmp_path, *(f"img/{n}.png" for n in range(12)))
    for name, numbers in (("benign", range(7)), ("malignant", range(7, 12))):
        write(tmp_path, f"{name}.csv", "filename,age", *(f"{n}.png,{40 + n}" for n in numbers))
    with pytest.raises(UserError, match=r"if benign\.csv, malignant\.csv are the classes, write one table"):
        open_dataset(tmp_path)


def test_lists_of_a_class_each_are_not_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, *(f"img/{n:03}.png" for n in range(12)))
    for name, numbers in (("benign", range(7)), ("malignant", range(7, 12))):
        write(tmp_path, f"{name}.txt", *(f"{n:03}" for n in numbers))
    with pytest.raises(UserError, match=r"benign\.txt names 7 of 12 images, and nothing says what they are"):
        open_dataset(tmp_path)


NAMES = ("Huber", "Meier", "Kraus", "Novak", "Lang", "Wolf", "Bauer", "Fuchs")


def test_a_table_with_a_row_a_folder_may_name_patients(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{who}/{n}.png" for who in NAMES for n in range(3)))
    write(tmp_path, "people.csv", "name,dementia", *(f"{who},{'yn'[k % 2]}" for k, who in enumerate(NAMES)))
    with pytest.raises(UserError, match="each is a patient") as refusal:
        open_dataset(tmp_path)
    option = str(refusal.value).partition("--label-column ")[2].partition(" ")[0]
    chosen = DatasetSettings(layout="patient-folders", label_column=option)
    manifest = open_data(tmp_path, Settings(dataset=chosen))
    assert (manifest.classes, len(set(manifest.table["patient_id"]))) == (("n", "y"), 8)
    assert len(open_dataset(tmp_path, layout="folder").classes) == 8


def test_images_of_a_labelled_folder_belong_together(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{who}/2021-0{n}-01/1.png" for who in NAMES for n in (1, 2)))
    write(tmp_path, "people.csv", "name,diagnosis", *(f"{who},{'yn'[k % 2]}" for k, who in enumerate(NAMES)))
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("n", "y")
    assert dict(rows(manifest, "image_path", "patient_id"))["Lang/2021-02-01/1.png"] == "Lang"


def test_folders_above_labels_found_in_paths_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/{n}.png" for s in ("Hamburg", "Jena") for c in ("krank", "gesund") for n in range(3)))
    manifest = open_dataset(tmp_path, label_column="path:/(krank|gesund)/")
    assert noted(manifest, "2 folders left out, each with several labels: Hamburg, Jena")


@pytest.mark.parametrize(
    "name", ["exclude", "ben/rejected", "nicht verwenden", "do_not_use", "poor quality", "trash", "no usar"]
)
def test_a_folder_of_images_not_to_be_used_is_no_class(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *IMAGES, *(f"{name}/x{n}.png" for n in range(4)))
    with pytest.raises(UserError, match=rf"{name}/ holds 4 of 16 images.*not to be used.*--layout folder"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, layout="folder")) == 16


@pytest.mark.parametrize("name", ["unclassified", "to_label", "nicht befundet", "sin etiquetar", "unknown", "_todo"])
def test_a_folder_of_images_whose_label_is_not_known_is_no_class(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *IMAGES, *(f"{name}/x{n}.png" for n in range(4)))
    with pytest.raises(UserError, match=rf"{name}/ holds 4 of 16 images.*not known.*--layout folder"):
        open_dataset(tmp_path)
    (tmp_path / name).rename(tmp_path / "unlabelled")
    assert open_dataset(tmp_path).classes == ("ben", "mal")


@pytest.mark.parametrize("names", [("Good", "Usable", "Reject"), ("lotus", "nodule_used"), ("good quality", "bad")])
def test_grades_of_quality_and_words_within_words_stay_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{name[0]}{n}.png" for name in names for n in range(4)))
    assert set(open_dataset(tmp_path).classes) == set(names)


@pytest.mark.parametrize(("form", "number"), [("{}.0", 1), ('"{},0"', 1), ('"1,2E+05"', 120000), ("1.20E+05", 120000)])
def test_ids_that_a_program_made_numbers_of_are_told(form: str, number: int, tmp_path: Path) -> None:
    """The table was left out, naming none of the images, and they were unlabelled."""
    touch(tmp_path, *(f"img/{number + n}.png" for n in range(8)))
    write(tmp_path, "t.csv", "id,label", *(f"{form.format(number + n)},{'ab'[n % 2]}" for n in range(8)))
    with pytest.raises(UserError, match=r"(decimal numbers of|rounded the numbers in).*column id"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match=r"ids.* as text"):
        open_dataset(tmp_path / "t.csv", image_column="id")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("README.txt", "{} is blurred"),
        ("LICENSE", "{}"),
        ("export.log", "{} written"),
        ("checksums.txt", "d41d8cd98f00b204e98{n:02}  {}"),
        ("notes.md", "- {}: look at the rim"),
    ],
)
def test_texts_for_people_are_no_lists(name: str, line: str, tmp_path: Path) -> None:
    touch(tmp_path, *IMAGES)
    few = IMAGES if name == "checksums.txt" else IMAGES[:2]
    write(tmp_path, name, "A set of twelve images.", *(line.format(path, n=n) for n, path in enumerate(few)))
    assert open_dataset(tmp_path).classes == ("ben", "mal")


def test_what_msmae_wrote_into_data_is_no_data(tmp_path: Path) -> None:
    """A folder of an audit was a folder without an image, a run one of masks, a repaired manifest the labels."""
    touch(
        tmp_path, *IMAGES, "runs/a/config.yaml", "runs/a/environment.json", "runs/a/panels/0.png", "runs/a/masks/m.png"
    )
    touch(tmp_path, "audit/audit.json", "worst_pairs.png", "audit.json", "out/masks/ben0.png")
    header = "image_path,label,patient_id,split,mask_path,site"
    for name in ("cv/fold-1.csv", "clean.csv", "clean.left-out.csv"):
        write(tmp_path, name, header, *(f"{path},{path[0]},,train,," for path in IMAGES))
    write(tmp_path, "out/predictions.csv", "image_path,predicted,prob_a", *(f"{path},a,.9" for path in IMAGES[:3]))
    manifest = open_dataset(tmp_path)
    assert (manifest.classes, len(manifest), set(manifest.table["split"])) == (("ben", "mal"), 12, {""})
    assert noted(manifest, "written by msmae")
    touch(tmp_path, "ben/worst_pairs.png")
    assert len(open_dataset(tmp_path)) == 13, "a name alone is nobody's"
