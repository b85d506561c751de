"""What the stages ask of data: labels where they learn from them, the same images on resuming, the same bit depth."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import msmae
from msmae.config import make_settings
from msmae.data.phantom import make_phantom
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError
from msmae.inference.model import Model
from msmae.runs.checkpoint import load_model
from msmae.training.decide import decide_model
from spots import write_spots

pytestmark = pytest.mark.slow


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A DICOM series of one patient, 16 slices in one folder."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder = tmp_path / "series"
    folder.mkdir()
    for i in range(16):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_ = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        slice_.PatientID, slice_.Modality = "one", "CT"
        slice_.Rows = slice_.Columns = 32
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
        slice_.PixelData = np.random.default_rng(i).integers(0, 4000, (32, 32), dtype=np.uint16).tobytes()
        slice_.save_as(folder / f"{i}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("kind", ["unlabelled", "series"])
@pytest.mark.parametrize("method", ["mae", "amt"])
def test_arms_of_pixels_alone_pretrain_without_labels(
    kind: str, method: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = request.getfixturevalue(kind)
    msmae.pretrain(str(data), out=str(tmp_path / "run"), preset="tiny", method=method)
    card = json.loads((tmp_path / "run/pretrained/config.json").read_text())
    assert card["classes"] == []
    assert card["numbers"] == ("uint8" if kind == "unlabelled" else "float32")
    with pytest.raises(UserError, match="pre-trained and no more, on images without labels"):
        msmae.finetune(str(tmp_path / "run"))


@pytest.mark.parametrize("method", ["msmae", "supmae"])
def test_arms_of_labels_refuse_data_without(method: str, unlabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the arm {method} learns from labels.*--method mae or amt"):
        msmae.pretrain(str(unlabelled), out=str(tmp_path / "run"), preset="tiny", method=method)
    with pytest.raises(UserError, match="no training image has a label"):
        msmae.run(str(unlabelled), out=str(tmp_path / "run"), preset="tiny", method="mae")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_a_label_stops_a_run_before_it_trains(split: str, tmp_path: Path) -> None:
    table = pd.read_csv(write_spots(tmp_path), dtype=str, keep_default_na=False)
    table.loc[table["split"] == split, "label"] = ""
    table.to_csv(tmp_path / "partly.csv", index=False)
    with pytest.raises(UserError, match=f"no image of the {split} split has a label"):
        msmae.run(str(tmp_path / "partly.csv"), out=str(tmp_path / "run"), preset="tiny")
    assert not (tmp_path / "run").exists()


def test_an_arm_of_labels_told_to_ignore_them_needs_none(unlabelled: Path, tmp_path: Path) -> None:
    msmae.pretrain(str(unlabelled), out=str(tmp_path / "run"), preset="tiny", pretrain={"label_weight": 0.0})
    assert (tmp_path / "run/pretrained").is_dir()


def test_mae_learns_no_labels_where_a_comparison_weighs_them(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = []
    for name, given in (("plain", None), ("weighed", 1.0)):
        assert "learns no labels" not in caplog.text
        with caplog.at_level("INFO", logger="msmae"):
            msmae.pretrain(
                str(data), out=str(tmp_path / name), preset="tiny", method="mae", pretrain={"label_weight": given}
            )
        weights.append(load_model(tmp_path / name / "pretrained")[0].state_dict())
    assert "mae learns no labels: pretrain.label_weight is not used" in caplog.text
    assert all(torch.equal(one, weights[1][key]) for key, one in weights[0].items())
    told = re.findall(r"^pretrain \d+/.*", capsys.readouterr().out, flags=re.MULTILINE)
    assert told
    assert not [line for line in told if "reconstruction" not in line or "label" in line]
    logged = pd.read_csv(tmp_path / "weighed" / "logs" / "pretrain" / "csv" / "metrics.csv")
    assert set(logged.columns) == {"epoch", "step", "images_per_s", "reconstruction"}  # no curve of what is not learned
    assert set(logged.dropna(subset="reconstruction")["epoch"]) == {
        0,
        1,
        2,
        3,
    }  # few steps make an epoch; each has its point


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", images=120, size=32)
    data, run = tmp_path / "data/manifest.csv", tmp_path / "run"
    msmae.pretrain(str(data), out=str(run), preset="tiny", method="mae")
    rows = data.read_text().splitlines(keepends=True)
    data.write_text("".join(rows[:-1]))
    with pytest.raises(UserError, match=r"data has changed since this run was started: 1 image gone \(.*\.png\)"):
        msmae.run(str(data), out=str(run), preset="tiny", method="mae")
    data.write_text("".join(rows))
    assert msmae.run(str(data), out=str(run), preset="tiny", method="mae")["arm"] == "mae"


def test_images_that_patches_do_not_fill_are_said_to_be_seen_smaller(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_dataset(data)
    for patch, said in (
        (8, ""),
        (7, "- images of 32 x 32 px are resized to 28 x 28, a multiple of the patch (7 px)\n"),
    ):
        decide_model(make_settings("tiny", overrides={"model": {"patch_size": patch}}), manifest)
        assert capsys.readouterr().out == said


def test_large_images_that_are_seen_small_are_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = open_dataset(data)
    decide_model(make_settings("tiny", overrides={"model": {"image_limit": 16, "patch_size": 4}}), manifest)
    assert capsys.readouterr().out == (
        "- images of about 32 px are resized to 16 x 16: --model.image_size sets another size\n"
    )


def test_files_of_another_bit_depth_are_refused(tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", images=120, size=32)
    msmae.run(str(tmp_path / "data/manifest.csv"), out=str(tmp_path / "run"), preset="tiny", method="vit")
    deep = np.random.default_rng(0).integers(0, 65535, (32, 32)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    model = msmae.load(tmp_path / "run")
    with pytest.raises(
        UserError,
        match=r"hold uint16 numbers, and the model learned from uint8 \(.*deep.png\): give pictures of 8 bits",
    ):
        model.predict([tmp_path / "deep.png"])
    card = tmp_path / "run/model/config.json"  # as an older version wrote it
    card.write_text(json.dumps({k: v for k, v in json.loads(card.read_text()).items() if k != "numbers"}))
    old = msmae.load(tmp_path / "run")
    assert isinstance(old, Model)
    assert old.predict([tmp_path / "deep.png"]).shape == (1, len(old.classes))
