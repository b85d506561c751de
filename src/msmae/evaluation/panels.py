"""RUN/panels: attention maps of right, wrong and uncertain answers; RUN/looks: the patches that were encoded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from msmae.evaluation.pictures import Views, draw_selection, draw_strip
from msmae.evaluation.units import rows_of
from msmae.files import own_folder
from msmae.inference.model import Model, load
from msmae.runs.folder import write_json
from msmae.statistics.predictions import image_names, is_multilabel, mistakes
from msmae.training.prepare import Prepared

CHOSEN = 6
"""Classes whose first test image is pictured."""


def draw_panels(
    prepared: Prepared, run: Path, frame: pd.DataFrame, *, each: int = 3, model: Model | None = None
) -> None:
    """Draw test cases into RUN/panels, with their captions in panels.json.

    Args:
        frame: predictions, as in predictions.csv.
        each: how many cases of a kind.
        model: the run's own unless given.
    """
    folder = run / "panels"
    own_folder(folder)
    model = model or load(run)
    chosen = choose_cases(frame, each)
    samples = rows_of(prepared.manifest, frame.iloc[[position for position, _ in chosen]])
    images = prepared.store.fetch(samples).astype(np.float32)
    maps = model.attention(images)
    draw = prepared.draw if prepared.arm.guided else dataclasses.replace(prepared.draw, map="own")
    plan = draw.plan(maps, torch.Generator().manual_seed(prepared.seed))
    roles = plan.roles().reshape(maps.shape).numpy()
    outlines = prepared.store.fetch_masks(samples) if prepared.store.masks is not None else [None] * len(samples)
    captions: list[dict[str, Any]] = []
    names = image_names(frame)
    for i, (position, kind) in enumerate(chosen):
        case = frame.iloc[position]
        name = f"{i:02d}-{kind}.png"
        draw_strip(folder / name, Views("", images[i], maps[i].numpy(), roles[i], outline=outlines[i]))
        captions.append(
            {
                "image_path": names.iloc[position],
                "label": case["label"],
                "predicted": case["predicted"],
                "probability": float(confidence(frame)[position]),
                "kind": kind,
                "file": name,
            }
        )
    write_json(folder / "panels.json", {"panels": captions})


def draw_selections(prepared: Prepared, run: Path, looking: dict[str, Any], *, each: int = 8) -> None:
    """Draw the encoded patches of some test images, of every class in turn, into RUN/looks, with captions.

    ``looking``: ``selector`` and ``keep``; instead of all patches, a quarter is drawn.
    """
    model, folder = load(run), run / "looks"
    own_folder(folder)
    if looking["selector"] == "all":
        looking = {"selector": model.prepared.selector if model.prepared else "self", "keep": 0.25}
    ids = prepared.ids("test") if len(prepared.ids("test")) else prepared.ids("val")
    table = prepared.manifest.table.loc[ids]
    order = np.argsort(table.groupby("label").cumcount().to_numpy(), kind="stable")[:each]
    samples = ids[order]
    images = prepared.store.fetch(samples).astype(np.float32)
    seen = torch.zeros(len(samples), model.network.encoder.patches)
    seen.scatter_(1, model.looked_at(images, looking["keep"], selector=looking["selector"]), 1.0)
    seen = seen.reshape(len(samples), *model.network.encoder.grid)
    outlines = prepared.store.fetch_masks(samples) if prepared.store.masks is not None else [None] * len(samples)
    captions = []
    names = image_names(prepared.manifest.table)
    for i, sample in enumerate(samples):
        case = prepared.manifest.table.loc[sample]
        draw_selection(folder / f"{i:02d}.png", images[i], seen[i].numpy() > 0, outline=outlines[i])
        captions.append({"image_path": names.at[sample], "label": case["label"], "file": f"{i:02d}.png"})
    write_json(folder / "panels.json", {"panels": captions, **looking})


def choose_cases(frame: pd.DataFrame, each: int) -> list[tuple[int, str]]:
    """Rows of test images: the surest right ones, the surest wrong ones, those the model is least sure of; and, chosen
    whatever the model says, the first of each class, so that runs on the same data picture the same images.
    """
    top = confidence(frame)
    test = (frame["split"] == "test").to_numpy()
    several, answers = is_multilabel(frame), zip(frame["label"], frame["predicted"], strict=True)
    right = np.array([not any(mistakes(label, said, multilabel=several)) for label, said in answers], dtype=bool)
    order = np.argsort(-top, kind="stable")
    cases = [(int(i), "right") for i in spread(order[(test & right)[order]], frame, each)]
    cases += [(int(i), "wrong") for i in order[(test & ~right)[order]][:each]]
    taken = {i for i, _ in cases}
    unsure = [int(i) for i in order[::-1] if test[i] and int(i) not in taken]
    cases += [(i, "uncertain") for i in unsure[:each]]
    labelled = np.flatnonzero(test & (frame["label"] != "").to_numpy())
    first = labelled[~frame["label"].iloc[labelled].duplicated().to_numpy()][:CHOSEN]
    taken = {i for i, _ in cases}
    return cases + [(int(i), "chosen") for i in first if int(i) not in taken]


def confidence(frame: pd.DataFrame) -> np.ndarray:
    """What each image's answer was given, float64 [n]; where several were given or none, the largest of all classes."""
    columns = [str(c) for c in frame.columns if str(c).startswith("prob_")]
    shares = frame[columns].to_numpy(dtype=np.float64)  # [n, C]
    place = {name.removeprefix("prob_"): c for c, name in enumerate(columns)}
    of_answer = np.array([place.get(answer, -1) for answer in frame["predicted"]])
    return np.asarray(np.where(of_answer >= 0, shares[np.arange(len(frame)), of_answer], shares.max(axis=1)))


def spread(order: np.ndarray, frame: pd.DataFrame, each: int) -> np.ndarray:
    """The first rows of the order with a label not taken before, then any."""
    first = ~frame["label"].iloc[order].duplicated().to_numpy()
    return np.concatenate([order[first], order[~first]])[:each]
