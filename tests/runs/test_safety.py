"""What a person already has is not lost, and what they ask for is what is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import msmae
from msmae.cli import main
from msmae.config import make_settings
from msmae.errors import UserError
from msmae.runs.folder import check_writable, describe_run, read_run
from msmae.verbs.budget import budget
from msmae.verbs.finetune import forget_model


@pytest.fixture
def world(data: Path, finished: Path) -> tuple[Path, Path]:
    """A small phantom and a finished run on it: (manifest, run)."""
    return data, finished


def copy_of(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_overwrite_deletes_nothing_before_the_new_run_is_known_to_start(world: Any, tmp_path: Path) -> None:
    data, run = world[0], copy_of(world[1], tmp_path)
    for words in (
        {"data": "nowhere"},
        {"init": str(data)},
        {"trainer": {"precision": "17-bit"}},
        {"trainer": {"threads": 0}},
        {"pretrain": {"epochs": 3, "uniform_epochs": 3}},
    ):
        with pytest.raises(UserError):
            msmae.run(**({"data": str(data), "out": str(run), "preset": "tiny", "overwrite": True} | words))
        assert (run / "metrics.json").is_file(), words


def test_overwrite_never_deletes_its_own_data_nor_a_strangers_folder(world: Any, tmp_path: Path) -> None:
    run = copy_of(world[1], tmp_path)
    with pytest.raises(UserError, match="delete the data"):
        msmae.run(str(run / "manifest.csv"), out=str(run), preset="tiny", overwrite=True)
    assert (run / "manifest.csv").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("theirs: 1\n")
    with pytest.raises(UserError, match="something else"):
        msmae.run(str(world[0]), out=str(tmp_path / "other"), preset="tiny", overwrite=True)
    assert (tmp_path / "other" / "config.yaml").is_file()


def test_a_run_does_not_lie_in_its_own_data(world: Any) -> None:
    folder = world[0].parent
    with pytest.raises(UserError, match="in its own data"):
        msmae.run(str(folder), out=str(folder / "run"), preset="tiny")
    with pytest.raises(UserError, match="no folder for the run"):
        msmae.run(str(folder), out="", preset="tiny")


def test_fine_tuning_again_with_a_bad_value_keeps_the_model(world: Any, tmp_path: Path) -> None:
    run = copy_of(world[1], tmp_path)
    before = (run / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"finetune\.epochs"):
        msmae.finetune(str(run), overwrite=True, finetune={"epochs": 0})
    with pytest.raises(UserError, match="fixed by its pre-training"):
        msmae.finetune(str(run), overwrite=True, model={"width": 64})
    assert (run / "model" / "model.safetensors").is_file()
    assert (run / "config.yaml").read_text() == before


def test_fine_tuning_again_keeps_nothing_of_the_model_before(world: Any, tmp_path: Path) -> None:
    run = copy_of(world[1], tmp_path)
    for name in ("neighbours.csv", "my notes.txt"):
        (run / name).touch()
    forget_model(run)
    left = {path.name for path in run.iterdir()} - {"my notes.txt"}  # what a person put there stays
    of_data = {"audit.json", "config.yaml", "environment.json", "manifest.csv", "record.json"}
    assert left == of_data | {"pretrained", "checkpoints", "logs"}
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["pretrain.ckpt"]
    assert (run / "my notes.txt").is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune": {"draw": "some"}},
        {"pretrain": {"epochs": 1.5}},
        {"model": {"width": 32.7}},
        {"pretrain": {"normalise_pixels": "perhaps"}},
        {"pretrain": {"uniform_epochs": -3}},
        {"finetune": {"weight_decay": -1.0}},
        {"pretrain": {"lr_warmup": 7.0}},
    ],
)
def test_values_of_the_wrong_kind_are_refused_from_python_too(changes: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(UserError):
        make_settings("tiny", None, changes)


def test_an_abbreviated_setting_is_refused(world: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", str(world[0]), "--out", str(tmp_path / "r"), "--preset", "tiny", "--pretrain.epoch", "1"])
    assert caught.value.code == 2


def test_a_runs_own_settings_start_another(world: Any, tmp_path: Path) -> None:
    settings = make_settings("tiny", world[1] / "config.yaml")
    assert settings.model.patch_size == 4


def test_a_class_that_training_lacks_is_named_before_anything_starts(world: Any, tmp_path: Path) -> None:
    manifest = msmae.open_dataset(world[0])
    labels = manifest.table["label"].to_numpy().copy()
    labels[manifest.ids("test")[0]] = "rare"
    manifest.with_columns({"label": labels}).write(world[0].parent / "rare.csv")
    with pytest.raises(UserError, match="no training image of rare"):
        msmae.run(str(world[0].parent / "rare.csv"), out=str(tmp_path / "r"), preset="tiny", allow_leakage=True)
    assert not (tmp_path / "r").exists()


def test_a_model_is_readable_by_colleagues(world: Any) -> None:
    weights, card = (world[1] / "model" / name for name in ("model.safetensors", "config.json"))
    assert weights.stat().st_mode == card.stat().st_mode


def test_one_path_is_one_image_and_a_list_of_arrays_is_refused(world: Any) -> None:
    model = msmae.load(world[1])
    path = msmae.open_dataset(world[0]).path(0)
    assert model.predict(str(path)).shape == model.predict(path).shape == (1, len(model.classes))
    with pytest.raises(UserError, match="list of arrays"):
        model.predict([torch.zeros(1, 32, 32)])
    with pytest.raises(UserError, match="shape"):
        model.predict(torch.zeros(2, 1, 0, 32))


@pytest.mark.slow
def test_masks_of_a_plain_autoencoder_are_its_own_plan(world: Any, tmp_path: Path) -> None:
    msmae.pretrain(str(world[0]), out=str(tmp_path / "mae"), preset="tiny", method="mae")
    with pytest.raises(SystemExit) as caught:
        main(["masks", str(tmp_path / "mae")])
    assert caught.value.code in (0, None)
    content = msmae.masks(str(tmp_path / "mae"), out=str(tmp_path / "m"))
    image = content["images"][0]
    assert (len(image["mask"]), len(image["throw"]), len(image["keep"])) == (48, 0, 16)


def test_a_run_records_what_it_is_made_from_as_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mae.pth").write_bytes(b"")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    words: dict[str, Any] = {"data": "phantom", "method": "msmae", "seed": 0, "settings": make_settings("tiny")}
    describe_run(Path("run"), given={"init": "mae.pth", "from": "none"}, **words)
    config = read_run(Path("run"))[0]
    assert (config["data"], config["init"], config["from"]) == ("phantom", str(tmp_path / "mae.pth"), "none")
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace(str(tmp_path / "mae.pth"), "mae.pth"))  # as runs were recorded before
    (tmp_path / "run" / "record.json").unlink()
    describe_run(Path("run"), given={"init": "./mae.pth", "from": "none"}, **words)
    with pytest.raises(UserError, match=r"other settings \(init\)"):
        describe_run(Path("run"), given={"init": "run/config.yaml", "from": "none"}, **words)


def test_a_demo_that_ended_before_its_pictures_makes_them(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("masks"))
    msmae.demo(out=str(out))
    picture = out / "masks" / "masks.png"
    made = picture.stat().st_mtime_ns
    msmae.demo(out=str(out))
    assert picture.stat().st_mtime_ns == made  # and once only


def test_a_run_that_goes_on_with_other_software_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words: dict[str, Any] = {"data": "phantom", "method": "msmae", "seed": 0, "settings": make_settings("tiny")}
    for _ in range(2):
        describe_run(tmp_path / "run", given={"init": None}, **words)
    assert caplog.text == ""
    file = tmp_path / "run" / "environment.json"
    record = json.loads(file.read_text())
    now = f"{version('torch')}"
    record["packages"]["torch"] = "2.1.0"
    del record["packages"]["safetensors"]  # not recorded by an earlier version: nothing to compare
    file.write_text(json.dumps(record))
    describe_run(tmp_path / "run", given={"init": None}, **words)
    assert f"begun with other software (torch 2.1.0, now {now}): what comes" in caplog.text
    assert json.loads(file.read_text()) == {**record, "went_on_with": [f"torch {now}"]}
    file.write_text(json.dumps({**record, "packages": {}, "msmae": "0.0.1", "auto_precision": "16-mixed"}))
    describe_run(tmp_path / "run", given={"init": None}, **words)
    assert f"(msmae 0.0.1, now {msmae.__version__}; precision 16-mixed, now " in caplog.text
    for damaged in (file.read_text()[:40], "7", '{"packages": "torch"}'):
        file.write_text(damaged)
        caplog.clear()
        describe_run(tmp_path / "run", given={"init": None}, **words)
        assert "environment.json cannot be read" in caplog.text
        assert file.read_text() == damaged


def test_a_thread_that_waits_does_not_hold_up_the_end(tmp_path: Path) -> None:
    script = tmp_path / "held.py"
    script.write_text(
        "import os, signal, threading, time\nfrom msmae import cli\ncli.SECONDS_TO_END = 0.5  # otherwise 20\n"
        "signal.signal(signal.SIGTERM, cli.end)\n"
        "threading.Thread(target=time.sleep, args=(300,)).start()\nos.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, str(script)], timeout=60).returncode == 143


def test_a_slurm_job_that_is_told_of_its_limit_is_queued_again(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    script = tmp_path / "job.py"
    script.write_text(
        "import os, signal\nfrom msmae.cli import ended_by_signals\nwith ended_by_signals():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    job = {"SLURM_JOB_ID": "7", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run([sys.executable, str(script)], env={**os.environ, **job}).returncode == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_a_folder_that_cannot_be_written_is_named_before_any_work(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a file stands in the way of .*/file/run \(.*/file\): choose another --out"):
        msmae.run(str(data), out=str(tmp_path / "file" / "run"), preset="tiny")
    check_writable(tmp_path / "new" / "run")
    with closed_folder() as closed, pytest.raises(UserError, match="nothing may be written here") as caught:
        check_writable(closed / "run")
    assert caught.value.where == str(closed)


@contextmanager
def closed_folder() -> Iterator[Path]:
    """A folder with a table in it, of which the one may not be written and the other not be read."""
    before = os.geteuid()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "m.csv").write_text("image_path,label\n")
        (folder / "m.csv").chmod(0)
        folder.chmod(0o555)
        if before == 0:  # to root nothing is closed
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(before)
            folder.chmod(0o755)


def test_a_table_that_may_not_be_read_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with closed_folder() as closed, pytest.raises(SystemExit) as caught:
        main(["check", str(closed / "m.csv")])
    assert caught.value.code == 2
    assert f"this table may not be read ({closed}/m.csv)" in capsys.readouterr().err


def test_options_are_named_as_they_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "runs/mine", "--from", "other"])
    told = capsys.readouterr().err
    assert "--from" in told
    assert "--from_" not in told


def test_another_seed_is_not_taken_for_other_data(finished: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "unfinished"
    shutil.copytree(finished, out)
    (out / "metrics.json").unlink()
    (out / "record.json").unlink()
    table = (out / "manifest.csv").read_text()
    (out / "manifest.csv").write_text(
        table.replace(",train,", ",other,").replace(",val,", ",train,").replace(",other,", ",val,")
    )
    for asked, named in [({"seed": 3}, "seed"), ({"dataset": {"max_pixels": 9_999}}, "dataset.max_pixels")]:
        with pytest.raises(UserError, match=rf"started with other settings \({named}\)"):
            msmae.run(str(data), out=str(out), preset="tiny", **asked)
    with pytest.raises(UserError, match="the data has changed since this run was started"):
        msmae.run(str(data), out=str(out), preset="tiny")


@pytest.mark.filterwarnings("error")
def test_what_is_neither_a_path_nor_an_array_is_told(finished: Path) -> None:
    model = msmae.load(finished)
    with pytest.raises(UserError, match="Image is neither a path nor an array: give paths, or one array"):
        model.predict([Image.new("L", (32, 32))])
    array = np.zeros((1, 1, 32, 32), dtype=np.float32)
    array.flags.writeable = False
    assert model.predict(array).shape == (1, len(model.classes))


def test_what_is_named_in_the_place_of_a_file_is_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weights"):
        msmae.run(str(data), out=str(tmp_path / "run"), preset="tiny", init=str(data.parent))


def test_a_run_pretrained_without_labels_is_not_told_to_be_fine_tuned(data: Path, tmp_path: Path) -> None:
    noise, images = np.random.default_rng(0), tmp_path / "images"
    images.mkdir()
    for i in range(12):
        Image.fromarray(noise.integers(0, 255, (32, 32), dtype=np.uint8)).save(images / f"{i}.png")
    run = tmp_path / "run"
    msmae.pretrain(str(images), out=str(run), preset="tiny", method="mae", pretrain={"epochs": 1})
    said = (
        rf"pre-trained and no more, on images without labels .*: `msmae run DATA --init {run}/pretrained/model.safete"
    )
    for ask in (lambda: msmae.finetune(str(run)), lambda: msmae.load(run)):
        with pytest.raises(UserError, match=said):
            ask()
    with pytest.raises(UserError, match=r"the split test has no images .*: choose --split train$"):
        msmae.masks(str(run))


def test_a_run_that_is_pretrained_so_far_says_what_comes_next(pretrained: Path, data: Path, tmp_path: Path) -> None:
    said = (
        rf"the run is pre-trained and no more .*`msmae finetune {pretrained}`, .* --init {pretrained}/pretrained/model"
    )
    for ask in (
        lambda: msmae.load(pretrained),
        lambda: msmae.evaluate(str(pretrained)),
        lambda: msmae.predict(str(pretrained), [str(data.parent)], out=str(tmp_path / "out")),
        lambda: budget(str(pretrained)),
    ):
        with pytest.raises(UserError, match=said):
            ask()
    with pytest.raises(UserError, match="no saved model here"):
        msmae.load(data.parent)
