"""What `msmae run DATA --init ENCODER --minutes N` reached: DATA+minutes/ARM/SEED, from predictions that were kept;
DATA+minutes+mirrored: the same models with `msmae evaluate RUN --mirror on`.

A run has two rules of answering (``predicted``: balanced; ``predicted_plain``). Each figure is the mean of the seeds,
and its interval that of patients and seeds together; with one seed that of patients.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from msmae.statistics.answers import PLAIN
from msmae.statistics.paired import Resampled, matched, resample_together
from msmae.statistics.predictions import classes_of, read_predictions
from msmae.statistics.seeds import mean_over_seeds
from study_tables.markdown import NOT_YET, table
from study_tables.pooled_difference import own_seed

FIGURES = (
    ("balanced_accuracy", False, "balanced accuracy, balanced answers, %"),
    ("balanced_accuracy", True, "balanced accuracy, plain answers, %"),
    ("accuracy", True, "accuracy, plain answers, %"),
    ("auroc", False, "AUROC"),
)
"""(metric, whether of the plain answers, what the column is called)."""


def minutes_table(results: Path) -> str:
    """A Markdown table, a data set a row; "*Not run yet.*" where there is none."""
    rows = [row(study) for study in sorted(results.glob("*+minutes*")) if runs_of(study)]
    if not rows:
        return NOT_YET
    about = ["data", "seeds", "image side, px", "epochs", "fine-tuning, minutes (fastest seed)"]
    return table([*about, *(name for *_, name in FIGURES)], rows)


def runs_of(study: Path) -> list[Path]:
    """The finished runs of a study."""
    return sorted(path.parent for path in study.glob("*/*/metrics.json"))


def row(study: Path) -> list[str]:
    """One data set."""
    runs = runs_of(study)
    frames = [read_predictions(run / "predictions.csv") for run in runs]
    plain = [frame.assign(predicted=frame[PLAIN]) for frame in frames]
    sampled = {rule: resampled(of, seed=own_seed(study)) for rule, of in ((False, frames), (True, plain))}
    settings = [config_of(run) for run in runs]
    minutes = min(json.loads((run / "metrics.json").read_text())["cost"]["seconds_finetune"] / 60 for run in runs)
    return [
        study.name.replace("+minutes", "").replace("+", ", "), str(len(runs)), listed(one["size"] for one in settings),
        listed(one["epochs"] for one in settings), f"{minutes:.0f}",
        *(figure(sampled[rule], metric) for metric, rule, _ in FIGURES),
    ]  # fmt: skip


def resampled(frames: Sequence[pd.DataFrame], *, seed: int) -> list[Resampled]:
    """All seeds' test predictions under the same draws of patients."""
    return resample_together(matched(frames, classes=classes_of(frames[0]), split="test"), seed=seed)


def figure(sampled: Sequence[Resampled], metric: str) -> str:
    """The mean over the seeds, with its interval."""
    found = mean_over_seeds(sampled, metric)
    scale, digits = (1, 3) if metric == "auroc" else (100, 1)
    value, low, high = (f"{scale * found[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def config_of(run: Path) -> dict[str, str]:
    """Image side and epochs that were decided."""
    import yaml

    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["settings"]
    size = settings["model"]["image_size"]
    side = size if isinstance(size, int) else max(size)
    return {"size": str(side), "epochs": str(settings["finetune"]["epochs"])}


def listed(values: object) -> str:
    """Each value once, in order."""
    return ", ".join(dict.fromkeys(values))  # type: ignore[call-overload]
