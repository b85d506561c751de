"""Published data sets in miniature, laid out as their publishers lay them out, recognised from the folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from listed_files import noted, rows, touch, write
from msmae.data.splits import assign_splits
from msmae.data.tables.layouts import open_dataset
from msmae.data.tables.published.medmnist import CLASS_NAMES
from msmae.data.understood import understand
from msmae.errors import UserError


def test_busi(tmp_path):
    folder = "Dataset_BUSI_with_GT"
    touch(tmp_path, *(f"{folder}/benign/benign ({n}){end}.png" for n in (1, 2) for end in ("", "_mask")))
    touch(tmp_path, f"{folder}/benign/benign (2)_mask_1.png", f"{folder}/benign/benign (9)_mask.png")
    touch(tmp_path, f"{folder}/malignant/malignant (1).png", f"{folder}/malignant/malignant (1)_mask.png")
    touch(tmp_path, f"{folder}/normal/normal (1).png", f"{folder}/normal/normal (1)_mask.png")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "busi"
    assert "files named like 'benign (1).png'" in manifest.notes[0]
    assert rows(manifest, "image_path", "label") == [
        (f"{folder}/benign/benign (1).png", "benign"),
        (f"{folder}/benign/benign (2).png", "benign"),
        (f"{folder}/malignant/malignant (1).png", "malignant"),
        (f"{folder}/normal/normal (1).png", "normal"),
    ]
    assert [path.name for path in manifest.mask_paths(1)] == ["benign (2)_mask.png", "benign (2)_mask_1.png"]
    assert noted(manifest, "1 mask left out, without an image")


HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def make_ham(root: Path, table: str = "HAM10000_metadata.csv", delimiter: str = ",") -> Path:
    lines = ["L1,I1,mel,histo,80.0,male,back", "L1,I2,mel,histo,80.0,male,back", "L2,I3,nv,consensus,,female,face"]
    write(root, table, *(line.replace(",", delimiter) for line in [HAM, *lines]))
    touch(root, "HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_1/I2.jpg", "HAM10000_images_part_2/I3.jpg")
    return touch(root, "HAM10000_segmentations_lesion_tschandl/I1_segmentation.png")


@pytest.mark.parametrize(
    ("table", "delimiter"),
    [("HAM10000_metadata.csv", ","), ("HAM10000_metadata", ","), ("HAM10000_metadata.tab", "\t")],
)
def test_ham10000(table, delimiter, tmp_path):
    manifest = open_dataset(make_ham(tmp_path, table, delimiter))
    assert manifest.layout == "ham10000"
    assert rows(manifest, "image_path", "label", "patient_id", "age", "localization") == [
        ("HAM10000_images_part_1/I1.jpg", "mel", "L1", "80.0", "back"),
        ("HAM10000_images_part_1/I2.jpg", "mel", "L1", "80.0", "back"),
        ("HAM10000_images_part_2/I3.jpg", "nv", "L2", "", "face"),
    ]
    assert manifest.mask_paths(0) == [tmp_path / "HAM10000_segmentations_lesion_tschandl/I1_segmentation.png"]
    assert manifest.mask_paths(1) == []
    assert noted(manifest, "lesion_id as patient_id: 2 lesions")


def test_ham10000_says_what_it_left_out(tmp_path):
    make_ham(tmp_path)
    touch(tmp_path, "ham10000_images_part_1/I1.jpg", "test/I9.jpg")  # Kaggle ships the first folder twice
    (tmp_path / "HAM10000_images_part_2/I3.jpg").unlink()
    manifest = open_dataset(tmp_path)
    assert len(manifest) == 2
    assert noted(manifest, "1 row left out, of HAM10000_metadata.csv, without an image here")
    assert noted(manifest, "1 image left out, not in HAM10000_metadata.csv")
    assert noted(manifest, "1 image left out, of the same name as another")


def test_ham10000_on_real_data(real_data):
    manifest = open_dataset(real_data / "ham10000")
    assert manifest.layout == "ham10000"
    assert len(manifest) == 10015
    assert manifest.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert manifest.table["patient_id"].nunique() == 7470
    assert all(manifest.table["mask_path"])
    assert manifest.path(10014).is_file()
    assert manifest.mask_paths(10014)[0].is_file()
    assert manifest.path(7).stem in manifest.mask_paths(7)[0].stem


def test_chestxray2017_as_kaggle_ships_it(tmp_path):
    inside = "chest_xray"
    files = [
        *("train/PNEUMONIA/person108_virus_201.jpeg", "train/PNEUMONIA/person12_bacteria_46.jpeg"),
        *("train/PNEUMONIA/person12_bacteria_48.jpeg", "train/NORMAL/IM-0115-0001.jpeg"),
        *("train/NORMAL/NORMAL2-IM-0278-0001.jpeg", "train/NORMAL/IM-0131-0001-0002.jpeg"),
        *("test/PNEUMONIA/person108_bacteria_504.jpeg", "test/NORMAL/IM-0001-0001.jpeg"),
        *("val/PNEUMONIA/person1946_bacteria_4874.jpeg", "val/NORMAL/NORMAL2-IM-1427-0001.jpeg"),
    ]
    files += [f"train/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(500, 515)]
    touch(tmp_path, *(f"{inside}/{name}" for name in files), *(f"{inside}/{inside}/{name}" for name in files))
    touch(tmp_path, f"__MACOSX/{inside}/train/NORMAL/._IM-0115-0001.jpeg")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "chestxray2017"
    assert len(manifest) == len(files)
    assert noted(manifest, f"{len(files)} images left out, the archive's second copy")
    by_name = manifest.table.set_index(manifest.table["image_path"].str.rpartition("/")[2])
    assert (
        by_name.loc["person12_bacteria_46.jpeg", "patient_id"] == by_name.loc["person12_bacteria_48.jpeg", "patient_id"]
    )
    assert (
        by_name.loc["person108_virus_201.jpeg", "patient_id"]
        == by_name.loc["person108_bacteria_504.jpeg", "patient_id"]
        == "person108"
    )
    assert by_name.loc["IM-0131-0001-0002.jpeg", "patient_id"] == "normal-IM-0131"
    assert list(by_name.loc[["person108_virus_201.jpeg", "IM-0115-0001.jpeg"], "pathogen"]) == ["virus", ""]
    assert "one child, with bacteria or a virus" in understand(manifest).about("patients")[0].said
    assert set(manifest.table["split"]) == {"train", "test"}
    assert noted(manifest, "2 validation images joined training")
    inner = open_dataset(tmp_path / inside)
    assert len(inner) == len(files)


def test_chestxray2017_as_its_publisher_ships_it(tmp_path):
    touch(tmp_path, "train/NORMAL/NORMAL-28501-0001.jpeg", "train/PNEUMONIA/BACTERIA-1008087-0001.jpeg")
    touch(tmp_path, "train/PNEUMONIA/BACTERIA-1008087-0002.jpeg", "test/PNEUMONIA/VIRUS-1980593-0001.jpeg")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "chestxray2017"
    assert rows(manifest, "label", "split", "patient_id", "pathogen") == [
        ("PNEUMONIA", "test", "virus-1980593", "virus"),
        ("NORMAL", "train", "normal-28501", ""),
        ("PNEUMONIA", "train", "bacteria-1008087", "bacteria"),
        ("PNEUMONIA", "train", "bacteria-1008087", "bacteria"),
    ]


def make_messidor(root: Path) -> Path:
    touch(root, "IMAGES/20051020_1_0100_PP.png", "IMAGES/20051020_2_0100_PP.png", "IMAGES/IM1.JPG", "IMAGES/IM2.JPG")
    lines = [
        "20051020_1_0100_PP.png,0,0,1",
        "IM1.jpg,2.0,1,1",
        "20051020_2_0100_PP.png,,,0",
        "IM2.jpg,4,0,1",
        "IM3.jpg,1,0,1",
    ]
    write(root, "messidor_data.csv", "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable", *lines)
    return root


def test_messidor2(tmp_path):
    make_messidor(tmp_path)
    write(tmp_path, "messidor-2.csv", "left;right", "20051020_1_0100_PP.png;20051020_2_0100_PP.png", "IM1.JPG;IM2.JPG")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "messidor2"
    assert rows(manifest, "image_path", "label", "patient_id", "adjudicated_dme") == [
        ("IMAGES/20051020_1_0100_PP.png", "0", "patient0001", "0"),
        ("IMAGES/IM1.JPG", "2", "patient0002", "1"),
        ("IMAGES/IM2.JPG", "4", "patient0002", "0"),
    ]
    assert noted(manifest, "1 image left out, not gradable")
    assert noted(manifest, "1 row left out, of messidor_data.csv, without an image here")
    assert noted(manifest, "both eyes of a patient by messidor-2.csv")


def test_messidor2_without_the_list_of_pairs_says_that_it_guesses(tmp_path):
    write(make_messidor(tmp_path), "messidor_readme.txt", "words")
    manifest = open_dataset(tmp_path)
    assert list(manifest.table["patient_id"]) == ["patient0001", "patient0002", "patient0002"]
    assert noted(manifest, "messidor-2.csv is not here: neighbours by name taken for the two eyes")


DEEPLESION = (
    "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Bounding_boxes,Coarse_lesion_type,Possibly_noisy,"
    "DICOM_windows,Patient_gender,Patient_age,Train_Val_Test"
)


@pytest.mark.parametrize("pattern", ["Images_png/{series}/{slice}.png", "Key_slices/{series}_{slice}.png"])
def test_deeplesion(pattern, tmp_path):
    lines = [
        '000001_01_01_109.png,1,1,1,109,"10, 20, 30, 40",3,0,"-175, 275",F,62,3',
        '000001_01_01_109.png,1,1,1,109,"11, 21, 31, 41",3,0,"-175, 275",F,62,3',
        '000001_01_01_110.png,1,1,1,110,"1, 2, 3, 4",3,1,"-175, 275",F,62,3',
        '000001_01_01_110.png,1,1,1,110,"1, 2, 3, 4",5,0,"-175, 275",F,62,3',
        '000002_03_01_009.png,2,3,1,9,"1, 2, 3, 4",-1,0,"-1500, 500",M,,1',
        '000009_01_01_001.png,9,1,1,1,"1, 2, 3, 4",8,0,"-1500, 500",M,,2',
    ]
    write(tmp_path, "DL_info.csv", DEEPLESION, *lines)
    for series, slice_ in (("000001_01_01", "109"), ("000001_01_01", "110"), ("000002_03_01", "009")):
        touch(tmp_path, pattern.format(series=series, slice=slice_))
    touch(tmp_path, "Images_png/000001_01_01/108.png")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "deeplesion"
    assert rows(manifest, "label", "patient_id", "published_split", "window", "intensity_offset", "possibly_noisy") == [
        ("mediastinum", "000001", "test", "-175,275", "-32768", "0"),
        ("", "000001", "test", "-175,275", "-32768", "1"),
        ("", "000002", "train", "-1500,500", "-32768", "0"),
    ]
    assert manifest.table.at[0, "bounding_boxes"] == "10,20,30,40;11,21,31,41"
    assert manifest.path(0) == tmp_path / pattern.format(series="000001_01_01", slice="109")
    assert set(manifest.table["split"]) == {""}
    assert noted(manifest, "1 slice without label, with lesions of several types")
    assert noted(manifest, "1 lesion left out, of DL_info.csv, without an image here")
    assert noted(manifest, "1 image left out, no key slice")


@pytest.mark.parametrize(
    ("layout", "classes"),
    [
        ("brain-tumor-classification", ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")),
        ("brain-tumor-dataset", ("glioma", "meningioma", "notumor", "pituitary")),
    ],
)
def test_brain_tumour_sets(layout, classes, tmp_path):
    touch(
        tmp_path,
        *(f"{part}/{name}/Te-{name}_{n}.jpg" for part in ("Training", "Testing") for name in classes for n in (1, 2)),
    )
    manifest = open_dataset(tmp_path)
    assert manifest.layout == layout
    assert manifest.classes == classes
    assert (len(manifest.ids("train")), len(manifest.ids("test"))) == (8, 8)
    assert noted(manifest, "no patients are published")


def test_nnunet(tmp_path):
    for case in ("BRATS_001", "BRATS_002"):
        touch(tmp_path, *(f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(2)), f"labelsTr/{case}.nii.gz")
    touch(tmp_path, "imagesTs/BRATS_003_0000.nii.gz", "imagesTs/BRATS_003_0001.nii.gz", "labelsTs/BRATS_003.nii.gz")
    touch(tmp_path, "imagesTs/BRATS_004_0000.nii.gz", "imagesTs/BRATS_004_0001.nii.gz", "dataset.json")
    manifest = open_dataset(tmp_path)
    assert manifest.layout == "nnunet"
    assert rows(manifest, "image_path", "patient_id", "split", "mask_path") == [
        ("imagesTr/BRATS_001_0000.nii.gz", "BRATS_001", "", "labelsTr/BRATS_001.nii.gz"),
        ("imagesTr/BRATS_002_0000.nii.gz", "BRATS_002", "", "labelsTr/BRATS_002.nii.gz"),
        ("imagesTs/BRATS_003_0000.nii.gz", "BRATS_003", "test", "labelsTs/BRATS_003.nii.gz"),
        ("imagesTs/BRATS_004_0000.nii.gz", "BRATS_004", "", ""),
    ]
    assert noted(manifest, "2 channels a case, of which only the first")
    cut = assign_splits(manifest)
    assert list(cut.table["split"][2:]) == ["test", "train"]
    assert sorted(cut.table["split"][:2]) == ["train", "val"]


def test_nnunet_names_cases_without_label_map(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.png", "imagesTr/b_0000.png", "labelsTr/a.png")
    with pytest.raises(UserError, match="1 case of imagesTr without label map: b"):
        open_dataset(tmp_path)


def save_medmnist(path: Path, labels: np.ndarray, *, shape: tuple[int, ...] = (28, 28), number: int = 4) -> Path:
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.zeros((number, *shape), np.uint8)
        arrays[f"{split}_labels"] = labels
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("name", sorted(CLASS_NAMES))
@pytest.mark.parametrize("size", ["", "_64"])
def test_medmnist_classes_carry_their_names(name, size, tmp_path):
    names = CLASS_NAMES[name]
    labels = (
        np.eye(len(names), dtype=np.uint8) if name == "chestmnist" else np.arange(len(names), dtype=np.uint8)[:, None]
    )
    manifest = open_dataset(save_medmnist(tmp_path / f"{name}{size}.npz", labels, number=len(names)))
    assert manifest.layout == "medmnist"
    if name != "chestmnist":
        assert tuple(manifest.table["label"][: len(names)]) == names
    assert manifest.table.at[1, "image_path"] == f"{name}{size}.npz#train/1"
    assert list(manifest.ids("val")) == list(range(len(names), 2 * len(names)))


def test_rows_of_an_archive_are_no_dicom(tmp_path):
    save_medmnist(tmp_path / "pneumoniamnist.npz", np.array([[0], [1], [0], [1]]))
    notes = open_dataset(tmp_path / "pneumoniamnist.npz").notes
    assert not any("DICOM" in note for note in notes)


def test_medmnist_several_labels(tmp_path):
    labels = np.zeros((4, 14), np.uint8)
    labels[0, [0, 13]] = labels[1, 3] = 1
    manifest = open_dataset(save_medmnist(tmp_path / "chestmnist_224.npz", labels, shape=(224, 224)))
    assert manifest.multilabel
    assert list(manifest.table["label"][:3]) == ["atelectasis;hernia", "infiltration", ";"]
    assert manifest.targets()[:4].sum(axis=1).tolist() == [2, 1, 0, 0]


def test_medmnist_grades_are_in_order(tmp_path):
    labels = np.array([[4], [0], [2], [1]], np.uint8)
    manifest = open_dataset(save_medmnist(tmp_path / "retinamnist.npz", labels, shape=(28, 28, 3)))
    assert manifest.classes == ("0", "1", "2", "4")
    assert manifest.targets()[:4].tolist() == [3, 0, 2, 1]


def test_a_folder_that_only_holds_an_archive(real_data):
    manifest = open_dataset(real_data / "pneumoniamnist")
    assert manifest.layout == "medmnist"
    assert manifest.classes == ("normal", "pneumonia")
    assert [len(manifest.ids(split)) for split in ("train", "val", "test")] == [4708, 524, 624]
    assert manifest.path(17) == real_data / "pneumoniamnist" / "pneumoniamnist.npz#train/17"


def test_archives_that_are_not_medmnist(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros(3))
    with pytest.raises(UserError, match="this archive holds images"):
        open_dataset(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"train_images is \[4, 28, 28, 28\], not a stack of 2-D images"):
        open_dataset(save_medmnist(tmp_path / "organmnist3d.npz", np.zeros((4, 1), np.uint8), shape=(28, 28, 28)))
    with pytest.raises(UserError, match="4 train images, but 3 labels"):
        open_dataset(save_medmnist(tmp_path / "x.npz", np.zeros((3, 1), np.uint8)))
    with pytest.raises(UserError, match="labels are float64"):
        open_dataset(save_medmnist(tmp_path / "x.npz", np.zeros((4, 1))))
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 cut short")
    with pytest.raises(UserError, match=r"\.npz archive cannot be read"):
        open_dataset(tmp_path / "x.npz")


@pytest.mark.parametrize("layout", ["ham10000", "messidor2", "deeplesion", "nnunet", "imagefolder", "csv"])
def test_a_layout_that_the_folder_does_not_have(layout, tmp_path):
    with pytest.raises(UserError, match=r"is not here|no case_0000|no metadata\.csv|is a file"):
        open_dataset(touch(tmp_path, "a/1.png", "b/2.png"), layout=layout)


@pytest.mark.parametrize(("layout", "images"), [("folder", 4), ("unlabelled", 4)])
def test_a_layout_can_be_forced(layout, images, tmp_path):
    manifest = open_dataset(make_ham(tmp_path), layout=layout)
    assert manifest.layout == layout
    assert manifest.notes[0] == f"read as {layout}: as told"
    assert len(manifest) == images
