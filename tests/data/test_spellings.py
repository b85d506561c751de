"""One person under two spellings of an id is one patient, wherever the id was read, and the user is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from listed_files import noted, rows, touch, write
from msmae.config import Settings
from msmae.data.audit.against import Pool, known_from
from msmae.data.audit.columns import Columns
from msmae.data.manifest import Manifest
from msmae.data.spellings import in_one_spelling, spelled
from msmae.data.tables.layouts import open_dataset
from msmae.data.understood import understand
from msmae.data.unit_labels import labels_by_table
from msmae.errors import UserError


def crossing(manifest: Manifest) -> list[str]:
    """The patients on both sides of the given split."""
    return Columns.of(manifest).crossing


def said(manifest: Manifest) -> str:
    """What is understood of the patients."""
    return "\n".join(fact.said for fact in understand(manifest).about("patients"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0007", "7"),
        ("27.0", "27"),
        ("patient_007", "patient_7"),
        ("Pat04", "pat04"),
        ("PAT-001", "PAT 001"),
        ("PAT_001", "PAT001"),
        ("DOE^JOHN", "Doe John"),
        ("s1_001", "S1_001"),
        ("００7", "7"),
    ],
)
def test_two_spellings_of_one_id(one: str, other: str) -> None:
    people, twins = in_one_spelling([one, other, "", one, "X9"])
    assert people[0] == people[1] == people[3]
    assert people[2:] == ["", people[0], "X9"]
    assert len(twins) == 1
    assert one in twins[0]
    assert other in twins[0]
    assert in_one_spelling([other, one])[0][0] == people[0], "the order of the images changes nothing"


@pytest.mark.parametrize(
    ("one", "other"), [("1_2", "12"), ("10", "1"), ("a-b", "ab"), ("-1", "1"), ("101R", "101L"), ("1.2", "1-2")]
)
def test_different_ids(one: str, other: str) -> None:
    assert spelled([one])[0] != spelled([other])[0]
    assert in_one_spelling([one, other]) == ([one, other], [])


def test_names_of_signs_and_of_nothing_stay() -> None:
    assert spelled([]) == []
    assert spelled(["--", "", "a\nb"]) == ["--", "", "a b"]


def test_a_table_in_which_a_spreadsheet_took_zeros_away_leaks(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(6)))
    cells = ("0,a,train,0007", "1,b,train,0008", "2,a,train,9", "3,a,test,7", "4,b,test,10", "5,b,test,11")
    rows = (cell.replace(",", ".png,", 1) for cell in cells)
    write(tmp_path, "m.csv", "image_path,label,split,patient_id", *rows)
    manifest = open_dataset(tmp_path / "m.csv")
    assert crossing(manifest) == ["0007"]
    assert "1 patient written in several ways" in said(manifest)
    assert "0007 / 7" in said(manifest)


def test_folders_of_patients_in_two_spellings_leak(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"train/{name}/{people}/1.png" for name, people in (("a", "patient_0301"), ("b", "patient_0944")))
    )
    touch(
        tmp_path, *(f"train/{name}/{people}/1.png" for name, people in (("a", "patient_0215"), ("b", "patient_0817")))
    )
    touch(tmp_path, *(f"test/{name}/{people}/1.png" for name, people in (("a", "Patient 301"), ("b", "Patient 722"))))
    manifest = open_dataset(tmp_path)
    assert len(crossing(manifest)) == 1
    assert "1 patient written in several ways" in said(manifest)


def test_numbers_that_begin_anew_in_each_split_stay_apart_whatever_their_zeros(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{name}/patient{n:03d}_1.png" for n in range(1, 7) for name in "a"))
    touch(tmp_path, *(f"train/b/patient{n:03d}_1.png" for n in range(7, 13)))
    touch(tmp_path, *(f"test/a/patient{n}_1.png" for n in range(1, 4)), *(f"test/b/patient{n}_1.png" for n in (4, 5)))
    manifest = open_dataset(tmp_path)
    assert manifest.table["patient_id"].nunique() == 17
    assert crossing(manifest) == []


def test_headers_in_two_spellings_name_one_patient(tmp_path: Path) -> None:
    for n, (split, name, person) in enumerate(
        [("train", "a", "00002193"), ("train", "b", "00000500"), ("test", "a", "2193"), ("test", "b", "777")]
    ):
        file = tmp_path / split / name / f"{n}.dcm"
        file.parent.mkdir(parents=True)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header = FileDataset(file, {}, file_meta=meta, preamble=b"\0" * 128)
        header.PatientID, header.StudyInstanceUID = person, f"1.2.{n + 1}"
        header.save_as(file)
    manifest = open_dataset(tmp_path)
    assert manifest.table["patient_id"].nunique() == 3
    assert len(crossing(manifest)) == 1
    assert "1 patient written in several ways" in said(manifest)
    assert "2193" not in said(manifest), "IDs of headers are shown to nobody"
    write(tmp_path, "people.csv", "PatientID,diagnosis", "2193,ill", "500,well", "777,well")
    labelled = labels_by_table(manifest, "people.csv", "diagnosis", unit="auto", beside=tmp_path)
    assert sorted(rows(labelled, "image_path", "label")) == [
        ("test/a/2.dcm", "ill"),
        ("test/b/3.dcm", "well"),
        ("train/a/0.dcm", "ill"),
        ("train/b/1.dcm", ""),
    ]
    assert noted(labelled, "does not name 1 patient"), "00000500 in the headers is under a pseudonym"


def test_a_patient_of_another_data_set_is_known_in_either_spelling(tmp_path: Path) -> None:
    generator, opened = np.random.default_rng(0), []
    for name, people in (("old", ("0007", "8", "9")), ("new", ("7", "10", "11"))):
        (tmp_path / name).mkdir()
        for n in range(3):
            Image.fromarray(generator.integers(0, 255, (16, 16), dtype=np.uint8)).save(tmp_path / name / f"{n}.png")
        split = "test" if name == "new" else "train"
        write(
            tmp_path / name,
            "m.csv",
            "image_path,patient_id,split",
            *(f"{n}.png,{who},{split}" for n, who in enumerate(people)),
        )
        opened.append(open_dataset(tmp_path / name / "m.csv", label_column=""))
    known = known_from(opened[1], [Pool(opened[0], Settings())], settings=Settings())
    assert (known["test_patients_in_pool"], known["leaking_images"]) == (1, 1)


def test_a_table_of_patients_labels_either_spelling(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(4)))
    write(tmp_path, "m.csv", "image_path,patient_id", "0.png,0007", "1.png,7", "2.png,0008", "3.png,P9")
    write(tmp_path, "people.csv", "patient_id,diagnosis", "7,ill", "0008,well", "p9,well")
    manifest = open_dataset(tmp_path / "m.csv", label_column="")
    labelled = labels_by_table(manifest, "people.csv", "diagnosis", unit="auto", beside=tmp_path)
    assert labelled.table["label"].tolist() == ["ill", "ill", "well", "well"]
    write(tmp_path, "two.csv", "patient_id,diagnosis", "7,ill", "0007,well", "8,well")
    with pytest.raises(UserError, match=r"'0007' has the labels 'ill' and 'well'"):
        labels_by_table(manifest, "two.csv", "diagnosis", unit="auto", beside=tmp_path)
