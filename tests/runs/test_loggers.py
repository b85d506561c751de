"""Loggers: the report's CSV is always written, and nothing is sent anywhere that was not asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning.loggers
from pytorch_lightning.loggers import CSVLogger

import msmae
from msmae.errors import UserError
from msmae.runs.loggers import check_logger, loggers_of


class Noted:
    """Stands for the logger of a package that is not installed here."""

    def __init__(self, **given: Any) -> None:
        self.given, self.parameters = given, {}

    def log_hyperparams(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are there, in place of those that are."""
    names: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in names else None)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return names


def test_a_missing_package_is_one_sentence_before_anything_is_done(
    installed: set[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for kind in ("mlflow", "wandb"):
        with pytest.raises(UserError, match=rf"pip install -e '\.\[{kind}\]'"):
            msmae.run(str(data), out=str(tmp_path / "run"), preset="tiny", trainer={"logger": kind})
    assert not (tmp_path / "run").exists()
    installed.add("mlflow")  # the small package, which has no database
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        check_logger("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    check_logger("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    installed.add("sqlalchemy")
    check_logger("mlflow")
    check_logger("tensorboard")


@pytest.mark.usefixtures("installed")
def test_without_a_server_or_a_key_everything_stays_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFlowLogger", "WandbLogger"):
        monkeypatch.setattr(pytorch_lightning.loggers, name, Noted)
    flow, table = loggers_of("mlflow", tmp_path / "mine", "finetune", {"epochs": 3})
    assert isinstance(table, CSVLogger)
    assert flow.given["tracking_uri"] == f"sqlite:///{tmp_path / 'mine' / 'logs' / 'mlflow.db'}"
    assert flow.given["run_name"] == "mine-finetune"
    assert flow.parameters == {"epochs": 3}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert loggers_of("mlflow", tmp_path, "finetune", {})[0].given["tracking_uri"] == "http://127.0.0.1:5000"
    bias, table = loggers_of("wandb", tmp_path / "mine", "finetune", {})
    assert isinstance(table, CSVLogger)
    assert bias.given["offline"]
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert not loggers_of("wandb", tmp_path / "mine", "finetune", {})[0].given["offline"]
