"""Answers as DICOM objects: they refer to their sources, say what the CSV says, and pass an independent validator."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import served_run
from PIL import Image
from pydicom.uid import generate_uid

import msmae
from msmae.data.reading.images import Reading
from msmae.errors import UserError
from msmae.evaluation.dicom_out import heat
from msmae.statistics.predictions import read_predictions

STUDY = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of random weights of this kind, made once."""
    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            made[kind] = served_run.write_run(tmp_path_factory.mktemp(kind) / "run", kind=kind, numbers="float32")
        return made[kind]

    return run


def slices(folder: Path, count: int = 2) -> list[str]:
    """CT slices of one study."""
    paths = [folder / f"{number}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(served_run.dicom(number, **STUDY, FrameOfReferenceUID="1.2.3", PixelSpacing=[1, 1],
                         ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, number],
                         SliceThickness=1))  # fmt: skip
    return [str(path) for path in paths]


def test_without_the_package_or_without_dicom_it_is_one_sentence(
    run_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from msmae.evaluation.dicom_out import check_sources

    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[dicom-out\]'"):
        msmae.predict(str(run_of("classifier")), slices(tmp_path), out=str(tmp_path / "out"), dicom=True)
    assert not (tmp_path / "out").exists()
    (tmp_path / "a.png").write_bytes(served_run.png())
    (tmp_path / "nameless.dcm").write_bytes(served_run.dicom())
    (tmp_path / "film.dcm").write_bytes(served_run.dicom(**STUDY, NumberOfFrames="2"))
    for name, said in (("a.png", "not a DICOM file"), ("nameless.dcm", "lacks Study"), ("film.dcm", "several frames")):
        with pytest.raises(UserError, match=said):
            check_sources([str(tmp_path / name)])
    one, other = slices(tmp_path)
    check_sources([one, other])
    (tmp_path / "other.dcm").write_bytes(served_run.dicom(**STUDY, PatientID=served_run.SECRETS[1] + "-2"))
    with pytest.raises(UserError, match="images of two patients") as refused:
        check_sources([one, str(tmp_path / "other.dcm")])
    assert not any(secret in str(refused.value) for secret in served_run.SECRETS)


def test_attention_is_red_over_the_grey_image(tmp_path: Path):
    Image.fromarray(np.full((40, 60), 80, np.uint8)).save(tmp_path / "a.png")
    attention = np.zeros((4, 6), np.float32)
    attention[1, 4] = 1
    picture = heat(str(tmp_path / "a.png"), attention, Reading())
    assert picture.shape == (40, 60, 3)
    red, green, _ = np.moveaxis(picture.astype(int), -1, 0)
    place = np.unravel_index((red - green).argmax(), red.shape)
    assert 10 <= place[0] < 20
    assert 40 <= place[1] < 50


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_objects_refer_to_their_sources_and_are_valid(
    kind: str, run_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
    paths, out = slices(tmp_path), tmp_path / "out"
    msmae.predict(str(run_of(kind)), paths, out=str(out), dicom=True, device="cpu")
    printed = "".join(capsys.readouterr())
    assert not any(secret in printed for secret in served_run.SECRETS)
    made = sorted((out / "dicom").iterdir())
    assert len(made) == 4
    second = "report" if kind == "classifier" else "segmentation"
    assert {path.name.split("-")[1] for path in made} == {"overlay.dcm", f"{second}.dcm"}
    for path in made:
        ds, source = pydicom.dcmread(path), pydicom.dcmread(paths[int(path.name[:5])])
        assert (ds.StudyInstanceUID, ds.PatientID) == (source.StudyInstanceUID, source.PatientID)
        assert source.SOPInstanceUID in str(ds)
        if shutil.which("dciodvfy"):
            said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False).stderr
            assert [line for line in said.splitlines() if line.startswith("Error")] == []
    table = read_predictions(out / "predictions.csv")
    other = pydicom.dcmread(out / "dicom" / f"00001-{second}.dcm")
    if kind == "classifier":
        told = {item.MeasuredValueSequence[0].NumericValue for item in numbers_of(other)}
        assert {round(float(value), 4) for value in told} == {
            round(float(table[f"prob_{name}"][1]), 4) for name in served_run.CLASSES
        }
        assert str(table["predicted"][1]) in str(other)
    else:
        segmentation = hd.seg.segread(out / "dicom" / f"00001-{second}.dcm")
        mask = np.asarray(Image.open(out / str(table["mask"][1]))) > 0
        drawn = segmentation.pixel_array.reshape(-1, *mask.shape).any(axis=0)
        assert np.array_equal(drawn, mask)
    before = {path.name: pydicom.dcmread(path).SOPInstanceUID for path in made}
    msmae.predict(str(run_of(kind)), paths, out=str(tmp_path / "again"), dicom=True, device="cpu")
    again = {path.name: pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "again" / "dicom").iterdir()}
    assert again == before


def test_a_projection_keeps_its_orientation_and_a_slice_without_a_frame_of_reference_is_refused(
    run_of: Callable[[str], Path], tmp_path: Path
):
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    for name, orientation in (("without.dcm", {}), ("with.dcm", {"PatientOrientation": ["A", "F"]})):
        film = served_run.dicom(**STUDY, Modality="CR", SOPClassUID="1.2.840.10008.5.1.4.1.1.1", **orientation)
        (tmp_path / name).write_bytes(film)
        out = tmp_path / name.removesuffix(".dcm")
        msmae.predict(str(run_of("segmenter")), [str(tmp_path / name)], out=str(out), dicom=True, device="cpu")
        for path in (out / "dicom").iterdir():
            ds = pydicom.dcmread(path)
            assert list(ds.PatientOrientation or []) == orientation.get("PatientOrientation", [])
            if shutil.which("dciodvfy"):
                said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
                assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []
    (tmp_path / "slice.dcm").write_bytes(served_run.dicom(**STUDY))
    with pytest.raises(UserError, match="lacks FrameOfReferenceUID"):
        msmae.predict(
            str(run_of("segmenter")), [str(tmp_path / "slice.dcm")], out=str(tmp_path / "x"), dicom=True, device="cpu"
        )


def numbers_of(ds: pydicom.Dataset) -> list[pydicom.Dataset]:
    """All numbers of a report."""
    found = []
    for item in ds.get("ContentSequence", []):
        found += [item] if item.ValueType == "NUM" else []
        found += numbers_of(item)
    return found
