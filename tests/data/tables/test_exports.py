"""Tables as a spreadsheet or a hospital exports them: merged cells, patients under other names, copies of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from listed_files import noted, rows, touch, write
from msmae.data.tables.layouts import open_dataset
from msmae.data.understood import understand
from msmae.errors import UserError


def export(root: Path, header: str, *lines: str) -> Path:
    """Two images a line, and a table that names them: the line's cells stand behind both, or behind the first alone
    where they begin with ``-``."""
    touch(root, *(f"{n:03}.png" for n in range(2 * len(lines))))
    cells = [(line.lstrip("-"), "," * line.count(",") if line[0] == "-" else line) for line in lines]
    told = [f"{2 * k + n:03}.png,{cell}" for k, both in enumerate(cells) for n, cell in enumerate(both)]
    write(root, "export.csv", f"image_path,{header}", *told)
    return root


@pytest.mark.parametrize(
    ("header", "given"),
    [("patient_id,label", ""), ("note,label", ""), ("patient_id,grade", ""), ("patient_id,label", "export.csv")],
)
def test_merged_cells_are_not_cells_that_nothing_is_known_of(header: str, given: str, tmp_path: Path) -> None:
    """Two thirds of a patient's images had joined the training without patient and label, the rest the test."""
    root = export(tmp_path, header, *(f"-P{n},{'ab'[n % 2]}" for n in range(6)))
    with pytest.raises(UserError, match=r"first row of each block.*6 of 12 cells"):
        open_dataset(root / given)
    known = export(tmp_path / "filled", header, *(f"P{n},{'ab'[n % 2]}" for n in range(6)))
    assert len(open_dataset(known / given).classes) == 2


def test_merged_cells_of_patients_alone_are_told(tmp_path: Path) -> None:
    root = export(tmp_path, "patient_id,label", *(f"-P{n},{'ab'[n % 2]}" for n in range(6)))
    lines = (root / "export.csv").read_text().splitlines()
    (root / "export.csv").write_text("\n".join(f"{line}a" if line.endswith(",") else line for line in lines))
    for given in ("", "export.csv"):
        assert noted(open_dataset(root / given), "patient_id is filled in the first row of each block alone")


def test_images_without_a_label_here_and_there_are_no_merged_cells(tmp_path: Path) -> None:
    lines = [",a", "P1,b", "P2,", ",", "P3,a", "P1,b", "P4,", "P5,a"]
    manifest = open_dataset(export(tmp_path, "patient_id,label", *lines))
    assert sum(label == "" for (label,) in rows(manifest, "label")) == 6


@pytest.mark.parametrize("given", ["", "export.csv"])
def test_a_column_that_repeats_as_patients_do_is_offered(given: str, tmp_path: Path) -> None:
    root = export(tmp_path, "Fallnr,label,age,site", *(f"{1000 + n},{'ab'[n % 2]},{40 + n},s{n % 3}" for n in range(8)))
    (fact,) = understand(open_dataset(root / given)).about("patients")
    assert "--patient-column 'Fallnr'" in fact.said
    assert len(set(open_dataset(root / given, patient_column="Fallnr").table["patient_id"])) == 8
    other = export(tmp_path / "no", "device,label", *(f"d{n % 4},{'ab'[n % 2 * (n > 3)]}" for n in range(8)))
    assert "--patient-column" not in understand(open_dataset(other / given)).about("patients")[0].said


@pytest.mark.parametrize("name", ["Patientennr", "MRN", "病历号", "id_paciente"])
def test_patients_in_other_words(name: str, tmp_path: Path) -> None:
    root = export(tmp_path, f"{name},label", *(f"{1000 + n},{'ab'[n % 2]}" for n in range(6)))
    assert len(set(open_dataset(root).table["patient_id"])) == 6


@pytest.mark.parametrize("visits", [("v1", "v2"), ("20210302", "20220511"), ("2021-03-02", "2022-05-11")])
def test_names_before_a_visit_are_offered_as_patients(visits: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{who}{c}_{v}.png" for c in "ab" for who in ("Huber", "Meier", "Kraus") for v in visits))
    (fact,) = understand(open_dataset(tmp_path)).about("patients")
    expression = fact.said.partition("--patients '")[2].rpartition("'")[0]
    assert len(set(open_dataset(tmp_path, patients=expression).table["patient_id"])) == 6
    touch(tmp_path / "no", *(f"{c}/{c}_{n}.png" for c in ("covid", "normal") for n in range(9)))
    assert "share" not in understand(open_dataset(tmp_path / "no")).about("patients")[0].said


@pytest.mark.parametrize(
    "copy", ["a 3 - Kopie", "a 3 - Kopie (2)", "a 3 (1)", "a 3 copy", "Copia de a 3", "a 3 - 副本"]
)
def test_copies_by_a_computer_stay_with_their_picture(copy: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/a {n}.png" for c in "xy" for n in range(1, 5)), f"x/{copy}.png")
    manifest = open_dataset(tmp_path)
    of = dict(rows(manifest, "image_path", "cluster"))
    assert of["x/a 3.png"] == of[f"x/{copy}.png"] != ""
    assert of["x/a 1.png"] == ""
    touch(tmp_path / "counted", *(f"{c}/{c} ({n}).png" for c in "xy" for n in range(1, 5)))
    assert "cluster" not in open_dataset(tmp_path / "counted").table


@pytest.mark.parametrize("name", ["Diagnose", "Befund", "Klasse", "diagnóstico", "类别", "class_id", "label-no"])
def test_labels_in_other_words_and_numbers_are_read(name: str, tmp_path: Path) -> None:
    """Asked for before, although no other column may be the label."""
    root = export(tmp_path, f"{name},Alter", *(f"{'ab'[n % 2]},{40 + n}" for n in range(6)))
    assert open_dataset(root).classes == ("a", "b")


def test_a_table_of_what_class_numbers_mean_tells_nothing_of_images(tmp_path: Path) -> None:
    """Image 0.png had got the name of class 0."""
    touch(tmp_path, *(f"images/{n}.png" for n in range(12)))
    write(tmp_path, "labels.csv", "file,class_id", *(f"{n}.png,{n % 3}" for n in range(12)))
    write(tmp_path, "classes.csv", "class_id,name", "0,cyst", "1,stone", "2,tumor")
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("0", "1", "2")
    assert "name" not in manifest.table
    assert noted(manifest, "not used: classes.csv")
