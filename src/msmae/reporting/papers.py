"""The papers beside the report: model_card.md (of the Hugging Face hub: a YAML header and a page in Markdown), and the
reporting checklists claim_2024.md and tripod_ai.md, filled in from the run's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msmae.files import write_whole
from msmae.reporting import headline
from msmae.reporting.facts import facts
from msmae.reporting.render import TEMPLATES, Ready, escape, render
from msmae.reporting.run_files import RunFiles, as_answered, read_run_files
from msmae.reporting.sections import data, results
from msmae.reporting.wording import describe, split_name

CHECKLISTS = ("claim_2024", "tripod_ai")
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
    return write_whole(Path(run) / "model_card.md", model_card(as_answered(read_run_files(Path(run)))))


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
        "license": "cc-by-nc-4.0" if (run.model.get("start") or {}).get("limited") else "unknown",
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


@dataclass(frozen=True)
class Item:
    """One line of a checklist."""

    item: str
    section: str
    asks: str
    answer: str
    """What the run's files say; may be empty."""
    open: str
    """What a person must add; empty where nothing is."""


def write_checklists(run: str | Path) -> list[Path]:
    """Write RUN/claim_2024.md and RUN/tripod_ai.md. Raises ``UserError`` when the run is not finished."""
    files = as_answered(read_run_files(Path(run)))
    return [write_whole(Path(run) / f"{name}.md", checklist(name, files)) for name in CHECKLISTS]


def checklist(name: str, run: RunFiles) -> str:
    """One of `CHECKLISTS` for this run, as Markdown."""
    title, source, items = fill_in(name, run)
    return render(
        "checklist.md",
        title=title,
        source=source,
        run=run,
        items=items,
        answered=sum(bool(item.answer) and not item.open for item in items),
        partly=sum(bool(item.answer) and bool(item.open) for item in items),
        unanswered=sum(not item.answer for item in items),
    )


def fill_in(name: str, run: RunFiles) -> tuple[str, str, list[Item]]:
    """Title, source and items of a checklist. An item that the run should answer and cannot is open too."""
    import yaml

    content = yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8"))
    known = facts(run)
    items = []
    for entry in content["items"]:
        answer = " ".join(filter(None, (known[fact] for fact in entry.get("facts", ()))))
        todo = entry.get("open", "") if answer else entry.get("open", "the run's files do not say")
        items.append(Item(str(entry["item"]), entry["section"], entry["asks"], answer, todo))
    return content["title"], content["source"], items
