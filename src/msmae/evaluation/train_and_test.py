"""One run from its prepared data to its evidence: pre-train, fine-tune, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.evaluation.evaluate import evaluate_model
from msmae.training.ensemble import train_ensemble
from msmae.training.finetune import finetune_model
from msmae.training.prepare import Prepared
from msmae.training.pretrain import pretrain_model
from msmae.training.trainer import is_main_process


def train_and_test(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Pre-train, fine-tune and evaluate, each unless the folder holds its result.

    Returns the content of metrics.json; nothing in the helper processes of distributed training.
    """
    if prepared.arm.pretrains and not (folder / "pretrained").is_dir():
        pretrain_model(prepared, folder)
    if not (folder / "model").is_dir():
        (train_ensemble if prepared.folds else finetune_model)(prepared, folder)
    return evaluate_model(prepared, folder) if is_main_process() else {}
