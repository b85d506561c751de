"""Who a patient is: what DICOM headers, folders, file names and columns say, and which of them counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from listed_files import noted, touch, write
from msmae.data.manifest import Manifest
from msmae.data.tables.layouts import open_dataset
from msmae.data.understood import understand


def scan(path: Path, patient: str, study: str = "1.2.3") -> None:
    """A DICOM file without pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.PatientID, header.StudyInstanceUID, header.Modality = patient, study, "CT"
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)


def groups(manifest: Manifest) -> set[frozenset[str]]:
    """The images of each patient."""
    table = manifest.table
    return {
        frozenset(path for path, one in zip(table["image_path"], table["patient_id"], strict=True) if one == who)
        for who in set(table["patient_id"]) - {""}
    }


def said(manifest: Manifest) -> str:
    """The line about patients."""
    (fact,) = understand(manifest).about("patients")
    return fact.said


def test_folders_give_way_to_headers_that_contradict_them(tmp_path: Path) -> None:
    for number in range(8):
        for name in ("SE0/IM0", "SE1/IM0"):
            scan(tmp_path / f"PA00000{number}" / name, f"Doe^{number // 2}", f"1.2.{number}")
    manifest = open_dataset(tmp_path)
    assert groups(manifest) == {
        frozenset(f"PA00000{number}/{name}" for number in (2 * k, 2 * k + 1) for name in ("SE0/IM0", "SE1/IM0"))
        for k in range(4)
    }
    assert said(manifest).startswith("4 by the PatientID of the DICOM headers")
    assert "8 folders" in said(manifest)
    assert "Doe" not in manifest.table.to_csv() + str(understand(manifest).to_dict())
    assert len(groups(open_dataset(tmp_path, patients="folder"))) == 16
    assert len(groups(open_dataset(tmp_path, patients=r"(PA\d+)"))) == 8
    assert not groups(open_dataset(tmp_path, patients="none"))
    touch(tmp_path, "PA000000/report.png")
    assert frozenset({"PA000000/report.png"}) < next(
        one for one in groups(open_dataset(tmp_path)) if "PA000001/SE0/IM0" in one
    ), "what is no DICOM is of the one person in its folder"


def test_folders_of_single_studies_of_few_persons_are_no_classes(tmp_path: Path) -> None:
    for folder, patient in (("Mueller-a", "1"), ("Mueller-b", "1"), ("Schmidt-a", "2"), ("Weber-a", "3")):
        for series in "01":
            scan(tmp_path / folder / f"SE{series}" / "IM0", f"Doe^{patient}", f"1.2.{len(folder)}.{ord(folder[-1])}")
    manifest = open_dataset(tmp_path)
    assert not manifest.classes
    assert sorted(map(len, groups(manifest))) == [2, 2, 4]


def test_a_folder_of_several_persons_gives_way_too(tmp_path: Path) -> None:
    for number in range(12):
        scan(tmp_path / f"P{number // 4}" / f"{number}.dcm", f"anna{number // 2}", f"1.2.{number // 2}")
    assert len(groups(open_dataset(tmp_path, layout="patient-folders"))) == 6


@pytest.mark.parametrize("study", ["1.2.{folder}", "1.2.{file}"])
@pytest.mark.parametrize("several", [1, 2])
def test_ids_that_anonymisation_drew_for_every_file_leave_the_folders(study: str, several: int, tmp_path: Path) -> None:
    for file in range(12):
        who = file // several if study == "1.2.{folder}" else file
        scan(tmp_path / f"P{file // 4}" / f"{file}.dcm", f"id{who}", study.format(folder=file // 4, file=file))
    manifest = open_dataset(tmp_path, layout="patient-folders")
    assert len(groups(manifest)) == 3
    assert noted(manifest, "another patient in every file" if who == 11 else "more than one patient")


@pytest.mark.parametrize("patient", ["ANONYMOUS", "", "TRIAL"])
@pytest.mark.parametrize("study", ["1.2.3", ""])
def test_headers_that_name_one_or_nobody_leave_the_folders(patient: str, study: str, tmp_path: Path) -> None:
    for number in range(6):
        for c in ("ill", "well"):
            scan(tmp_path / f"{c}/patient{number}/1.dcm", patient, study)
            scan(tmp_path / f"{c}/patient{number}/2.dcm", patient, study)
    assert len(groups(open_dataset(tmp_path, layout="folder"))) == 12, "numbered anew in each class"


def test_anonymous_studies_over_several_folders_are_kept_whole(tmp_path: Path) -> None:
    for number in range(12):
        scan(tmp_path / f"ill{number % 2}" / f"series{number}" / "1.dcm", "ANONYMOUS", f"1.2.{number // 4}")
    manifest = open_dataset(tmp_path, layout="folder")
    assert sorted(map(len, groups(manifest))) == [4, 4, 4]


def test_dicom_beside_pictures_names_its_own_patients(tmp_path: Path) -> None:
    for number in range(6):
        scan(tmp_path / f"dicom/n{number}.dcm", f"anna{number // 2}", f"1.2.{number}")
    touch(tmp_path, *(f"png/n{number}.png" for number in range(6)))
    manifest = open_dataset(tmp_path, layout="unlabelled")
    assert sorted(map(len, groups(manifest))) == [2, 2, 2]
    assert said(manifest).startswith("3 by the PatientID")
    assert "6 images without one" in said(manifest)
    for number in range(6):
        (tmp_path / f"png/n{number}.png").rename(tmp_path / f"png/patient{number // 3}_{number}.png")
    named = open_dataset(tmp_path, layout="unlabelled")
    assert sorted(map(len, groups(named))) == [2, 2, 2, 3, 3], "and pictures by their names"


NUMBERED = (
    "Nord/{c}/ID_{n:04}_{s}_x.png",
    "Nord/{c}/{n:03}_{s}.png",
    "{c}/Nord/patient{n}_{s}.png",
    "Nord/{c}/case_{n:02}/{s}.png",
    "Nord/{c}/{s}/{n}.png",
)


@pytest.mark.parametrize("form", NUMBERED)
def test_numbers_that_begin_anew_in_folders_are_said_and_tear_nobody(form: str, tmp_path: Path) -> None:
    most = {"Nord": 12, "Sued": 11, "UKE": 10}
    places = [(w, number, side) for w in most for number in range(1, most[w] + 1) for side in ("OD", "OS")]
    files = [form.replace("Nord", w).format(c=("ill", "well")[n % 2], n=n, s=s) for w, n, s in places]
    manifest = open_dataset(touch(tmp_path, *files), label_column="path:/?(ill|well)/")
    assert len(groups(manifest)) == 12, "nobody may be torn: clinics and views look alike"
    assert "the same people in each of Nord, Sued, UKE" in said(manifest)


@pytest.mark.parametrize("views", [("arterial", "venous"), ("dermoscopic", "clinical"), ("WLI", "NBI")])
@pytest.mark.parametrize("layout", ["folder", "unlabelled"])
def test_folders_of_the_same_patients_do_not_tear_them_apart(
    views: tuple[str, str], layout: str, tmp_path: Path
) -> None:
    names = [f"{'benign' if n < 9 else 'malignant'}/{view}/patient_{n:02}.png" for n in range(1, 17) for view in views]
    manifest = open_dataset(touch(tmp_path, *names[:-1]), layout=layout)  # one view of one patient is missing
    assert len(groups(manifest)) == 16


@pytest.mark.parametrize(
    "above", [("T1", "FLAIR"), ("2020-01-31", "2021-03-02"), ("before", "after"), ("visit1", "visit2")]
)
def test_parts_and_visits_tell_nobody_apart(above: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, *(f"{where}/patient{n}.png" for where in above for n in range(1, 7)))
    assert len(groups(open_dataset(tmp_path, layout="unlabelled"))) == 6


@pytest.mark.parametrize("form", ["{n}{s}.png", "knee_{n}_{s}.png"])
def test_both_sides_by_one_letter_are_one_patient(form: str, tmp_path: Path) -> None:
    names = [form.format(n=9000160 + n, s=s) for n in range(6) for s in "LR"]
    touch(tmp_path, *(f"{k % 3 // 2}/{name}" for k, name in enumerate(names)))
    assert len(groups(open_dataset(tmp_path))) == 6
    touch(
        tmp_path / "no",
        *(f"{c}/{n}{s}.png" for c, n, s in (("a", 1, "L"), ("a", 2, "R"), ("b", 3, "L"), ("b", 4, "R"))),
    )
    assert not groups(open_dataset(tmp_path / "no"))


def test_long_numbers_in_several_folders_and_eyes_of_several_classes_are_one_person(tmp_path: Path) -> None:
    touch(
        tmp_path / "long",
        *(f"{where}/patient{n}_{k}.png" for where in ("Nord", "Sued") for n in (10253, 471) for k in "ab"),
    )
    assert len(groups(open_dataset(tmp_path / "long", layout="unlabelled"))) == 2
    touch(
        tmp_path / "eyes",
        *(f"{('ill', 'well')[(n + k) % 2]}/{n}_{s}.png" for n in range(1, 9) for k, s in enumerate(("left", "right"))),
    )
    assert len(groups(open_dataset(tmp_path / "eyes"))) == 8


@pytest.mark.parametrize(
    "lots", [("cohort_2019", "cohort_2020", "cohort_2021"), ("2019", "2020", "2021"), ("Batch 1", "Batch 2")]
)
@pytest.mark.parametrize("form", ["{lot}/img_{n:03}.png", "{c}/{lot}/img_{n:03}.png"])
def test_cohorts_batches_and_years_are_no_patients(lots: tuple[str, ...], form: str, tmp_path: Path) -> None:
    names = [form.format(lot=lot, n=n, c="ab"[n % 2]) for lot in lots for n in range(12)]
    touch(tmp_path, *names)
    write(tmp_path, "index.csv", "path,label", *(f"{name},{'ab'[n % 2]}" for n, name in enumerate(names)))
    manifest = open_dataset(tmp_path)
    assert manifest.classes == ("a", "b")
    assert not groups(manifest)
    (why,) = [note.why for note in manifest.left_out if note.number == len(lots)]
    assert lots[0] in why


COLUMNS = {
    "hn": ("2019-{p}", True),
    "Fallnummer": ("{p}", True),
    "accession": ("ACC47{p:02}", True),
    "SubjectCode": ("{p}", True),
    "age": ("{p}", False),
    "day": ("2021-03-{p:02}", False),
    "taken": ("202103{p:02}", False),
    "mean": ("0.{p:02}", False),
    "slice_no": ("{p}", False),
    "weight": ("{p}", False),
    "device": ("DX-{p}", False),
}


@pytest.mark.parametrize("data", ["", "index.csv"])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_of_identifiers_is_offered_and_not_used(column: str, data: str, tmp_path: Path) -> None:
    form, offered = COLUMNS[column]
    touch(tmp_path, *(f"{n}.png" for n in range(36)))
    lines = [f"{n}.png,{'ab'[n % 2]},{form.format(p=10 + n // 3)}" for n in range(36)]  # of both labels
    write(tmp_path, "index.csv", f"image_path,label,{column}", *lines)
    manifest = open_dataset(tmp_path / data)
    assert not groups(manifest)
    assert (f"--patient-column '{column}'" in said(manifest)) == offered
    if offered:
        assert len(groups(open_dataset(tmp_path / data, patient_column=column))) == 12


def test_a_column_called_after_patients_is_told_beside_those_of_file_names(tmp_path: Path) -> None:
    touch(tmp_path, *(f"patient{n}.png" for n in range(4)))
    write(tmp_path, "m.csv", "image_path,label,Subject", *(f"patient{n}.png,{'ab'[n % 2]},s{n // 2}" for n in range(4)))
    assert noted(open_dataset(tmp_path / "m.csv"), "--patient-column 'Subject'")
    assert not noted(open_dataset(tmp_path / "m.csv", patient_column="Subject"), "--patient-column")


@pytest.mark.parametrize("day", ["20210303", "2021-03-03", "2021_03_03"])
def test_days_in_file_names_are_no_patients_and_what_stands_behind_them_is_offered(tmp_path: Path, day: str) -> None:
    """Each patient was seen on two days; the days were the patients, and tore them."""
    for n in range(48):
        date = f"{day[:-1]}{n // 12 + 1}"
        touch(tmp_path, f"{'ab'[n % 2]}/{date}_{500 + n % 12}_{n}.png")
    manifest = open_dataset(tmp_path)
    assert not manifest.table["patient_id"].any()
    (offer,) = [note for note in manifest.notes if "--patients '" in note]
    told = open_dataset(tmp_path, patients=offer.partition("--patients '")[2].partition("'")[0])
    assert set(told.table["patient_id"]) == {str(500 + n) for n in range(12)}


def test_years_that_are_in_one_class_each_may_be_people(tmp_path: Path) -> None:
    people = touch(
        tmp_path / "a", *(f"{'ill' if n < 2005 else 'well'}/{n}/{k}.png" for n in range(2001, 2010) for k in "ab")
    )
    assert len(groups(open_dataset(people))) == 9
    years = touch(
        tmp_path / "b", *(f"{c}/{n}/{k}.png" for c in ("ill", "well") for n in (2019, 2020, 2021) for k in "ab")
    )
    assert not groups(open_dataset(years))


def test_patients_of_masks_alone_are_not_dropped(tmp_path: Path) -> None:
    touch(tmp_path, *(f"P{n}/{k}{'_seg' if n < 3 else ''}.png" for n in range(1, 5) for k in range(3)))
    assert len(open_dataset(tmp_path, layout="patient-folders")) == 12
