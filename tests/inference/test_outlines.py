"""Outlines and DICOM objects of many images: killed and repeated, and shared out, as answers are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
import served_run

import msmae
import msmae.evaluation.dicom_out
import msmae.evaluation.write_masks


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_run.write_run(tmp_path_factory.mktemp("segmenter") / "run", kind="segmenter")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven images of different sizes."""
    (tmp_path / "images").mkdir()
    for number in range(7):
        (tmp_path / "images" / f"{number}.png").write_bytes(served_run.png(number, (40, 40 + 4 * number)))
    return tmp_path / "images"


def killed_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> list[int]:
    """Let the so-many-th call of a function be interrupted; gives back what counts the calls."""
    calls: list[int] = []
    plain: Callable[..., Any] = getattr(owner, name)

    def mortal(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return plain(*given, **named)

    monkeypatch.setattr(owner, name, mortal)
    return calls


def contents(out: Path) -> dict[str, bytes]:
    """All files by their names."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_outlining_goes_on_where_it_was_killed_and_is_shared_out(
    segmenter: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    msmae.predict(str(segmenter), [str(images)], out=str(tmp_path / "whole"), device="cpu")
    whole = contents(tmp_path / "whole")
    assert len(whole) == 15  # a mask and an overlay of each, and the table
    monkeypatch.setattr(msmae.evaluation.write_masks, "MOST", 2)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for rank in ("1", "0"):  # the first joins, and would wait for the other
        monkeypatch.setenv("SLURM_PROCID", rank)
        found = msmae.predict(str(segmenter), [str(images)], out=str(tmp_path / "shared"), device="cpu")
        assert (found is None) == (rank == "1")
    assert contents(tmp_path / "shared") == whole
    monkeypatch.delenv("SLURM_PROCID")
    calls = killed_once(monkeypatch, msmae.evaluation.write_masks, "write_image", 4)
    with pytest.raises(KeyboardInterrupt):
        msmae.predict(str(segmenter), [str(images)], out=str(tmp_path / "killed"), device="cpu")
    msmae.predict(str(segmenter), [str(images)], out=str(tmp_path / "killed"), device="cpu")
    assert contents(tmp_path / "killed") == whole
    assert len(calls) == 9  # two are done again: one that was drawn, and the one that was not


def test_dicom_objects_go_on_where_they_were_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    run = served_run.write_run(tmp_path / "run", numbers="float32")
    (tmp_path / "study").mkdir()
    for number in range(4):
        content = served_run.dicom(number, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4")
        (tmp_path / "study" / f"{number}.dcm").write_bytes(content)
    asked: dict[str, Any] = {"dicom": True, "device": "cpu", "batch_size": 1}
    with monkeypatch.context() as patch:  # before the first part was whole
        killed_once(patch, msmae.evaluation.dicom_out, "write_report", 2)
        with pytest.raises(KeyboardInterrupt):
            msmae.predict(str(run), [str(tmp_path / "study")], out=str(tmp_path / "out"), **asked)
    monkeypatch.setattr("msmae.inference.bulk.PART", 1)
    calls = killed_once(monkeypatch, msmae.evaluation.dicom_out, "write_report", 3)
    with pytest.raises(KeyboardInterrupt):
        msmae.predict(str(run), [str(tmp_path / "study")], out=str(tmp_path / "out"), **asked)
    msmae.predict(str(run), [str(tmp_path / "study")], out=str(tmp_path / "out"), **asked)
    assert len(calls) == 5
    made = sorted((tmp_path / "out" / "dicom").iterdir())
    assert len(made) == 8
    assert not (tmp_path / "out" / "parts").exists()
    for path in made:
        source = pydicom.dcmread(tmp_path / "study" / f"{int(path.name[:5])}.dcm")
        assert source.SOPInstanceUID in str(pydicom.dcmread(path))
