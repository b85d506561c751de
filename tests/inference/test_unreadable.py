"""Prediction on folders with files that cannot be read: stopped with their names, or gone on without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import msmae
from msmae.cli import main
from msmae.errors import UserError
from msmae.inference.unreadable import Unreadable
from msmae.progress import ProgressBar


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Five readable images, a text file with an image's name, and an image of 16 bits."""
    generator, folder = np.random.default_rng(0), tmp_path / "mixed"
    folder.mkdir()
    for name in "abcde":
        Image.fromarray(generator.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "bad.png").write_text("no image")
    Image.fromarray(generator.integers(0, 65535, (32, 32), dtype=np.uint16)).save(folder / "deep.png")
    return folder


def test_unreadable_files_stop_prediction_unless_they_may_be_left_out(
    finished: Path, mixed: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"1 of 7 images cannot be read:\n.*bad\.png(.|\n)*--on-error skip"):
        msmae.predict(str(finished), [str(mixed)], out=str(tmp_path / "stopped"))
    assert not (tmp_path / "stopped").exists()


@pytest.mark.parametrize("batch_size", ["256", "2"])
def test_what_can_be_read_is_predicted_as_if_it_were_alone(
    finished: Path, mixed: Path, tmp_path: Path, batch_size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "out"), "--on-error", "skip", "--batch_size", batch_size]
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(finished), str(mixed), *words])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "5 images predicted" in told
    assert "2 images left out, each with its reason" in told
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    good = [str(mixed / f"{name}.png") for name in "abcde"]
    assert list(table["image_path"]) == good
    alone = msmae.load(finished).predict(good)
    assert table.filter(like="prob_").to_numpy() == pytest.approx(alone.numpy(), abs=1e-6)
    left_out = pd.read_csv(tmp_path / "out" / "left_out.csv", index_col="image_path")["reason"]
    assert set(left_out.index) == {str(mixed / "bad.png"), str(mixed / "deep.png")}
    assert "not an image" in left_out[str(mixed / "bad.png")]
    assert "uint16 numbers, and the model learned from uint8" in left_out[str(mixed / "deep.png")]


def test_where_nothing_can_be_read_nothing_is_written(finished: Path, mixed: Path, tmp_path: Path) -> None:
    bad = [str(mixed / "bad.png"), str(mixed / "deep.png")]
    said = r"none of the files can be used \(2\):\n  not an image.*bad\.png.*\n.*deep\.png"
    with pytest.raises(UserError, match=said):
        msmae.predict(str(finished), bad, out=str(tmp_path / "out"), on_error="skip")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="on_error is 'ignore'"):
        msmae.predict(str(finished), [str(mixed)], out=str(tmp_path / "out"), on_error="ignore")  # type: ignore[arg-type]


def test_what_is_wrong_with_the_request_is_told_as_that(finished: Path, mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^keep 0\.001 of 64 patches is none"):
        msmae.predict(str(finished), [str(mixed)], out=str(tmp_path / "out"), on_error="skip", keep=0.001)


def test_neighbours_of_what_is_left_out_are_predicted_as_one_batch(finished: Path, mixed: Path, tmp_path: Path) -> None:
    """Patches drawn at random are drawn for a batch: an image of a batch of one would be given other ones."""
    good = [str(mixed / f"{name}.png") for name in "abcde"]
    words: dict[str, Any] = {"selector": "random", "keep": 0.25}
    alone = msmae.predict(str(finished), good, out=str(tmp_path / "alone"), **words)
    files = [*good, str(mixed / "bad.png")]
    found = msmae.predict(str(finished), files, out=str(tmp_path / "out"), on_error="skip", **words)
    pd.testing.assert_frame_equal(found, alone)
    pairs = msmae.predict(str(finished), good, out=str(tmp_path / "pairs"), batch_size=2, **words)
    pd.testing.assert_frame_equal(pairs, alone, rtol=1e-4)


def test_a_batch_is_taken_apart_only_where_something_fails() -> None:
    calls: list[int] = []

    def read(files: list[Path]) -> torch.Tensor:
        calls.append(len(files))
        if Path("b") in files:
            raise UserError("broken")
        return torch.zeros(len(files))

    unreadable = Unreadable(skip=True)
    assert [len(piece) for piece in unreadable.read([Path("a"), Path("c")], read)[1]] == [2]
    files, pieces = unreadable.read([Path("a"), Path("b"), Path("c")], read)
    assert files == [Path("a"), Path("c")]
    assert [len(piece) for piece in pieces] == [1, 1]
    assert calls == [2, 3, 1, 1, 1]
    assert unreadable.reasons == {Path("b"): "broken"}
    with pytest.raises(UserError, match="broken"):
        Unreadable().read([Path("b")], read)


def test_a_bar_ends_where_an_error_leaves_it() -> None:
    progress = ProgressBar("reading")

    def stopped_halfway() -> None:
        with progress:
            progress(1, 4)
            raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        stopped_halfway()
    assert progress.bar is not None
    assert not progress.bar.live.is_started


@pytest.mark.slow
def test_outlining_leaves_out_too(data: Path, mixed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    msmae.segment(str(data), out=str(run), from_="none", preset="tiny", segment={"epochs": 1})
    with pytest.raises(UserError, match=r"bad\.png"):
        msmae.predict(str(run), [str(mixed)], out=str(tmp_path / "stopped"))
    table = msmae.predict(str(run), [str(mixed)], out=str(tmp_path / "out"), on_error="skip")
    assert list(table["image_path"]) == [str(mixed / f"{name}.png") for name in "abcde"]
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 5
    assert len(pd.read_csv(tmp_path / "out" / "left_out.csv")) == 2
    with pytest.raises(UserError, match="none of the files can be used"):
        msmae.predict(str(run), [str(mixed / "bad.png")], out=str(tmp_path / "nothing"), on_error="skip")
    assert not (tmp_path / "nothing").exists()


def test_masks_beside_images_are_not_predicted(
    finished: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bad.png", "deep.png"):
        (mixed / name).unlink()
    Image.new("L", (32, 32)).save(mixed / "a_seg.png")
    found = msmae.predict(str(finished), [str(mixed)], out=str(tmp_path / "out"))
    assert [Path(path).name for path in found["image_path"]] == [f"{name}.png" for name in "abcde"]
    assert f"- {mixed}: 1 mask of images, not predicted" in capsys.readouterr().out
