"""What a person sees at the end of a run: the table of results and where the files are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from msmae.data.manifest import printable

SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC (macro)",
    "auprc": "AUPRC (macro)",
    "f1_macro": "F1 (macro)",
    "mcc": "Matthews correlation",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "dice": "Dice",
    "iou": "intersection over union",
    "hd95": "Hausdorff distance, 95 % (px)",
    "nsd": "surface Dice",
    "lesion_sensitivity": "lesions found",
}


def show_notes(notes: Iterable[str]) -> None:
    """Print what was recognised, guessed, left out or cut, a line each."""
    for note in notes:
        print(f"- {printable(note)}")


FILES = ("report.html", "metrics.json", "predictions.csv", "segmentation.csv", "model")


def show_result(
    metrics: dict[str, Any], run: Path, *, files: Sequence[str] = FILES, console: Console | None = None
) -> None:
    """Print validation and test figures with their 95 % intervals, and the paths of those of the files that exist."""
    console = console or Console()
    splits = metrics["splits"]
    title = f"{metrics['arm']}, seed {metrics['seed']}"
    if metrics.get("keep", {}).get("selector", "all") != "all":
        title += f", from {100 * metrics['keep']['keep']:g} % of the tokens ({metrics['keep']['selector']})"
    table = Table(
        title=title,
        title_justify="left",
        caption="value [95 % interval, resampling patients where they are known]",
        caption_justify="left",
    )
    table.add_column("figure")
    shown = [name for name in ("val", "test", "internal", "external") if name in splits]
    for name in shown:
        patients = splits[name]["patients"]
        known = f", {patients} patients" if patients else ""
        table.add_column(f"{name} ({splits[name]['n']} images{known})", justify="right")
    measured = {key for split in splits.values() for key in split["metrics"]}
    for key, label in SHOWN.items():
        if key not in measured:
            continue
        table.add_row(label, *(figure(splits[name]["metrics"].get(key)) for name in shown))
    console.print(table)
    for name in files:
        if (run / name).exists():
            console.print(f"  {name:20} {run / name}", highlight=False, soft_wrap=True)


def figure(entry: dict[str, Any] | None) -> str:
    """``0.912 [0.885, 0.934]``, or a dash where the figure is undefined."""
    if entry is None or entry["value"] is None:
        return "-"
    if entry["low"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
