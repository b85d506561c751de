"""The report's section on training: the curves of each stage."""

from __future__ import annotations

from typing import Any

from msmae.evidence.run_files import RunFiles

STAGES = {"pretrain": "Pre-training", "finetune": "Fine-tuning", "segment": "Segmentation"}


def training(run: RunFiles) -> list[dict[str, Any]]:
    """For each stage its name and its figures."""
    from msmae.evidence.figures.training import by_panel, training_figure

    stages = []
    for stage, log in run.logs.items():
        name = STAGES.get(stage, stage)
        drawn = [training_figure(quantity, series, stage=name) for quantity, series in by_panel(log).items()]
        stages.append({"name": name, "figures": drawn})
    return stages
