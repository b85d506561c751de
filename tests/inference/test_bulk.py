"""Prediction of many images: killed and repeated, shared out, from tables; what is asked for beside the answers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import served_run
import torch
from PIL import Image
from served_run import dicom, png

import msmae
import msmae.inference.bulk
import msmae.inference.reference
from msmae.data.reading.images import ImageSource
from msmae.errors import UserError
from msmae.inference.bulk import Plan, Ranks, choose_device, join_parts, part_of
from msmae.inference.items import Item, find_items
from msmae.inference.model import Model, load
from msmae.inference.reference import Reference, modalities_of, reference_of, threshold_of
from msmae.inference.rows import FLAGS, Rows
from msmae.inference.sets import sets_of_run
from msmae.runs.checkpoint import read_card, write_card
from msmae.statistics.conformal import conformal_level_several
from msmae.statistics.predictions import read_predictions, write_predictions
from msmae.verbs.predict import outline

SMALL: dict[str, Any] = {"batch_size": 8, "device": "cpu"}


@pytest.fixture
def parts_of_16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two batches of eight."""
    monkeypatch.setattr(msmae.inference.bulk, "PART", 16)


@pytest.fixture(scope="module")
def whole_file(finished: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one undisturbed run of the command writes for all images."""
    out = tmp_path_factory.mktemp("whole") / "out"
    msmae.predict(str(finished), [str(data.parent / "images")], out=str(out), **SMALL)
    return (out / "predictions.csv").read_bytes()


@pytest.mark.usefixtures("parts_of_16")
def test_a_killed_prediction_goes_on_to_the_same_bytes(
    finished: Path, data: Path, tmp_path: Path, whole_file: bytes, monkeypatch: pytest.MonkeyPatch
):
    calls, answer = [], Rows.__call__

    def killed_in_the_fifth(self: Rows, *given: Any) -> pd.DataFrame:
        calls.append(1)
        if len(calls) % 5 == 0:
            raise KeyboardInterrupt
        return answer(self, *given)

    monkeypatch.setattr(Rows, "__call__", killed_in_the_fifth)
    killed = 0
    while not (tmp_path / "out" / "predictions.csv").exists():
        try:
            msmae.predict(str(finished), [str(data.parent / "images")], out=str(tmp_path / "out"), **SMALL)
        except KeyboardInterrupt:
            killed += 1
    assert killed == 3
    assert len(calls) == 15 + killed  # 120 images: what was done was not done again but for a half part
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == whole_file
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.csv"]
    with pytest.raises(UserError, match=r"holds predictions\.csv already"):
        msmae.predict(str(finished), [str(data.parent / "images")], out=str(tmp_path / "out"), **SMALL)


@pytest.mark.usefixtures("parts_of_16")
def test_another_model_or_other_images_do_not_go_on(finished: Path, data: Path, tmp_path: Path):
    images = sorted(str(path) for path in (data.parent / "images").iterdir())
    bad = tmp_path / "zz.png"
    bad.write_text("no image")
    with pytest.raises(UserError, match=r"zz\.png"):
        msmae.predict(str(finished), [*images[:17], str(bad)], out=str(tmp_path / "out"), **SMALL)
    assert [path.name for path in (tmp_path / "out" / "parts").glob("0*.csv")] == ["000000.csv"]
    with pytest.raises(UserError, match="another images"):
        msmae.predict(str(finished), images[:18], out=str(tmp_path / "out"), **SMALL)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    card = read_card(run / "model")
    write_card(run / "model", dataclasses.replace(card, thresholds={card.classes[0]: 0.3}))
    with pytest.raises(UserError, match="another card"):
        msmae.predict(str(run), [*images[:17], str(bad)], out=str(tmp_path / "out"), **SMALL)
    Image.new("L", (32, 32)).save(bad)  # mended: the same command goes on
    found = msmae.predict(str(finished), [*images[:17], str(bad)], out=str(tmp_path / "out"), **SMALL)
    assert len(found) == 18


@pytest.mark.usefixtures("parts_of_16")
def test_ranks_share_the_parts_and_one_joins_them(
    finished: Path, data: Path, tmp_path: Path, whole_file: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for rank in ("1", "0"):  # the first joins, and would wait for the other
        monkeypatch.setenv("SLURM_PROCID", rank)
        found = msmae.predict(str(finished), [str(data.parent / "images")], out=str(tmp_path / "out"), **SMALL)
        assert (found is None) == (rank == "1")
        if rank == "1":
            assert len(list((tmp_path / "out" / "parts").glob("0*.csv"))) == 4  # of eight
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == whole_file


@pytest.mark.usefixtures("parts_of_16")
def test_planes_after_a_part_of_pictures_have_the_answers_of_the_same_pictures(
    finished: Path, data: Path, tmp_path: Path
):
    images = sorted(str(path) for path in (data.parent / "images").iterdir())[:16]
    first, *others = [Image.open(path) for path in images[:3]]
    first.save(tmp_path / "film.tif", save_all=True, append_images=others)
    named = [*(f"{path}," for path in images), *(f"film.tif,{frame}" for frame in range(3))]
    (tmp_path / "mixed.csv").write_text("\n".join(["image_path,frame", *named]) + "\n")
    found = msmae.predict(str(finished), [str(tmp_path / "mixed.csv")], out=str(tmp_path / "out"), **SMALL)
    assert found["frame"].tolist() == [""] * 16 + ["0", "1", "2"]
    answers = ["predicted", *(name for name in found if name.startswith("prob_"))]
    pictures, planes = found[answers].iloc[:3], found[answers].iloc[16:]
    assert planes["predicted"].tolist() == pictures["predicted"].tolist()
    np.testing.assert_allclose(planes[answers[1:]].astype(float), pictures[answers[1:]].astype(float), atol=1e-6)


def test_parts_with_other_columns_are_not_joined(tmp_path: Path):
    plan = Plan([Item(ImageSource(name)) for name in ("a", "b", "c", "d")], 1, {}, most=1)
    (tmp_path / "parts").mkdir()
    cells = ["image_path,predicted\na,x\n", "", "image_path,predicted\nc,y\n", "image_path,predicted\nd,x\n"]
    for number, text in enumerate(cells):
        part_of(tmp_path, number).write_text(text)
    part_of(tmp_path, 3).write_text("image_path,frame,predicted\nd,0,x\n")
    with pytest.raises(UserError, match=r"its columns are not those of 000000\.csv.*000003\.csv.*delete .*parts"):
        join_parts(plan, tmp_path)
    assert not (tmp_path / "predictions.csv").exists()
    part_of(tmp_path, 3).write_text(cells[3])
    assert join_parts(plan, tmp_path) == 3
    assert (tmp_path / "predictions.csv").read_text() == "image_path,predicted\na,x\nc,y\nd,x\n"


@pytest.mark.slow
def test_under_torchrun_one_file_comes_out(finished: Path, data: Path, tmp_path: Path, whole_file: bytes):
    words = ["predict", str(finished), str(data.parent / "images"), "--out", str(tmp_path / "out")]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "msmae", *words,
         "--batch-size", "8", "--device", "cpu"],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == whole_file


def test_a_manifest_is_read_as_in_training(finished: Path, data: Path, tmp_path: Path):
    table = pd.read_csv(data, dtype=str, keep_default_na=False).iloc[:12]
    for column in ("image_path", "mask_path"):
        table[column] = [str(data.parent / path) if path else "" for path in table[column]]
    table.to_csv(tmp_path / "some.csv", index=False)
    found = msmae.predict(str(finished), [str(tmp_path / "some.csv")], out=str(tmp_path / "out"), **SMALL)
    for column in ("image_path", "patient_id", "label", "split"):
        assert found[column].tolist() == table[column].tolist()
    table.loc[3, "image_path"] = str(tmp_path / "missing.png")
    table.to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(UserError, match=r"missing\.png"):
        msmae.predict(str(finished), [str(tmp_path / "some.csv")], out=str(tmp_path / "out2"), **SMALL)


def test_a_table_to_predict_needs_no_label_and_may_name_its_images_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0.png", "1.png"):
        (tmp_path / name).touch()
    for text, said in (
        ("image_path\n0.png\n1.png\n", ""),
        ("id;file\n7;0.png\n8;1.png\n", "the column file names the"),
    ):
        (tmp_path / "t.csv").write_text(text)
        assert [Path(str(item)).name for item in find_items([str(tmp_path / "t.csv")], on_error="stop")] == [
            "0.png", "1.png",
        ]  # fmt: skip
        assert said in capsys.readouterr().out
    (tmp_path / "t.csv").write_text("left,right\n0.png,1.png\n")
    (tmp_path / "t.txt").write_text("0.png\n1.png\n")
    for name, said in (("t.csv", "no column image_path; the columns are left, right"), ("t.txt", "write a CSV")):
        with pytest.raises(UserError, match=said):
            find_items([str(tmp_path / name)], on_error="stop")


def test_masks_of_a_folder_are_no_images_and_tables_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images/0.png", "images/1.png", "masks/0.png", "masks/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("image_path\nimages/0.png\n")
    found = [str(item) for item in find_items([str(tmp_path)], on_error="stop")]
    assert found == [str(tmp_path / "images" / name) for name in ("0.png", "1.png")]
    said = capsys.readouterr().out
    assert "2 masks of images, not predicted" in said
    assert "tables are not read (t.csv)" in said
    assert len(find_items([str(tmp_path / "masks")], on_error="stop")) == 2  # asked for by name


def test_volumes_are_cut_into_slices_as_in_training_and_stacks_are_named_in_a_table(tmp_path: Path) -> None:
    import nibabel

    for name, side in (("a.nii.gz", 5), ("b.nii.gz", 3)):
        volume = np.zeros((8, 8, side), np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / name)
    (tmp_path / "c.png").write_bytes(png(0))
    items = find_items([str(tmp_path)], on_error="stop", slices="axial:2")
    named = [(Path(item.source.path).name, item.source.plane.index, item.patient_id) for item in items]
    assert named == [("a.nii.gz", 1, "a"), ("a.nii.gz", 3, "a"), ("b.nii.gz", 1, "b"), ("c.png", None, "")]
    (tmp_path / "t.csv").write_text("image_path,frame\nc.png,\na.nii.gz,0\n")
    cut = find_items([str(tmp_path / "t.csv")], on_error="stop", slices="sagittal")
    assert [(item.source.plane.frame, item.source.plane.axis) for item in cut] == [(None, None), *[(0, 0)] * 8]
    with pytest.raises(UserError, match="no image is a NIfTI volume"):
        find_items([str(tmp_path / "c.png")], on_error="stop", slices="axial")
    options = {"keep": 1, "selector": None, "answers": "plain", "coverage": None, "flags": False, "neighbours": 0}
    with pytest.raises(UserError, match="outlines whole files"):
        outline("", None, items, tmp_path / "out", Ranks(), {**options, "overwrite": False, "on_error": "stop"})


def test_what_is_unlike_the_training_images_is_flagged_and_neighbours_are_named(
    finished: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(msmae.inference.reference, "FEWEST", 10)
    train = pd.read_csv(data, dtype=str).query("split == 'train'")["image_path"].tolist()
    own, strange, grey = data.parent / train[0], tmp_path / "strange.png", tmp_path / "grey.png"
    Image.fromarray(np.indices((32, 32)).sum(axis=0).astype(np.uint8) % 2 * 255).save(strange)
    Image.new("L", (32, 32), 255).save(grey)
    found = msmae.predict(
        str(finished), [str(own), str(strange), str(grey)], out=str(tmp_path / "out"), flags=True, neighbours=3,
        coverage=0.8, **SMALL,
    ).set_index("image_path")  # fmt: skip
    flags = {path: set(filter(None, cell.split(";"))) for path, cell in found["flags"].items()}
    assert "unlike_training" not in flags[str(own)]
    assert "unlike_training" in flags[str(strange)]
    assert {"flat", "unusual_brightness"} <= flags[str(grey)]
    assert set.union(*flags.values()) <= set(FLAGS)
    assert Path(found.loc[str(own), "neighbours"].split(";")[0]).name == own.name
    assert found.loc[str(own), "neighbour_cosines"].split(";")[0] == "1.0000"
    assert float(found.loc[str(strange), "distance"]) > float(found.loc[str(own), "distance"])
    assert all(len(cell.split(";")) == 3 for cell in found["neighbour_labels"])
    assert "unlike_training: a distance above" in capsys.readouterr().out
    plain = msmae.predict(str(finished), [str(own), str(strange), str(grey)], out=str(tmp_path / "plain"), **SMALL)
    columns = [name for name in plain if name.startswith("prob_")]
    np.testing.assert_allclose(found[columns], plain[columns], atol=1e-6)
    for cell, answer in zip(found["set"], plain["predicted"], strict=True):
        assert answer in cell.split(";")


def test_training_images_that_were_away_are_read_when_they_are_back(tmp_path: Path):
    run = served_run.write_run(tmp_path / "run")
    model, images = load(str(run)), run / "images"
    some = images / "0.png"
    some.rename(tmp_path / "0.png")
    assert len(reference_of(run, model).names) == 5
    images.rename(tmp_path / "away")
    with pytest.raises(UserError, match="none of the training images is where"):
        reference_of(run, model)
    (tmp_path / "away").rename(images)
    (tmp_path / "0.png").rename(some)
    assert [Path(name).name for name in reference_of(run, model).names] == [f"{number}.png" for number in range(6)]
    shutil.rmtree(images)
    assert len(reference_of(run, model).names) == 6  # from the cache


def test_a_training_image_that_is_damaged_for_good_is_left_out_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    run = served_run.write_run(tmp_path / "run")
    model, images = load(str(run)), run / "images"
    (images / "0.png").write_bytes(b"no picture")
    assert len(reference_of(run, model).names) == 5
    shutil.rmtree(images)
    assert len(reference_of(run, model).names) == 5  # from the cache


def test_what_is_unlike_needs_enough_validation_images_and_says_how_many():
    far = np.arange(1.0, 201.0)
    assert threshold_of(far) == 199.0  # two of 201 images like them lie beyond
    assert threshold_of(far[:30]) == 30.0
    few = Reference(np.eye(2, dtype=np.float32), ["a", "b"], ["a", "b"], None, 4)
    assert "left out" in few.says()
    assert "the run has 4" in few.says()
    assert "1 in 31" in dataclasses.replace(few, threshold=0.5, validation=30).says()
    assert "1 in 100" in dataclasses.replace(few, threshold=0.5, validation=500).says()


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_of_several_labels_hold_all_of_them_as_often_as_asked(coverage: float):
    draw = np.random.default_rng(0)
    truth = draw.random((600, 4)) < 0.3
    probabilities = 1 / (1 + np.exp(-(draw.normal(size=(600, 4)) + 3 * truth - 1)))
    covered = []
    for _ in range(200):
        order = draw.permutation(600)
        level = conformal_level_several(probabilities[order[:300]], truth[order[:300]], coverage=coverage)
        inside = probabilities[order[300:]] >= level
        covered.append((inside | ~truth[order[300:]]).all(axis=1).mean())
    assert abs(np.mean(covered) - coverage) < 0.01


def test_sets_come_from_validation_and_are_counted_on_test(finished: Path, tmp_path: Path):
    frame = read_predictions(finished / "predictions.csv")
    classes = [name.removeprefix("prob_") for name in frame if name.startswith("prob_")]
    sets = sets_of_run(finished, classes, multilabel=False, coverage=0.8)
    test = frame[frame["split"] == "test"]
    cells = sets.of(test[[f"prob_{name}" for name in classes]].to_numpy(), classes, multilabel=False)
    inside = [label in cell.split(";") for label, cell in zip(test["label"], cells, strict=True)]
    assert sets.on_test == pytest.approx(np.mean(inside))
    assert sets.images == (frame["split"] == "val").sum()
    (tmp_path / "run").mkdir()
    write_predictions(frame[frame["split"] != "val"], tmp_path / "run" / "predictions.csv")
    for run, coverage, said in (
        (tmp_path / "run", 0.9, "no predictions of labelled"),
        (finished, 90, "coverage of 90"),
    ):
        with pytest.raises(UserError, match=said):
            sets_of_run(run, classes, multilabel=False, coverage=coverage)


def test_the_device_is_chosen_and_the_processes_of_a_node_take_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto", Ranks()) == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto", Ranks()) == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", Ranks(5, 8, 3)) == "cuda:1"
    assert choose_device("cpu", Ranks()) == "cpu"
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}.items():  # a script of sbatch, not a step of srun
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RANK", raising=False)
    assert Ranks.here().world == 1


@pytest.mark.usefixtures("parts_of_16")
def test_the_plan_names_what_answers_depend_on(finished: Path, data: Path, tmp_path: Path):
    images = sorted(str(path) for path in (data.parent / "images").iterdir())
    (tmp_path / "zz.png").write_text("no image")
    with pytest.raises(UserError, match=r"zz\.png"):
        msmae.predict(str(finished), [*images[:20], str(tmp_path / "zz.png")], out=str(tmp_path / "out"), **SMALL)
    plan = json.loads((tmp_path / "out" / "parts" / "plan.json").read_text())
    assert {"model", "card", "keep", "selector", "answers", "precision", "device", "images_sha256"} <= plan.keys()


def test_a_modality_that_no_training_image_has_is_flagged(tmp_path: Path):
    manifest = ["image_path,label,split,modality", "a.dcm,x,train,CT", "b.dcm,x,test,MR"]
    (tmp_path / "manifest.csv").write_text("\n".join(manifest) + "\n")
    known = modalities_of(tmp_path)
    assert known == {"CT"}
    for name, content in (("ct.dcm", dicom(1)), ("mr.dcm", dicom(1, Modality="MR")), ("plain.png", png(1))):
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in ("ct.dcm", "mr.dcm", "plain.png")]
    rows = Rows(cast(Model, None), 1.0, None, "plain", flags=True, modalities=known)
    assert rows.of_other_modality(paths).tolist() == [False, True, False]
    assert not Rows(cast(Model, None), 1.0, None, "plain", flags=True).of_other_modality(paths).any()
