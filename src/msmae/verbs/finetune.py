"""``msmae finetune``: the classifier of a run that has been pre-trained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from msmae.config import find_arm
from msmae.errors import UserError
from msmae.runs.lock import alone

OF_MODEL = (
    "panels", "metrics.json", "predictions.csv", "predictions_patients.csv", "labels_to_check.csv",
    "neighbours.csv", "report.html", "model_card.md", "claim_2024.md", "tripod_ai.md",
    "checkpoints/last.ckpt", "checkpoints/before.ckpt", "checkpoints/best.ckpt", "model",
)  # fmt: skip
"""What RUN holds of its classifier, but for what was measured from some of the patches; the model goes last."""
PAUSE, PATIENCE = 0.2, 60
"""Seconds between two looks whether the main process has removed a model, and of all of them."""


@alone("run")
def finetune(run: str, *, overwrite: bool = False, **settings: Any) -> dict[str, Any]:
    """Fine-tune the pre-trained encoder of a run on the run's own splits, and evaluate it.

    Args:
        run: folder that `msmae pretrain` made.
        overwrite: train and test again, even if that has been done.
        settings: groups of settings to change, for instance ``finetune={"epochs": 5}``.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: the run is not pre-trained, or is finished.
    """
    folder = Path(run)
    from msmae.evaluation.evaluate import evaluate_model
    from msmae.records import write_recorded
    from msmae.runs.checkpoint import only_pretrained, read_card
    from msmae.runs.folder import change_settings
    from msmae.training.finetune import finetune_model
    from msmae.training.prepare import prepare_again
    from msmae.training.pretrain import check_training
    from msmae.training.trainer import is_main_process
    from msmae.verbs.evaluate import say_stale
    from msmae.verbs.show import show_result

    if not (folder / "pretrained").is_dir():
        raise UserError("the run holds no pre-trained encoder", where=run, mend="`msmae pretrain DATA --out RUN` first")
    find_arm(read_card(folder / "pretrained").method)
    if not read_card(folder / "pretrained").classes:
        raise only_pretrained(folder)
    fixed = sorted(settings.keys() & {"dataset", "model", "pretrain"})
    if fixed:
        raise UserError(
            f"the run's {' and '.join(fixed)} settings are fixed by its pre-training", mend="start a new run"
        )
    if (folder / "model").is_dir() and not overwrite:
        raise UserError("the run is fine-tuned already", where=run, mend="add --overwrite to do it again")
    if (folder / "checkpoints" / "last.ckpt").is_file() and settings and not (folder / "model").is_dir():
        raise UserError("an unfinished fine-tuning goes on with its own settings", where=run, mend="name none")
    before = (folder / "config.yaml").read_text(encoding="utf-8")
    try:
        change_settings(folder, settings)
        prepared = prepare_again(folder)
        check_training(prepared)
    except UserError:
        write_recorded(folder / "config.yaml", before)
        raise
    if (folder / "model").is_dir():
        forget_model(folder)
        say_stale(folder)
    finetune_model(prepared, folder)
    if not is_main_process():
        return {}
    metrics = evaluate_model(prepared, folder)
    show_result(metrics, folder)
    return metrics


def forget_model(folder: Path) -> None:
    """Remove a run's classifier and what was drawn from it; the pre-trained encoder stays. Of several processes the
    main one does, and the others wait for it.
    """
    from msmae.evaluation.keep import forget_measured
    from msmae.runs.folder import clear_output, is_helper_process

    if is_helper_process():
        ends = time.monotonic() + PATIENCE
        while (folder / "model").is_dir():
            if time.monotonic() > ends:
                raise UserError(
                    f"waited {PATIENCE} s for the main process to remove the model",
                    where=str(folder),
                    mend="unset RANK and SLURM_PROCID where each process has a run of its own",
                )
            time.sleep(PAUSE)
        return
    forget_measured(folder)
    clear_output(folder, OF_MODEL)
