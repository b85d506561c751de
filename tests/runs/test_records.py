"""Files of a run that were cut or changed are not believed, whatever moment the run was killed at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import msmae
from msmae.data.manifest import read_manifest
from msmae.errors import UserError
from msmae.records import FILE, check_recorded, file_sum, recorded, write_recorded
from msmae.runs.folder import read_run
from msmae.verbs.report import report


def cut(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["manifest.csv", "predictions.csv", "config.yaml"])
def test_a_file_that_was_cut_at_a_line_is_refused(run: Path, name: str) -> None:
    cut(run / name)
    said = rf"{name} is not what this run wrote: it has \d+ lines and had \d+|settings cannot be read"
    with pytest.raises(UserError, match=said):
        report(str(run))
    if name != "predictions.csv":  # which evaluating writes anew
        with pytest.raises(UserError, match=said):
            msmae.evaluate(str(run))


def test_a_digit_that_was_changed_is_refused_and_the_way_back_works(run: Path) -> None:
    content = (run / "manifest.csv").read_text()
    (run / "manifest.csv").write_text(content.replace("train", "tests", 1))
    with pytest.raises(UserError, match=r"changed or damaged since.*delete record\.json"):
        read_manifest(run / "manifest.csv")
    (run / "manifest.csv").write_text(content)
    assert len(read_manifest(run / "manifest.csv"))
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "# mine\n")
    with pytest.raises(UserError, match=r"config\.yaml is not what"):
        read_run(run)
    (run / FILE).unlink()
    assert read_run(run)


def test_a_kill_between_record_and_file_leaves_a_file_that_is_known(tmp_path: Path) -> None:
    path = write_recorded(tmp_path / "a.csv", "one\n")
    with pytest.raises(KeyboardInterrupt), recorded(path) as unfinished:  # noqa: PT012
        unfinished.write_text("two\n")
        raise KeyboardInterrupt
    check_recorded(path)
    before = path.read_bytes()
    write_recorded(path, "three\n")
    check_recorded(path)
    path.write_bytes(before)  # killed when the record was there and the file was not
    check_recorded(path)
    path.write_bytes(b"four\n")
    with pytest.raises(UserError, match="not what this run wrote"):
        check_recorded(path)


def test_the_sum_of_a_file_depends_on_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msmae.records.PART", 10)
    sums = set()
    for at in (None, 0, 9, 10, 25):
        content = bytearray(range(26))
        if at is not None:
            content[at] ^= 1
        (tmp_path / "a").write_bytes(content)
        sums.add(file_sum(tmp_path / "a"))
    assert len(sums) == 5
