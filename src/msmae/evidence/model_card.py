"""RUN/model_card.md: the model card of the Hugging Face hub, a YAML header and a page in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.evidence import headline
from msmae.evidence.markdown import Ready, escape, render
from msmae.evidence.run_files import RunFiles, read_run_files, write_whole
from msmae.evidence.sections import data, results
from msmae.evidence.study import facts
from msmae.evidence.wording import describe, split_name

HUB_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "auroc": "roc_auc",
    "f1_macro": "f1",
    "mcc": "matthews_correlation",
    "brier": "brier_score",
    "ece": "ece",
    "dice": "dice",
    "iou": "mean_iou",
}
"""Our name -> the hub's."""


def write_model_card(run: str | Path) -> Path:
    """Write RUN/model_card.md from the files in RUN. Raises ``UserError`` when the run is not finished."""
    return write_whole(Path(run) / "model_card.md", model_card(read_run_files(Path(run))))


def model_card(run: RunFiles) -> str:
    """The card, as text."""
    import yaml

    split = headline.main_split(run.metrics)
    header = yaml.safe_dump(hub_header(run, split), sort_keys=False, allow_unicode=True, width=120)
    return render(
        "model_card.md",
        header=Ready(header),
        run=run,
        split=split_name(split),
        facts=facts(run),
        cautions=[*headline.cautions(run), *data.warnings(run.audit)],
        leaks=data.leaks(run.audit),
        figures=results.figure_table(run),
        per_class=results.class_table(run, split),
        table_one=data.table_one(run),
        missing=run.missing,
        title=Ready(escape(f"{run.name}: {run.metrics.get('arm', 'model')}")),
    )


def hub_header(run: RunFiles, split: str) -> dict[str, Any]:
    """The YAML header; undefined figures are left out of it."""
    metrics = run.metrics["splits"][split]["metrics"]
    shown = {name: metrics[name] for name in HUB_METRICS if metrics.get(name, {}).get("value") is not None}
    task = "image-segmentation" if "segmentation" in str(run.metrics.get("task")) else "image-classification"
    return {
        "license": "unknown",
        "library_name": "msmae",
        "pipeline_tag": task,
        "tags": ["medical-imaging", "masked-autoencoder", "vision-transformer", "msmae"],
        "metrics": [HUB_METRICS[name] for name in shown],
        "model-index": [
            {
                "name": f"{run.name}-{run.metrics.get('arm', 'model')}",
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"name": run.name, "type": run.name, "split": split},
                        "metrics": [
                            {
                                "type": HUB_METRICS[name],
                                "name": describe(name).name,
                                "value": entry["value"],
                                "args": {"confidence_interval_95": [entry.get("low"), entry.get("high")]},
                            }
                            for name, entry in shown.items()
                        ],
                    }
                ],
            }
        ],
    }
