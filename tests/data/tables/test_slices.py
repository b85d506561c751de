"""Volumes become slices: every one of them, or every n-th, and those of one volume stay together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from listed_files import touch
from msmae.config import DatasetSettings, Settings
from msmae.data.manifest import Manifest
from msmae.data.opening import open_data
from msmae.data.reading.images import Plane, read_image
from msmae.data.splits import assign_splits
from msmae.data.tables.layouts import open_dataset
from msmae.data.tables.slices import expand_slices
from msmae.data.understood import understand
from msmae.errors import UserError


def save_volume(path: Path, values: np.ndarray) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.fixture
def volumes(tmp_path):
    for case in range(4):
        values = np.zeros((4, 6, 10), np.int16) + np.arange(10, dtype=np.int16)  # the value is the axial index
        save_volume(tmp_path / "imagesTr" / f"case{case}_0000.nii.gz", values)
        save_volume(tmp_path / "labelsTr" / f"case{case}.nii.gz", (values > 4).astype(np.uint8))
    return open_dataset(tmp_path)


def test_every_slice_of_an_axis(volumes):
    for name, axis, number in (("sagittal", "0", 4), ("coronal", "1", 6), ("axial", "2", 10)):
        cut = expand_slices(volumes, slices=name)
        assert len(cut) == 4 * number
        assert set(cut.table["axis"]) == {axis}
        assert list(cut.table["index"][:number]) == [str(index) for index in range(number)]
    assert cut.notes[-1] == "4 volumes cut into 40 slices (axial)"
    row = cut.table.loc[17]
    pixels = read_image(cut.path(17), plane=Plane(axis=int(row["axis"]), index=int(row["index"])))
    assert set(pixels.ravel()) == {7}


@pytest.mark.parametrize(("step", "indices"), [(3, ["1", "4", "7"]), (5, ["2", "7"]), (40, ["9"])])
def test_every_nth_slice_lies_in_the_middle(step, indices, volumes):
    assert list(expand_slices(volumes, slices=f"axial:{step}").table["index"]) == indices * 4


def test_slices_of_a_volume_stay_together(volumes):
    cut = assign_splits(expand_slices(volumes.with_columns({"patient_id": [""] * 4}), slices="axial"))
    assert cut.table["patient_id"].nunique() == 4
    assert (cut.table.groupby("patient_id")["split"].nunique() == 1).all()


def test_other_images_and_chosen_slices_stay(tmp_path):
    save_volume(tmp_path / "v.nii", np.zeros((4, 5, 6)))
    (tmp_path / "p.png").touch()
    save_volume(tmp_path / "w.nii", np.zeros((4, 5, 1)))
    (tmp_path / "m.csv").write_text("image_path,label,axis,index\nv.nii,a,2,3\np.png,b,,\nw.nii,a,,\n")
    cut = expand_slices(open_dataset(tmp_path / "m.csv"), slices="axial")
    assert list(cut.table["index"]) == ["3", "", "0"]
    (tmp_path / "m.csv").write_text("image_path,label,axis,index\nv.nii,a,2,3\np.png,b,,\n")
    with pytest.raises(UserError, match="--slices axial has no effect"):
        expand_slices(open_dataset(tmp_path / "m.csv"), slices="axial")


@pytest.mark.parametrize(("folders", "patients"), [(("P1", "P2"), 2), (("AD", "CN"), 2)])
def test_volumes_of_one_name_in_two_folders_are_two_patients(folders, patients, tmp_path):
    for folder in folders:
        (tmp_path / folder).mkdir()
        save_volume(tmp_path / folder / "T1w.nii.gz", np.zeros((3, 3, 2)))
    cut = expand_slices(open_dataset(tmp_path), slices="axial")
    assert cut.table["patient_id"].nunique() == patients


def test_frames_of_a_series_of_volumes(tmp_path):
    save_volume(tmp_path / "v.nii", np.zeros((4, 5, 6, 2)))
    cut = expand_slices(open_dataset(tmp_path), slices="coronal")
    assert len(cut) == 10
    assert list(cut.table["frame"]) == ["0"] * 5 + ["1"] * 5


@pytest.mark.parametrize("slices", ["", "oblique", "axial:", "axial:0", "axial:-1", "axial:x", "2"])
def test_other_words_are_refused(slices, volumes):
    with pytest.raises(UserError, match="is not known: say sagittal, coronal, axial"):
        expand_slices(volumes, slices=slices)


def read(root: Path, **chosen: str) -> Manifest:
    return open_data(root, Settings(dataset=DatasetSettings(**chosen)))  # type: ignore[arg-type]


def channels(manifest: Manifest) -> str:
    (fact,) = understand(manifest).about("channels")
    assert fact.option.startswith("--image-column")
    return fact.said


@pytest.mark.parametrize("folder", ["{case}/", ""])
def test_the_channel_that_is_meant_of_a_file_a_channel(folder: str, tmp_path: Path) -> None:
    cases = [f"BraTS20_Training_{n:03}" for n in (1, 2, 3)]
    touch(tmp_path, *(f"{folder.format(case=c)}{c}_{end}.nii.gz" for c in cases for end in ("flair", "t1ce", "seg")))
    every, one = read(tmp_path), read(tmp_path, image_column="t1ce")
    assert [len(every), len(one)] == [6, 3]
    assert [m.table["patient_id"].nunique() for m in (every, one)] == [3, 3]
    assert all("_t1ce" in path for path in one.table["image_path"])
    assert all(mask.endswith("_seg.nii.gz") for mask in one.table["mask_path"])
    assert channels(every).startswith("flair, t1ce")
    assert channels(one) == "t1ce, as told"
    with pytest.raises(UserError, match="has no effect"):
        read(tmp_path, image_column="t3")


def test_the_channel_that_is_meant_of_4d_volumes_and_of_nnunet(tmp_path: Path) -> None:
    for n in (1, 2):
        save_volume(tmp_path / f"msd/imagesTr/BRATS_{n:03}.nii.gz", np.zeros((4, 4, 3, 2)))
        save_volume(tmp_path / f"msd/labelsTr/BRATS_{n:03}.nii.gz", np.zeros((4, 4, 3)))
        touch(tmp_path / "nnunet", *(f"imagesTr/la_{n:03}_{k:04}.nii.gz" for k in (0, 1)), f"labelsTr/la_{n:03}.nii.gz")
    every, one = (read(tmp_path / "msd", slices="axial", **told) for told in ({}, {"image_column": "1"}))
    assert [len(every), len(one), set(one.table["frame"])] == [12, 6, {"1"}]
    assert "each an image of its own" in channels(every)
    assert channels(one).endswith("1, as told")
    with pytest.raises(UserError, match="there is no channel 7"):
        read(tmp_path / "msd", slices="axial", image_column="7")
    first, second = read(tmp_path / "nnunet"), read(tmp_path / "nnunet", image_column="1")
    assert [m.table["image_path"][0][-11:-7] for m in (first, second)] == ["0000", "0001"]
    with pytest.raises(UserError, match="2 cases without channel 0004"):
        read(tmp_path / "nnunet", image_column="4")
