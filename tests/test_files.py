"""Files are written whole or not at all, and never through a link."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from msmae.cli import main
from msmae.errors import UserError
from msmae.files import LEFT_OVER, Steady, own_folder, whole, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_whole(path, "first")
    assert write_whole(path, b"second").read_text() == "second"
    assert os.listdir(tmp_path) == ["report.html"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "metrics.json", "old")

    def write_half() -> None:
        with whole(path) as unfinished:
            unfinished.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("name", ["report.html", "report.html.part"])
def test_a_planted_link_is_not_followed(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(outside)
    write_whole(run / "report.html", "page")
    assert outside.read_text() == "mine"
    assert not (run / "report.html").is_symlink()
    assert (run / "report.html").read_text() == "page"


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "panels").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="link"):
        own_folder(tmp_path / "panels")
    assert own_folder(tmp_path / "own" / "panels").is_dir()


def test_the_rights_are_the_users_own(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    assert write_whole(tmp_path / "whole", "").stat().st_mode == plain.stat().st_mode


def test_what_a_kill_left_goes_after_an_hour(tmp_path: Path) -> None:
    old, young = tmp_path / ".a[1].csv.dead.part", tmp_path / ".a[1].csv.live.part"
    for file in (old, young):
        file.write_text("half")
    before = time.time() - 2 * LEFT_OVER
    os.utime(old, (before, before))
    write_whole(tmp_path / "a[1].csv", "all")
    assert sorted(os.listdir(tmp_path)) == [".a[1].csv.live.part", "a[1].csv"]


def test_bytes_of_a_name_that_are_not_utf8_are_spelt_out(tmp_path: Path) -> None:
    assert write_whole(tmp_path / "x", "a\udcff").read_bytes() == b"a\\udcff"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_told_at_the_end_of_what_torch_writes() -> None:
    """torch aborts the whole process where a write fails under it."""
    import torch

    with pytest.raises(OSError) as told, Steady(Path("/dev/full")) as stream:  # noqa: PT011
        torch.save({"weights": torch.zeros(10_000)}, stream)
    assert told.value.errno == errno.ENOSPC


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_one_sentence(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused(words: object) -> int:
        with whole(tmp_path / "model"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("msmae.cli.dispatch", refused)
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"msmae: {os.strerror(number)} ({tmp_path / 'model'}): ")
    assert told.count("\n") == 1
