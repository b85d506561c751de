"""Tables beside images, and tables given as data, as a new user has them: read as meant, named, or refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from listed_files import noted, rows, touch, write
from msmae.config import DatasetSettings, Settings
from msmae.data.opening import open_data
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError


def test_a_spreadsheet_is_named_with_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(4)), "labels.xlsx")
    assert noted(open_dataset(tmp_path), "save labels.xlsx as CSV")
    with pytest.raises(UserError, match=r"this is a spreadsheet.*save the sheet as CSV"):
        open_dataset(tmp_path / "labels.xlsx")


def test_all_masks_of_an_image_are_kept_and_none_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path, *(f"img/{n}.png" for n in range(4)), *(f"found/{n}-{k}.png" for n in range(4) for k in range(2)))
    lines = [f"{n}.png,{n}-{k}.png,{'ab'[n % 2]}" for n in range(4) for k in range(2)]
    write(tmp_path, "t.csv", "image,lesion_mask,label", *lines)
    manifest = open_dataset(tmp_path)
    assert manifest.table["image_path"].tolist() == [f"img/{n}.png" for n in range(4)]
    assert manifest.table["mask_path"].tolist() == [f"found/{n}-0.png;found/{n}-1.png" for n in range(4)]
    assert manifest.table["label"].tolist() == [*"abab"]


def test_tables_with_the_same_column_of_labels_are_one_source(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n}.png" for n in range(6)))
    write(tmp_path, "a.csv", "file,label,site", *(f"{n}.png,{'ab'[n % 2]},x" for n in range(6)))
    write(tmp_path, "b.csv", "file,label,age", *(f"{n}.png,{'ab'[n % 2]},{40 + n}" for n in range(6)))
    assert open_dataset(tmp_path).table["label"].tolist() == [*"ababab"]
    write(tmp_path, "b.csv", "file,label,age", *(f"{n}.png,{'ba'[n % 2]},{40 + n}" for n in range(6)))
    with pytest.raises(UserError, match="6 images with several rows that differ in label"):
        open_dataset(tmp_path)
    write(tmp_path, "b.csv", "file,diagnosis", *(f"{n}.png,{'ab'[n % 2]}" for n in range(6)))
    with pytest.raises(UserError, match="--label-column 'diagnosis'"):  # 'label' is what is looked for untold
        open_dataset(tmp_path)


def test_a_gzipped_table_is_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "0.jpg", "1.jpg")
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(b"image_path,label\n0.jpg,a\n1.jpg,b\n"))
    assert open_dataset(tmp_path / "m.csv.gz").classes == ("a", "b")
    (tmp_path / "m.csv.gz").write_bytes((tmp_path / "m.csv.gz").read_bytes()[:-9])
    with pytest.raises(UserError, match="this table is damaged"):
        open_dataset(tmp_path / "m.csv.gz")


def test_a_window_of_modality_units_is_refused_for_files_of_eight_bits(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{n}.jpg" for c in "ab" for n in range(3)))
    with pytest.raises(UserError, match=r"--window .* has no effect: .*8 bits"):
        open_data(tmp_path, Settings(dataset=DatasetSettings(window="lung")))
    touch(tmp_path, "a/deep.png")
    assert len(open_data(tmp_path, Settings(dataset=DatasetSettings(window="lung")))) == 7


def test_a_number_names_the_file_of_that_number_zero_too(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(6)))
    write(tmp_path, "t.csv", "id,label", *(f"{n},{'ab'[n % 2]}" for n in range(6)))
    assert open_dataset(tmp_path).table["label"].tolist() == [*"ababab"]


def test_a_table_with_the_capitals_of_windows_names_its_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Scans/IMG_{n}.PNG" for n in range(6)))
    write(tmp_path, "t.csv", "file,label", *(f"scans\\img_{n}.png,{'ab'[n % 2]}" for n in range(6)))
    assert open_dataset(tmp_path).table["label"].tolist() == [*"ababab"]


def test_a_table_whose_names_several_images_have_is_told_apart_from_other_files(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(4)), "notes.docx", "labels.xlsx")
    write(tmp_path, "p.csv", "file,patient", *(f"{n}.png,p{n}" for n in range(4)))
    manifest = open_dataset(tmp_path)
    assert noted(manifest, "1 table left out, naming none of the images, or several by one name: p.csv")
    assert noted(manifest, "1 file left out, no image by name: notes.docx")


def test_a_column_that_may_hold_classes_is_offered(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(12)))
    write(tmp_path, "t.csv", "Datei,Urteil,cm", *(f"{n}.png,{('gut', 'weg')[n % 2]},{n}.5" for n in range(12)))
    with pytest.raises(UserError, match="--label-column 'Urteil'"):
        open_dataset(tmp_path)


def test_a_table_that_names_the_images_is_told_where_the_folders_may_be_two_things(tmp_path: Path) -> None:
    """Only the folders were spoken of: both ways that were offered left the labels out."""
    names = [f"2021{n:03}/{view}.png" for n in range(12) for view in ("cc", "mlo")]
    touch(tmp_path, *(f"MG/{name}" for name in names))
    lines = [f"{n // 4},MG/{name},{n % 2},{'abc'[n % 3]},{'xy'[n % 2]}" for n, name in enumerate(names)]
    write(tmp_path, "m.csv", "age,file,view,area,histology", *lines)
    with pytest.raises(UserError, match=r"m\.csv names the images, and none of .*--label-column 'histology'"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, label_column="histology").classes == ("x", "y")


def test_labels_under_another_header_in_a_second_table_are_not_left_out(tmp_path: Path) -> None:
    """The test images were said to have no label."""
    touch(tmp_path, *(f"images/{n:02}.png" for n in range(20)))
    write(tmp_path, "train.csv", "image_id,label", *(f"{n:02},{'ab'[n % 2]}" for n in range(14)))
    lines = [f"{n:02},{'ab'[n % 2]},{'MF'[n % 2]}" for n in range(14, 20)]
    write(tmp_path, "test_truth.csv", "file_name,ground_truth,sex", *lines)
    with pytest.raises(UserError, match=r"6 images without a label, .* ground_truth of test_truth\.csv has"):
        open_dataset(tmp_path)
    write(tmp_path, "test_truth.csv", "file_name,label,sex", *lines)
    assert open_dataset(tmp_path).table["label"].tolist() == ["ab"[n % 2] for n in range(20)]


def test_a_second_table_of_something_else_with_the_same_words_holds_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n:02}.png" for n in range(12)))
    write(tmp_path, "labels.csv", "image_id,label", *(f"{n:02},{n % 2}" for n in range(8)))
    write(tmp_path, "clinical.csv", "file,age,smoker", *(f"{n:02},{40 + n},{n // 2 % 2}" for n in range(12)))
    assert open_dataset(tmp_path).table["label"].tolist() == [*["0", "1"] * 4, *[""] * 4]


def test_a_table_in_a_folder_tells_of_the_images_below_it(tmp_path: Path) -> None:
    """BIDS: ``ses-01`` of sub-02's table is sub-02's. Tables of one diagnosis had been left out, and the others' rows
    had labelled everybody's visits."""
    said = {"sub-01": ("CN", "MCI"), "sub-02": ("CN", "CN"), "sub-03": ("MCI", "MCI"), "sub-04": ("AD", "AD")}
    for who, visits in said.items():
        touch(tmp_path, *(f"{who}/ses-0{n}/{who}_ses-0{n}_axial.png" for n in (1, 2)))
        write(
            tmp_path,
            f"{who}/{who}_sessions.csv",
            "session_id,diagnosis",
            *(f"ses-0{n},{visits[n - 1]}" for n in (1, 2)),
        )
    manifest = open_dataset(tmp_path)
    for path, label in rows(manifest, "image_path", "label"):
        assert label == said[path[:6]][int(path[11:13]) - 1]
    assert set(manifest.table["patient_id"]) == set(said)


def test_a_table_a_class_says_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"img/{n}.png" for n in range(12)))
    for name, first, label in (("cases", 0, "case"), ("controls", 6, "control")):
        write(tmp_path, f"{name}.csv", "image,label", *(f"{n}.png,{label}" for n in range(first, first + 6)))
    told = dict(rows(open_dataset(tmp_path), "image_path", "label"))
    assert told == {f"img/{n}.png": "case" if n < 6 else "control" for n in range(12)}


@pytest.mark.parametrize("words", [("healthy", "ill"), ("gesund", "krank"), ("Healthy", "Ill")])
@pytest.mark.parametrize("column", ["label", "diagnosis"])
def test_hospitals_with_tables_of_labels_are_no_classes_unasked(
    words: tuple[str, str], column: str, tmp_path: Path
) -> None:
    """The way out that is offered leads out: the default's name is no option."""
    for clinic, said in (("Bern", ("healthy", "ill")), ("Ulm", words)):
        touch(tmp_path, *(f"{clinic}/images/{n}.png" for n in range(8)))
        write(tmp_path, f"{clinic}/labels.csv", f"image,{column}", *(f"{n}.png,{said[n % 2]}" for n in range(8)))
    offered = r"--layout tables" if column == "label" else "--label-column 'diagnosis'"
    with pytest.raises(UserError, match=f"each of Bern, Ulm is a class; or the label is.*{offered}"):
        open_dataset(tmp_path)
    options = {"layout": "tables"} if column == "label" else {"label_column": column}
    if words == ("healthy", "ill"):
        assert open_dataset(tmp_path, **options).classes == words
    else:
        with pytest.raises(UserError, match="no label in common"):
            open_dataset(tmp_path, **options)
    assert open_dataset(tmp_path, layout="folder").classes == ("Bern", "Ulm")


@pytest.mark.parametrize(
    ("header", "image"),
    [
        ("No,filename,grade", "{:03}.png"),
        (",file,grade", "{:03}.png"),
        ("Nr,Bildnummer,grade", "{}"),
        ("index,image_id,grade", "{}"),
        ("ID,name,grade", "{:03}"),
        (",id,grade", "{}"),
    ],
)
def test_a_number_of_the_row_is_not_the_image(header: str, image: str, tmp_path: Path) -> None:
    """Row 1 of image 031.png had labelled 001.png."""
    touch(tmp_path, *(f"images/{n:03}.png" for n in range(1, 21)))
    order = [(7 * n) % 20 + 1 for n in range(20)]
    lines = (f"{n + 1},{image.format(number)},{'low' if number < 8 else 'high'}" for n, number in enumerate(order))
    write(tmp_path, "list.csv", header, *lines)
    manifest = open_dataset(tmp_path)
    for path, grade in rows(manifest, "image_path", "label"):
        assert grade == ("low" if int(path[7:10]) < 8 else "high")
    assert noted(manifest, f"images by the column {header.split(',')[1]}")


def test_two_columns_of_numbers_that_may_be_the_image_are_asked_about(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n:03}.png" for n in range(1, 21)))
    write(tmp_path, "list.csv", "sample,lesion,grade", *(f"{n + 1},{20 - n},{'ab'[n % 2]}" for n in range(20)))
    with pytest.raises(UserError, match=r"may be named by the column sample or lesion.*--image-column"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, image_column="lesion").classes) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train.csv", "test.csv"),
        ("cv/fold0_train.csv", "cv/fold1_val.csv"),
        ("splits/fold_1/train.csv", "splits/fold_2/test.csv"),
    ],
)
def test_images_that_tables_list_under_two_splits_are_refused(first: str, second: str, tmp_path: Path) -> None:
    """One of them had won, and nothing leaked any more."""
    touch(tmp_path, *(f"img/{n}.png" for n in range(20)))
    write(tmp_path, first, "image,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(14)))
    write(tmp_path, second, "image,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(12, 20)))
    with pytest.raises(UserError, match="2 images listed under several splits"):
        open_dataset(tmp_path)


def test_images_that_lists_name_under_two_splits_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{'ab'[n % 2]}/{n}.png" for n in range(20)))
    for name, numbers in (("train", range(14)), ("test", range(12, 20))):
        write(tmp_path, f"{name}.txt", *(f"{'ab'[n % 2]}/{n}.png" for n in numbers))
    with pytest.raises(UserError, match="2 images listed under several splits"):
        open_dataset(tmp_path)


def test_a_table_that_holds_the_classes_and_contradicts_the_folders_is_asked_about(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{'ab'[n % 2]}/f{n}.png" for n in range(20)))
    write(tmp_path, "pathology.csv", "file,histology", *(f"f{n}.png,{'ab'[n % 2 if n > 2 else 0]}" for n in range(20)))
    with pytest.raises(UserError, match=r"histology of pathology.csv, which says otherwise of 1 image \(a in b/\)"):
        open_dataset(tmp_path)


def test_rows_that_name_an_image_in_several_folders_are_refused(tmp_path: Path) -> None:
    """arterial/001.png and venous/001.png are of one row; the folders had been the classes, and people torn."""
    touch(tmp_path, *(f"{phase}/{n:03}.png" for phase in ("arterial", "venous") for n in range(12)))
    write(tmp_path, "labels.csv", "id,diagnosis", *(f"{n:03},{'ab'[n % 2]}" for n in range(12)))
    with pytest.raises(UserError, match=r"each row names several images.*diagnosis.*--layout folder"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, layout="folder").classes == ("arterial", "venous")


def test_what_is_called_label_is_the_label_beside_other_columns_of_few_values(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n}.png" for n in range(12)))
    write(tmp_path, "labels.csv", "image,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(12)))
    write(tmp_path, "mapping.csv", "image,pseudonym", *(f"{n}.png,X{n // 4}" for n in range(12)))
    assert open_dataset(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize("who", ["case", "patient_id"])
def test_folders_that_are_parts_of_a_patient_are_offered_with_the_patient(who: str, tmp_path: Path) -> None:
    """15 slides of ten cases had been offered as 15 patients."""
    slides = [(f"H{100 + n // 2}_{'AB'[n % 2]}1", f"H{100 + n // 2}", ("IDC", "ILC")[n // 2 % 2]) for n in range(12)]
    touch(tmp_path, *(f"tiles/{slide}/{slide}_x{n}.png" for slide, _, _ in slides for n in range(3)))
    write(tmp_path, "slides.csv", f"slide,{who},diagnosis", *(",".join(row) for row in slides))
    offered = f"--layout tables --label-column 'diagnosis' --patient-column '{who}'"
    with pytest.raises(UserError, match=offered):
        open_dataset(tmp_path)
    manifest = open_dataset(tmp_path, layout="tables", label_column="diagnosis", patient_column=who)
    assert set(manifest.table["patient_id"]) == {case for _, case, _ in slides}


def test_images_with_masks_name_the_columns_that_may_be_their_label(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/{n}.png" for kind in ("images", "masks") for n in range(12)))
    write(tmp_path, "metadata.csv", "image,histology,TIRADS", *(f"{n}.png,{'ab'[n % 2]},{n % 3}" for n in range(12)))
    assert noted(open_dataset(tmp_path), "no column of metadata.csv is known to be the label (histology, TIRADS)")
    assert open_dataset(tmp_path, label_column="histology").classes == ("a", "b")
