"""Labels that exist for patients alone: in a table of their own, or on one image of each."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from msmae.config import make_settings
from msmae.data.manifest import Manifest
from msmae.data.opening import open_data
from msmae.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six patients of two images; images.csv names them, patients.csv says which are ill."""
    people = [f"p{number}" for number in range(6)]
    rows = [{"image_path": f"{name}-{view}.png", "patient_id": name, "eye": view} for name in people for view in "ab"]
    for number, row in enumerate(rows):
        Image.new("L", (8, 8), number).save(tmp_path / row["image_path"])
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    table = pd.DataFrame({"Patient ID": people, "diagnosis": ["ill", "well"] * 3, "both": ["x", "x;y"] * 3})
    table.to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path


def opened(data: Path, **dataset: str) -> Manifest:
    return open_data(data, make_settings("tiny", None, {"dataset": dataset}))


def labels(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.table["image_path"], manifest.table["label"], strict=True))


def test_a_table_of_patients_labels_each_of_their_images(folder: Path) -> None:
    found = opened(folder / "images.csv", label_column="patients.csv:diagnosis")
    assert labels(found) == {f"p{k}-{view}.png": ("ill", "well")[k % 2] for k in range(6) for view in "ab"}
    assert "patients.csv" in found.rules["label"]
    several = opened(folder / "images.csv", label_column="patients.csv:both")
    assert several.multilabel
    assert set(several.table["label"]) == {"x", "x;y"}


def test_the_images_of_a_folder_too(folder: Path) -> None:
    (folder / "images.csv").unlink()
    found = opened(folder, label_column="patients.csv:diagnosis", patients=r"(p\d)-")
    assert not any("patients.csv" in left.why for left in found.left_out)
    assert not any("without labels" in note for note in found.notes)
    assert set(found.table["label"]) == {"ill", "well"}


def test_pseudonyms_of_dicom_headers_are_found_by_the_name(folder: Path) -> None:
    images = pd.read_csv(folder / "images.csv", dtype=str)
    images["patient_id"] = [hashlib.sha256(name.encode()).hexdigest()[:12] for name in images["patient_id"]]
    images.to_csv(folder / "images.csv", index=False)
    assert set(opened(folder / "images.csv", label_column="patients.csv:diagnosis").table["label"]) == {"ill", "well"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("people.csv:diagnosis", "no such table"),
        ("patients.csv:dx", "no column 'dx'"),
        ("images.csv:eye", "'p0' has the labels 'a' and 'b'"),
        ("strangers.csv:diagnosis", "names none of the 6"),
    ],
)
def test_a_table_that_cannot_label_is_refused(folder: Path, option: str, said: str) -> None:
    (folder / "strangers.csv").write_text("patient_id,diagnosis\nq1,ill\nq2,well\n")
    with pytest.raises(UserError, match=said):
        opened(folder / "images.csv", label_column=option)


def offers(manifest: Manifest) -> list[str]:
    return [note for note in manifest.notes if ".csv" in note]


def test_a_table_is_offered_where_it_can_label_the_patients(folder: Path) -> None:
    (folder / "images.csv").unlink()
    (folder / "strangers.csv").write_text("Accession,finding\nq1,ill\nq2,well\nq3,well\n")
    told = opened(folder, patients=r"(p\d)-")
    assert [note for note in offers(told) if "strangers.csv:" in note] == []
    (offer,) = [note for note in offers(told) if "--label-column" in note]
    assert "patients.csv:diagnosis" in offer
    assert any("--patients EXPRESSION" in note for note in offers(opened(folder)))
    with pytest.raises(UserError, match=r"has Accession, finding.*one row per image"):
        opened(folder, patients=r"(p\d)-", label_column="strangers.csv:finding")


def test_a_table_with_a_row_an_eye_labels_no_patient(folder: Path) -> None:
    (folder / "images.csv").unlink()
    rows = [f"p{n},{eye},{('ill', 'well')[(n + k) % 2]},{n}" for n in range(6) for k, eye in enumerate(("OD", "OS"))]
    (folder / "patients.csv").write_text("\n".join(["Patient,Eye,Diagnosis,Age", *rows]))
    (offer,) = [note for note in offers(opened(folder, patients=r"(p\d)-")) if "patients.csv n" in note]
    assert "--label-column" not in offer
    assert "one row per image" in offer
    with pytest.raises(UserError, match=r"one's Eye.*one row per image") as refusal:
        opened(folder, patients=r"(p\d)-", label_column="patients.csv:Diagnosis")
    assert "leave one row" not in str(refusal.value)


def test_a_unit_s_label_is_that_of_all_its_images_where_the_unit_is_named(folder: Path) -> None:
    images = pd.read_csv(folder / "images.csv", dtype=str)
    images["label"] = ["ill", "", "well", "", "ill", "well", "", "", "well", "", "ill", "ill"]  # p2 contradicts itself
    images.to_csv(folder / "images.csv", index=False)
    found = labels(opened(folder / "images.csv", unit="patient_id"))
    assert [found[f"p{k}-b.png"] for k in range(6)] == ["ill", "well", "well", "", "well", "ill"]
    assert found["p2-a.png"] == "ill"
    plain = opened(folder / "images.csv")
    assert labels(plain)["p0-b.png"] == ""
    assert any("--unit patient_id" in note for note in plain.notes)
    assert any("1 patient with images of different labels" in note and "p2" in note for note in plain.notes)


def test_a_label_that_one_image_has_is_known_of_its_unit(folder: Path) -> None:
    images = pd.read_csv(folder / "images.csv", dtype=str)
    given = ["x;y", "?x;", "", "?x;y", ";", "", "x;?x", "y", "?y;", ""]
    three = pd.concat([images.iloc[[0, 2, 1, 3, 4, 5, 6, 7, 8, 9]]]).assign(
        patient_id=["p0", "p0", "p0", "p1", "p2", "p2", "p3", "p3", "p4", "p4"], label=given
    )
    three.to_csv(folder / "images.csv", index=False)
    found = opened(folder / "images.csv", unit="patient_id")
    assert found.table["label"].tolist() == ["x;y", "?x;", "x;y", "?x;y", ";", ";", "x", "y", "?y;", "?y;"]
    both = found.with_columns({"label": ["x;?x", "?x;x", "x;?y", "?y;x", "y;?x", "?x;y", "", ";", "x;", "y;"]})
    x, y, unknown = [1, 0], [0, 1], [None, None]
    expected = [x, x, [1, None], [1, None], [None, 1], [None, 1], unknown, [0, 0], x, y]
    assert [[None if cell != cell else cell for cell in row] for row in both.targets().tolist()] == expected
