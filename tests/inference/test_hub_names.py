"""Which folder a name means: RUN/model is RUN, and a folder that is called so otherwise is itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from listed_files import touch
from msmae.inference.hub_folder import run_folder


def test_the_model_of_a_run_means_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = touch(tmp_path / "run", "config.yaml", "metrics.json", "model/config.json")
    (tmp_path / "best").symlink_to(run / "model")
    assert Path(run_folder(f"{run}/model")) == Path(run_folder(f"{run}/model/")) == run
    assert Path(run_folder(str(tmp_path / "best"))).resolve() == run.resolve()
    monkeypatch.chdir(run / "model")
    assert Path(run_folder(".")).resolve() == run.resolve()
    assert run_folder("../model") == ".."


@pytest.mark.parametrize(
    "others", [["metrics.json"], ["config.yaml"], ["metrics.json", "config.yaml", "model/patients.json"]]
)
def test_a_folder_called_model_is_itself_beside_other_files_or_with_its_own_patients(
    tmp_path: Path, others: list[str]
) -> None:
    touch(tmp_path, "model/config.json", *others)
    assert run_folder(str(tmp_path / "model")) == str(tmp_path / "model")
