"""Lists and texts that name images, columns of images not to be used, tables with a row a folder: said or asked for."""

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
