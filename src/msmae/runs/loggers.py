"""Where the figures of a training are logged: RUN/logs for everyone, MLflow or Weights & Biases for those who ask."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from msmae.errors import UserError, installing

NEEDS = {"mlflow": "mlflow", "wandb": "wandb"}
"""Logger -> the module it needs."""
SERVER = "MLFLOW_TRACKING_URI"


def check_logger(kind: str) -> None:
    """Raise ``UserError`` where the package behind a logger is not installed."""
    module = NEEDS.get(kind)
    if module is not None and importlib.util.find_spec(module) is None:
        raise UserError(f"logging to {kind} needs the package {module}", where="trainer.logger", mend=installing(kind))
    if kind == "mlflow" and not os.environ.get(SERVER) and importlib.util.find_spec("sqlalchemy") is None:
        raise UserError(
            "mlflow-skinny keeps no runs without a server",
            where="trainer.logger",
            mend=f"set {SERVER} to the server's address, or install the whole mlflow",
        )


def loggers_of(kind: str, run: Path, stage: str, settings: dict[str, Any]) -> list[Any]:
    """Lightning's loggers of a stage.

    The CSV in RUN/logs is always among them: the report reads it. MLflow writes to RUN/logs/mlflow.db unless
    MLFLOW_TRACKING_URI names a server; W&B to RUN/logs/wandb, and sends nothing unless WANDB_API_KEY is set.

    Args:
        kind: tensorboard, mlflow or wandb.
        stage: pretrain, finetune, ...
        settings: what is logged as the parameters of the run.
    """
    logs = run / "logs"
    table = CSVLogger(logs, name=stage, version="csv")
    name = f"{run.resolve().name}-{stage}"
    if kind == "mlflow":
        from pytorch_lightning.loggers import MLFlowLogger

        logs.mkdir(parents=True, exist_ok=True)
        server = os.environ.get(SERVER, f"sqlite:///{logs.resolve() / 'mlflow.db'}")
        beside: Any = MLFlowLogger(experiment_name="msmae", run_name=name, tracking_uri=server)
    elif kind == "wandb":
        from pytorch_lightning.loggers import WandbLogger

        (logs / "wandb").mkdir(parents=True, exist_ok=True)
        offline = not os.environ.get("WANDB_API_KEY") and not os.environ.get("WANDB_MODE")
        beside = WandbLogger(name=name, project="msmae", save_dir=logs, offline=offline)
    else:
        return [TensorBoardLogger(logs, name=stage, version=""), table]
    beside.log_hyperparams(settings)
    return [beside, table]
