"""Two commands in one folder, and runs that were killed at an awkward moment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import msmae
from msmae.errors import UserError
from msmae.records import check_content
from msmae.runs.folder import check_run
from msmae.runs.lock import LOCK, alone, held
from msmae.verbs.budget import budget
from msmae.verbs.evaluate import evaluate
from msmae.verbs.run import FINISHED
from saved_run import make_predictions, write_run

HOLD = """
import sys
import threading
from pathlib import Path
from msmae.runs.lock import held
with held(Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""


def holder(folder: Path) -> subprocess.Popen[bytes]:
    """A process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_the_second_is_told_who_holds_a_folder_and_takes_over_from_the_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = holder(folder)
    with pytest.raises(UserError, match=rf"in use by process {other.pid} on .* since "), held(folder):
        pytest.fail("held twice")
    with pytest.raises(UserError, match=r"is being trained: no model yet .* wait until it ends"):
        msmae.load(folder)
    with other:
        other.kill()
    assert (folder / LOCK).exists()
    with held(folder):
        assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
        (folder / "config.yaml").touch()
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    with pytest.raises(UserError, match=r"stopped before its model was saved .* repeat its command"):
        msmae.load(folder)


@pytest.mark.slow
def test_who_waits_comes_in_when_the_holder_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = holder(tmp_path / "comparison")
    threading.Timer(0.3, other.kill).start()
    with other, held(tmp_path / "comparison", wait=True):
        assert other.wait() < 0
    assert f"in use by process {other.pid}" in capsys.readouterr().out


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_the_processes_of_one_training_share_its_folder(
    tmp_path: Path, rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path / "run"):
        monkeypatch.setenv(rank, "1")
        with held(tmp_path / "run"):
            pass
        monkeypatch.setenv(rank, "0")
        with pytest.raises(UserError, match="in use"), held(tmp_path / "run"):
            pytest.fail("held twice")


def test_a_folder_that_is_refused_is_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no"), held(tmp_path / "new"):
        raise UserError("no")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").touch()
    with held(tmp_path / "theirs"):
        assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with held(tmp_path / "run"):
        assert (tmp_path / "precious").read_text() == "mine"


def test_a_verb_keeps_its_signature() -> None:
    @alone("out")
    def verb(data: str, *, out: str) -> str:
        """Says it."""
        return f"{data} {out}"

    assert verb.__doc__ == "Says it."
    with pytest.raises(TypeError, match="out"):
        verb("a")  # type: ignore[call-arg]


def refused(folder: Path, **words: object) -> None:
    check_run(folder, data="phantom", finished=FINISHED, **words)  # type: ignore[arg-type]


def test_a_run_that_was_killed_before_its_settings_or_its_report_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("environment.json", ".config.yaml.0123456789abcdef.part", "record.json", LOCK):
        (folder / name).touch()
        refused(folder)
    (folder / "config.yaml").touch()
    for name in FINISHED:
        refused(folder)
        (folder / name).touch()
    with pytest.raises(UserError, match="finished run"):
        refused(folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(UserError, match="something else"):
        refused(folder)


def test_images_that_were_replaced_are_noticed(tmp_path: Path) -> None:
    check_content(tmp_path, "a" * 64)
    check_content(tmp_path, "a" * 64)
    check_content(tmp_path, "")  # decoded on demand: not known
    with pytest.raises(UserError, match="not those that this run was started with"):
        check_content(tmp_path, "b" * 64)


@pytest.mark.slow
def test_a_run_killed_between_metrics_and_report_ends_as_if_it_had_not_been(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    msmae.run(str(data), out=str(tmp_path / "run"), preset="tiny")
    for name in ("predictions.csv", "manifest.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert (tmp_path / "run" / "report.html").is_file()


def test_what_changes_a_runs_model_waits_for_nobody_and_changes_nothing(tmp_path: Path) -> None:
    """`budget` writes back the card that it read long before: a threshold set meanwhile would be lost."""
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    before = (run / "model" / "config.json").read_bytes()
    with held(run):
        for verb in (lambda: budget(str(run)), lambda: evaluate(str(run), threshold="a=0.3")):
            with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
                verb()
    assert (run / "model" / "config.json").read_bytes() == before


@pytest.mark.parametrize("there", [False, True])
def test_a_run_without_a_model_is_not_called_in_training_by_the_verb_that_asks_for_it(
    tmp_path: Path, there: bool
) -> None:
    run = tmp_path / "of" / "none"
    if there:
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
    with pytest.raises(UserError, match="stopped before" if there else "no saved model here"):
        budget(str(run))
    assert [path.name for path in tmp_path.iterdir()] == ["of"] * there


def test_folders_made_to_hold_one_go_with_it(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()
    assert not list(tmp_path.iterdir())
