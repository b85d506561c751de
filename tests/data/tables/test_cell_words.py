"""What the cells of other people's tables mean: words for nothing, signs between labels, ids, columns of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from listed_files import rows, touch
from msmae.data.reading.headers import without_anonymous
from msmae.data.tables.layouts import open_dataset
from msmae.data.understood import understand
from msmae.errors import UserError


@pytest.mark.parametrize("word", ["nan", "None", "NA", "null", "  ", "<NA>"])
def test_words_for_nothing_are_empty_cells_and_counted(word: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(6)))
    lines = [f"{n}.png,{'ab'[n % 2]},{word if n % 2 else f'p{n}'},{word},{word},{word}" for n in range(6)]
    (tmp_path / "m.csv").write_text("\n".join(["image_path,label,patient_id,split,mask_path,site", *lines]))
    manifest = open_dataset(tmp_path / "m.csv")
    assert sorted(set(manifest.table["patient_id"])) == ["", "p0", "p2", "p4"]
    for column in ("split", "mask_path", "site"):
        assert not manifest.table[column].any()
    if word.strip():
        assert any(f"3 cells of the patient_id read as empty ('{word}')" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("labels", "classes", "sign"),
    [
        (["Effusion|Mass", "Mass", "No Finding"], ("Effusion", "Mass"), "'|'"),
        (["a, b", "a", "b"], ("a", "b"), "','"),
        (["a+b", "a", "b"], ("a", "b"), "'+'"),
        (["mild, early", "severe", "none"], ("mild, early", "none", "severe"), ""),
        (["HER2+", "HER2-", "x"], ("HER2+", "HER2-", "x"), ""),
    ],
)
def test_other_signs_between_labels_are_recognised_and_said(
    labels: list[str], classes: tuple[str, ...], sign: str, tmp_path: Path
) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(3)))
    lines = "\n".join(f'{n}.png;"{label}"' for n, label in enumerate(labels))
    (tmp_path / "m.csv").write_text(f"image_path;label\n{lines}\n")
    manifest = open_dataset(tmp_path / "m.csv")
    assert manifest.classes == classes
    assert manifest.multilabel == bool(sign)
    assert any("joins several labels" in note and sign in note for note in manifest.notes) == bool(sign)


def test_patients_that_are_nobody(tmp_path: Path) -> None:
    studies = [f"s{n}" for n in range(6)]
    assert without_anonymous(["ANONYMOUS"] * 6, studies) == [f"study {study}" for study in studies]
    assert without_anonymous(["Anon^Patient", "0000", "XXXX"], ["", "", ""]) == ["", "", ""]
    assert without_anonymous(["X17"] * 6, studies) == [f"study {study}" for study in studies]
    for names in (["10", "100", "Annona", "testa"], ["ANON001", "ANON002", "ANON003", "ANON004"]):
        assert without_anonymous(names, studies[:4]) == names
    assert without_anonymous(["A", "A", "B", "C"], ["s0", "s1", "s2", "s3"]) == ["A", "A", "B", "C"]


def test_ids_without_suffix_or_folder_find_their_files(tmp_path: Path) -> None:
    touch(tmp_path, "images_001/images/00000001_000.png", "images_002/images/00000002_000.png", "train/0a1b.jpg")
    text = "id,label\n00000001_000.png,a\n00000002_000.png,b\n0a1b,a\n"
    (tmp_path / "m.csv").write_text(text)
    manifest = open_dataset(tmp_path / "m.csv", image_column="id")
    assert [path for (path,) in rows(manifest, "image_path")] == [
        *("images_001/images/00000001_000.png", "images_002/images/00000002_000.png", "train/0a1b.jpg")
    ]
    assert any("3 paths without suffix or folder, found by name" in note for note in manifest.notes)


@pytest.mark.parametrize("cell", ["C:\\data\\Scan1.png", "scan1.PNG", "SCAN1.png"])
def test_a_file_that_is_not_there_names_the_one_that_is(cell: str, tmp_path: Path) -> None:
    touch(tmp_path, "imgs/Scan1.png", "imgs/b.png")
    (tmp_path / "m.csv").write_text(f"image_path,label\n{cell},a\nimgs/b.png,b\n")
    with pytest.raises(UserError, match=r"1 file missing: .*a file of this name is imgs/Scan1\.png"):
        open_dataset(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("cell", "there", "offered"),
    [
        ("imgs/scan_01.png", "imgs/scan_1.png", "did you mean imgs/scan_1.png?"),
        ("./imgs/scan.jpg", "imgs/scan.png", "did you mean imgs/scan.png?"),
        ("imgs/scan_01.png", "other/scan_1.png", ""),
        ("imgs/scan.jpg", "other/scan.png", ""),
        ("one/scan.png", "two/scan.png three/scan.png", ""),
    ],
)
def test_a_similar_name_is_offered_in_the_same_folder_only(cell: str, there: str, offered: str, tmp_path: Path) -> None:
    touch(tmp_path, *there.split(), "imgs/far.png")
    (tmp_path / "m.csv").write_text(f"image_path,label\n{cell},a\nimgs/far.png,b\n")
    with pytest.raises(UserError, match="1 file missing") as caught:
        open_dataset(tmp_path / "m.csv")
    said = str(caught.value)
    assert offered in said
    assert offered or not any(path in said for path in there.split())


def test_two_files_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "m.csv").write_text("image_path,label\n1.png,a\n")
    with pytest.raises(UserError, match="1 file missing"):
        open_dataset(tmp_path / "m.csv")


def test_columns_of_the_users_own_choose_no_plane(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "v.nii")
    (tmp_path / "m.csv").write_text(
        "image_path,label,index,frame,window,axis\n1.png,a,0,2.0,lung,x\n2.png,b,1,3.0,,y\n"
    )
    manifest = open_dataset(tmp_path / "m.csv")
    assert rows(manifest, "index_in_file", "frame_in_file", "window_in_file") == [
        ("0", "2.0", "lung"),
        ("1", "3.0", ""),
    ]
    assert not {"index", "frame", "window", "axis"} & set(manifest.table.columns)
    (tmp_path / "m.csv").write_text("image_path,label,index\n1.png,a,0\n1.png,b,1\n")
    with pytest.raises(UserError, match="1 image with several rows that differ"):
        open_dataset(tmp_path / "m.csv")


def test_excels_first_line_and_its_empty_columns(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    (tmp_path / "m.csv").write_text("sep=;\nimage_path;label;;\n1.png;a;;\n2.png;b;;\n")
    assert rows(open_dataset(tmp_path / "m.csv"), "image_path", "label") == [("1.png", "a"), ("2.png", "b")]
    (tmp_path / "m.csv").write_text("image_path;label;;\n1.png;a;;x\n2.png;b;;\n")
    with pytest.raises(UserError, match="columns of the same name"):
        open_dataset(tmp_path / "m.csv")


def archive(path: Path, labels: np.ndarray, **more: np.ndarray) -> Path:
    images = np.zeros((len(labels), 8, 8), np.uint8)
    np.savez_compressed(path, train_images=images, train_labels=labels, **more)
    return path


def test_labels_of_an_archive(tmp_path: Path) -> None:
    manifest = open_dataset(archive(tmp_path / "a.npz", np.array([0, 1, -1, 2])))
    assert list(manifest.table["label"]) == ["0", "1", "", "2"]
    assert any("1 image with the label -1: taken for unlabelled" in note for note in manifest.notes)
    one_hot = open_dataset(archive(tmp_path / "b.npz", np.eye(3, dtype=np.int64)))
    assert (one_hot.multilabel, one_hot.classes) == (False, ("0", "1", "2"))
    assert any("one-hot" in note for note in one_hot.notes)
    several = open_dataset(archive(tmp_path / "c.npz", np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]])))
    assert list(several.table["label"]) == ["1;2", ";", "0"]
    for labels, message in (
        (np.array(["a", "b"], dtype=object), "train_labels holds Python objects"),
        (np.array([0, -7]), "there is a label -7"),
        (np.array([[0, 2], [1, 1]]), "more than 0 and 1"),
        (np.array([0.5, 1.0]), "not class numbers"),
    ):
        with pytest.raises(UserError, match=message):
            open_dataset(archive(tmp_path / "d.npz", labels))


def test_one_damaged_byte_in_an_archive_is_a_sentence(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.npz", np.arange(400) % 7).read_bytes()
    outcomes = set()
    for at in range(30, len(whole), 11):
        (tmp_path / "b.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            outcomes.add(len(open_dataset(tmp_path / "b.npz")))
        except UserError:
            outcomes.add(-1)
    assert -1 in outcomes


def test_a_column_a_finding_is_offered_and_read(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(5)))
    rows_ = ["0.png,p1,1.0,0.0,0.0", "1.png,p2,0.0,1.0,1.0", "2.png,p3,-1.0,0.0,1.0", "3.png,p4,,,", "4.png,p5,0,0,0"]
    (tmp_path / "m.csv").write_text("\n".join(["image_path,patient_id,Edema,Mass,Nodule", *rows_]))
    with pytest.raises(UserError, match="one column per finding: --label-column 'Edema;Mass;Nodule'"):
        open_dataset(tmp_path / "m.csv")
    manifest = open_dataset(tmp_path / "m.csv", label_column="Edema;Mass;Nodule")
    assert list(manifest.table["label"]) == ["Edema", "Mass;Nodule", "?Edema;Nodule", "", ";"]
    assert any("1 image of which no finding is known" in note for note in manifest.notes)
    with pytest.raises(UserError, match="there is no column Oedema"):
        open_dataset(tmp_path / "m.csv", label_column="Oedema;Mass")
    with pytest.raises(UserError, match=r"more than 1, 0, -1 and empty cells in patient_id"):
        open_dataset(tmp_path / "m.csv", label_column="Edema;patient_id")


def test_one_1_in_every_row_is_one_class_an_image(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(3)))
    (tmp_path / "m.csv").write_text("image,MEL,NV,BCC\n0,1.0,0.0,0.0\n1,0.0,1.0,0.0\n2,0.0,0.0,1.0\n")
    manifest = open_dataset(tmp_path / "m.csv", image_column="image", label_column="MEL;NV;BCC")
    assert (manifest.multilabel, manifest.classes) == (False, ("BCC", "MEL", "NV"))


def test_a_table_beside_the_images_is_read_or_offered(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train_images/{n}.png" for n in ("0a", "1b", "2c", "3d")))
    (tmp_path / "train.csv").write_text("id_code,diagnosis\n0a,0\n1b,2\n2c,0\n3d,2\n")
    manifest = open_dataset(tmp_path)
    assert rows(manifest, "image_path", "label")[1] == ("train_images/1b.png", "2")
    assert manifest.rules["label"] == "the column diagnosis of train.csv"
    again = open_dataset(tmp_path / "train.csv", image_column="id_code", label_column="diagnosis")
    assert list(again.table["label"]) == list(manifest.table["label"])
    assert not open_dataset(tmp_path, layout="unlabelled").classes
    (tmp_path / "train.csv").write_text("id_code,shade\n0a,0\n1b,2\n2c,0\n3d,7\n")
    with pytest.raises(UserError, match=r"train\.csv names the images.*--label-column"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, label_column="shade").classes == ("0", "2", "7")


def test_hugging_faces_lines_are_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "label": 3}\n{"file_name": "2.png", "label": 4}\n')
    manifest = open_dataset(tmp_path)
    assert (manifest.layout, manifest.classes) == ("imagefolder", ("3", "4"))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "label": 3}\n[1]\n')
    with pytest.raises(UserError, match="line 2 is no JSON object"):
        open_dataset(tmp_path)


def test_a_list_of_test_images_without_labels_is_said_and_no_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n}.png" for n in range(12)))
    lines = "\n".join(f"{n}.png,{'ab'[n % 2]}" for n in range(8))
    (tmp_path / "train.csv").write_text(f"image,label\n{lines}\n")
    (tmp_path / "test.csv").write_text("image\n" + "\n".join(f"{n}.png" for n in range(8, 12)) + "\n")
    manifest = open_dataset(tmp_path)
    assert not manifest.table["split"].any()
    (splits,) = understand(manifest).about("splits")
    assert splits.said == "none given by the lists test.csv (test without a label, for pre-training)"
