"""The report's single cases: attention panels, as many as fit into the page, and the surest mistakes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from msmae.reporting.cases import failures, sort_panels
from msmae.reporting.run_files import Panel, RunFiles
from msmae.statistics.labels import LISTED, SPLITS, labels_to_check
from msmae.statistics.predictions import image_names

BYTES = 3_000_000
"""Of pictures that go into the page; in base64 they take a third more, and a wrong case is shown twice."""
FAILURES = 24
TITLES = {
    "wrong": "Wrong answers",
    "uncertain": "Uncertain answers",
    "right": "Right answers",
    "unknown": "Outcome not known",
}


def panels(run: RunFiles) -> dict[str, Any]:
    """The attention panels by outcome, and how many did not fit."""
    kinds = sort_panels(run.panels, classes=len(run.classes))
    fitting = fit(in_turn(kinds.values()))
    groups = [
        {"title": TITLES[kind], "panels": [panel for panel in members if panel in fitting]}
        for kind, members in kinds.items()
    ]
    return {"groups": [group for group in groups if group["panels"]], "left_out": len(run.panels) - len(fitting)}


def mistakes(run: RunFiles, rows: pd.DataFrame | None) -> dict[str, Any] | None:
    """The surest mistakes of the main split, with the panel of a case where it is among those that fit."""
    if rows is None:
        return None
    kinds = sort_panels(run.panels, classes=len(run.classes))
    pictures = tuple(fit(in_turn(kinds.values())))
    found = failures(rows, classes=run.classes, multilabel=run.multilabel, panels=pictures)
    shown = found[:FAILURES]
    near = nearest(run, {case.image_path for case in shown})
    return {"all": len(found), "n": len(rows), "shown": shown, "nearest": near}


def nearest(run: RunFiles, paths: set[str]) -> dict[str, list[tuple[str, str]]]:
    """Image (``image_names``) -> label and path of its nearest training images."""
    if run.neighbours is None:
        return {}
    named = run.neighbours.assign(image_path=image_names(run.neighbours))
    rows = named[named["image_path"].isin(paths)]
    cells = rows[["image_path", "neighbour_labels", "neighbours"]].to_numpy(dtype=object)
    return {image: list(zip(labels.split(";"), names.split(";"), strict=False)) for image, labels, names in cells}


def labels(run: RunFiles) -> dict[str, Any] | None:
    """The images whose given label the model believes least, of all splits that it was not trained on."""
    if run.predictions is None or not run.classes:
        return None
    table = labels_to_check(run.predictions, classes=run.classes, multilabel=run.multilabel)
    if table.empty:
        return None
    return {
        "shown": table.head(LISTED).assign(image_path=image_names(table.head(LISTED))).to_dict("records"),
        "contradicted": int((table["contradicted"] == "yes").sum()),
        "all": count_of(run),
    }


def count_of(run: RunFiles) -> int:
    """The labelled images that were not trained on."""
    assert run.predictions is not None
    return int((run.predictions["split"].isin(SPLITS) & (run.predictions["label"] != "")).sum())


def in_turn(groups: Iterable[list[Panel]]) -> list[Panel]:
    """The first of each group, then the second of each, ..."""
    lists = list(groups)
    longest = max((len(members) for members in lists), default=0)
    return [members[i] for i in range(longest) for members in lists if i < len(members)]


def fit(candidates: Iterable[Panel]) -> list[Panel]:
    """As many panels as there is room for, in this order."""
    room, chosen = BYTES, []
    for panel in candidates:
        size = panel.picture.stat().st_size
        if size <= room:
            chosen.append(panel)
            room -= size
    return chosen
