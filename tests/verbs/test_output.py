"""What is there already is replaced by no verb unasked, and where it is asked for, alone what the verb writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import msmae
from msmae.errors import UserError
from msmae.runs.folder import check_output, clear_output
from msmae.verbs.bench import bench
from msmae.verbs.check import check
from msmae.verbs.embed import embed
from msmae.verbs.evaluate import evaluate

VERBS: dict[str, tuple[str, Callable[..., Any]]] = {
    "check": ("audit", lambda run, out, **more: check("phantom", out=out, **more)),
    "check --repair": ("clean.csv", lambda run, out, **more: check("phantom", repair=out, **more)),
    "evaluate": ("tested", lambda run, out, **more: evaluate(run, "phantom", out=out, **more)),
    "predict": ("predicted", lambda run, out, **more: msmae.predict(run, ["no.png"], out=out, **more)),
    "export": ("model.onnx", lambda run, out, **more: msmae.export(run, out=out, **more)),
    "embed": ("features.npz", lambda run, out, **more: embed(run, "phantom", out=out, **more)),
    "masks": ("pictures", lambda run, out, **more: msmae.masks("phantom", out=out, **more)),
    "bench": ("rows.json", lambda run, out, **more: bench(json=out, **more)),
}
"""A verb -> what it may be told to write, and how."""


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_replaces_what_is_there_before_it_is_told_to(
    verb: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, call = VERBS[verb]
    out, run = tmp_path / name, tmp_path / "run"
    if verb in ("evaluate", "export"):
        run = request.getfixturevalue("finished")
    mine = out if out.suffix else out / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"--overwrite"):
        call(str(run), str(out))
    assert mine.read_text() == "mine"


def test_a_folder_keeps_what_is_not_replaced(tmp_path: Path) -> None:
    writes = ("answers.csv", "masks")
    check_output(tmp_path / "new", overwrite=False, writes=writes)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/1.png").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds masks already.*replaces only that"):
        check_output(tmp_path, overwrite=False, writes=writes)
    check_output(tmp_path, overwrite=False, writes=writes, goes_on=True)
    check_output(tmp_path, overwrite=True, writes=writes)
    clear_output(tmp_path, writes)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"holds notes\.txt"):
        check_output(tmp_path, overwrite=False, writes=writes)


def test_a_run_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "environment.json").touch()
    with pytest.raises(UserError, match="holds a run"):
        check_output(tmp_path, overwrite=True, writes=("predictions.csv",))
    (tmp_path / "model.json").touch()  # an external test's
    check_output(tmp_path, overwrite=True, writes=("predictions.csv",))
