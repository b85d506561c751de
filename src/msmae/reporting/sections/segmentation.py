"""The report's parts that only a segmentation has: outlines of single images, and figures by the lesions' size."""

from __future__ import annotations

from typing import Any

from msmae.reporting.headline import key_figure
from msmae.reporting.run_files import RunFiles
from msmae.reporting.sections.cases import fit, in_turn
from msmae.statistics.predictions import UNSURE

TITLES = {"best": "The best", "median": "In the middle", "worst": "The worst"}


def outlines(run: RunFiles) -> list[dict[str, Any]] | None:
    """Pictures of single images by how good the outline is, as many as fit; None where nothing was segmented."""
    if run.metrics.get("task") != "segmentation":
        return None
    groups = {kind: [panel for panel in run.panels if panel.kind == kind] for kind in TITLES}
    fitting = fit(in_turn(groups.values()))
    shown = [(kind, [panel for panel in panels if panel in fitting]) for kind, panels in groups.items()]
    return [{"title": TITLES[kind], "panels": panels} for kind, panels in shown if panels]


def by_size(run: RunFiles, split: str) -> list[dict[str, Any]]:
    """For each class the Dice of its small, middle and large lesions; empty where nothing was segmented."""
    return [
        {
            "name": part["class"],
            "rows": [
                {
                    "name": row["size"],
                    "n": row["n"],
                    "low": row["share_of_image"][0],
                    "high": row["share_of_image"][1],
                    "dice": key_figure("dice", row["dice"]),
                }
                for row in part["strata"]
            ],
        }
        for part in run.metrics["splits"][split].get("by_size", ())
    ]


def labels(run: RunFiles) -> tuple[str, ...] | None:
    """What the images of a segmentation are labelled with, which is not what is outlined; None for other tasks."""
    if run.metrics.get("task") != "segmentation" or run.manifest is None:
        return None
    pieces = {piece for label in run.manifest["label"] for piece in label.split(";")} - {""}
    several = bool(run.manifest["label"].str.contains(";").any())
    return tuple(sorted(piece for piece in pieces if not (several and piece.startswith(UNSURE))))


def empties(run: RunFiles, split: str) -> list[dict[str, Any]]:
    """For each class how many images show it or not, by whether anything was outlined; and Dice where it is shown."""
    known = run.metrics["splits"][split]
    return [
        {"name": name, **counts, "dice": key_figure("dice_lesion", known["per_class"][name].get("dice_lesion", {}))}
        for name, counts in (known.get("counts") or {}).items()
    ]
