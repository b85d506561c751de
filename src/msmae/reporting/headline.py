"""The first screen: the task, the result, and what must be known before the numbers are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmae.reporting.cohort import images_of_patients, sentence
from msmae.reporting.run_files import RunFiles
from msmae.reporting.wording import (
    PERCENT,
    count,
    describe,
    duration,
    figure_interval,
    figure_reason,
    figure_value,
    of,
    percentage,
    split_name,
)
from msmae.statistics.predictions import to_arrays

LISTED = 8
"""Classes that are named one by one; of more, the four found least."""
KEY = ("accuracy", "balanced_accuracy", "auroc", "ece", "dice", "dice_lesion", "iou", "nsd", "hd95")
KEY_MULTI = ("balanced_accuracy", "auroc", "auprc", "ece")
FEW_UNITS = 30
SMOKE = (
    "The preset “tiny” is a smoke test: a small model, trained for seconds. Its figures say nothing about the method."
)
ARMS = {
    "none": "encoder trained from scratch, without pre-training",
    "file": "encoder taken from a file of weights",
    "vit": "vision transformer trained from scratch, without pre-training",
    "mae": "pre-trained with random masking, without labels",
    "supmae": "pre-trained with random masking and labels",
    "amt": "pre-trained with attention-guided masking, without labels",
    "msmae": "pre-trained with attention-guided masking and labels",
    "msmae-shuffled": "as msmae, but masked by the attention map of another image (control)",
    "msmae-released": "pre-trained as the code released with the paper does it",
    "probe": "linear head on a frozen pretrained encoder",
    "probe-knn": "vote of the nearest training images, on a frozen pretrained encoder",
    "probe-attentive": "attention head on a frozen pretrained encoder",
}


@dataclass(frozen=True)
class KeyFigure:
    """A number with its interval, as text and as places on a bar from 0 to 1."""

    name: str
    meaning: str
    value: str
    interval: str
    reason: str
    bar: tuple[float, float, float] | None
    """Low, value and high in percent of the bar; None where there is no interval or no such bar."""


def key_figure(name: str, entry: dict[str, Any], *, title: str | None = None) -> KeyFigure:
    """A metric's entry as it is shown."""
    known = describe(name)
    ends = [entry[key] for key in ("low", "value", "high") if entry.get(key) is not None]
    bar = None
    if known.bounded and len(ends) == 3:
        low, value, high = (round(100 * min(max(end, 0.0), 1.0), 2) for end in ends)
        bar = (low, value, high)
    return KeyFigure(
        name=title or known.name,
        meaning=known.meaning,
        value=figure_value(name, entry),
        interval=figure_interval(name, entry),
        reason=figure_reason(entry),
        bar=bar,
    )


def main_split(metrics: dict[str, Any]) -> str:
    """The split whose figures are the result: an external test set, else the test split, else what there is."""
    return next(
        (name for name in ("external", "test", "val") if name in metrics["splits"]), next(iter(metrics["splits"]))
    )


def asked(run: RunFiles) -> str:
    """The task, in one sentence."""
    task, arm = str(run.metrics.get("task", "classification")), str(run.metrics.get("arm", ""))
    goal = f"{task} into {of(len(run.classes), 'class')}" if len(run.classes) > 1 else task
    about = about_arm(run)
    way = f" with “{arm}”" + (f": {about}" if about else "") if arm else ""
    where = f" An external test of the run “{run.external['run']}” on data of another origin." if run.external else ""
    return f"{goal[:1].upper()}{goal[1:]}{way}.{where}"


def about_arm(run: RunFiles) -> str:
    """How the run's arm is trained, in a few words; from which encoder, where it begins with one."""
    arm, start = str(run.metrics.get("arm", "")), run.config.get("init")
    if (taken := run.config.get("from", "none")) != "none":  # a segmenter's, whose arm is the encoder's
        folder = Path(str(taken))
        return f"encoder taken from “{(folder.parent if folder.name == 'model' else folder).name}”"
    if not start:
        return ARMS.get(arm, "")
    name = f"the pretrained encoder “{Path(str(start)).name}”"
    if arm in ("vit", "none"):
        return f"vision transformer fine-tuned from {name}"
    return f"{ARMS[arm]}; begun with {name}" if arm in ARMS else ""


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """Name and value of what a reader asks first: the data, the sizes, the model, the time."""
    found = [("external data" if run.external else "data", run.name), *sizes(run)]
    if run.external:
        trained_on = Path(str(run.config.get("trained_on", "unknown")).rstrip("/")).stem
        found += [("trained on", trained_on), *_internal_sizes(run)]
    if run.classes:
        named = ", ".join(run.classes)
        found.append(("classes", named if len(run.classes) <= LISTED else f"{len(run.classes)}: {run.classes[0]}, …"))
    if rule := rule_of(run):
        found.append(("answers", rule))
    model, cost = run.model, run.metrics.get("cost") or {}
    if model.get("image_size"):
        side = " × ".join(str(pixels) for pixels in model["image_size"])
        found.append(("image size", f"{side} px, {of(model.get('channels', 1), 'channel')}"))
    if model.get("depth"):
        parameters = cost.get("parameters_encoder") or cost.get("parameters")
        size = f", {count(parameters)} parameters" if parameters else ""
        found.append(("encoder", f"{of(model['depth'], 'block')}, patches of {model.get('patch_size')} px{size}"))
    if averaged := run.metrics.get("averaged"):
        folds = "; each model is validated on a fold of the training images" if run.config.get("folds") else ""
        found.append(("averaged", f"{averaged}{folds}"))
    seconds = [cost[name] for name in ("seconds_pretrain", "seconds_finetune") if cost.get(name) is not None]
    if seconds:
        threads = run.environment.get("cpu_threads")
        on_cpu = f"CPU, {of(threads, 'thread')}" if threads else "CPU"
        where = ", ".join(run.environment.get("gpus") or ()) or on_cpu
        found.append(("trained for", f"{duration(sum(seconds))} ({where})"))
    return found


def sizes(run: RunFiles) -> list[tuple[str, str]]:
    """Name of a split and how many images, of how many patients, are in it."""
    if run.manifest is not None:
        by_split = [
            (split, run.manifest[run.manifest["split"] == split]) for split in ("train", "val", "test", "external")
        ]
        return [(split_name(split), sentence(rows)) for split, rows in by_split if len(rows)]
    return [
        (split_name(name), images_of_patients(split["n"], split.get("patients")))
        for name, split in run.metrics["splits"].items()
    ]


def _internal_sizes(run: RunFiles) -> list[tuple[str, str]]:
    """The images that an external test is held against."""
    splits = run.metrics["splits"]
    return [
        (split_name(name), images_of_patients(splits[name]["n"], splits[name].get("patients")))
        for name in ("internal", "val")
        if name in splits
    ]


def came_out(run: RunFiles) -> str:
    """The result in one sentence."""
    name = main_split(run.metrics)
    split = run.metrics["splits"][name]
    images = of(split["n"], f"{split_name(name)} image")
    dice = split["metrics"].get("dice") or {}
    if dice.get("value") is not None:
        interval = figure_interval("dice", dice)
        told = f" (95{PERCENT} CI {interval})" if interval else ""
        return f"Dice {figure_value('dice', dice)}{told}, on {images}.{_without_lesion(split)}"
    entry = split["metrics"].get("accuracy")
    if entry is None or entry.get("value") is None:
        return f"{images} evaluated."
    share = figure_value("accuracy", entry)
    if run.multilabel:
        known = _all_known(run, name)
        told = f"{images} evaluated for {of(len(run.classes), 'class')}"
        if known is None:
            return f"{told}; {share} of those whose labels are all known have every label right."
        right = count(round(entry["value"] * known))
        if known == split["n"]:
            return f"{told}; {right} ({share}) have every label right."
        return f"{told}. All labels are known of {count(known)}; {right} of these ({share}) have every label right."
    right = round(entry["value"] * split["n"])
    interval = figure_interval("accuracy", entry)
    told = f": {share} (95{PERCENT} CI {interval})" if interval else f" ({share})"
    return f"{count(right)} of {images} classified correctly{told}."


def _all_known(run: RunFiles, split: str) -> int | None:
    """Of how many labelled images of a split it is known of every class whether they have it; the accuracy of several
    labels an image is theirs alone. None: the run's predictions are not there."""
    if run.predictions is None:
        return None
    rows = run.predictions[(run.predictions["split"] == split) & (run.predictions["label"] != "")]
    return int(to_arrays(rows, classes=run.classes, multilabel=True).judged.all(axis=1).sum())


def _without_lesion(split: dict[str, Any]) -> str:
    """Of how many images a mean Dice says nothing about a lesion, and what it is on the others."""
    counts, lesion = split.get("counts") or {}, split["metrics"].get("dice_lesion") or {}
    if lesion.get("value") is None:
        return ""
    clear = {name: of_class["both_empty"] + of_class["false_alarms"] for name, of_class in counts.items()}
    several = len(clear) > 1
    told = ", ".join(f"{count(n)}{f' of {name}' if several else ''}" for name, n in clear.items())
    return f" Images without lesion: {told}. Dice on lesion images: {figure_value('dice_lesion', lesion)}."


def against_chance(run: RunFiles, rows: pd.DataFrame | None) -> list[str]:
    """What the figures are held against: the accuracy against the commonest class, the balanced accuracy of balanced
    answers against chance.
    """
    if rows is None or rows.empty or run.multilabel:
        return []
    shares = rows["label"].value_counts(normalize=True)
    if len(shares) < 2:
        return []
    found = [
        f"Always answering “{shares.index[0]}”, the commonest class here, is right for {percentage(shares.iloc[0])}."
    ]
    split = run.metrics["splits"][main_split(run.metrics)]
    entry = split.get("balanced", split)["metrics"].get("balanced_accuracy") or {}
    if entry.get("value") is not None:
        interval = figure_interval("balanced_accuracy", entry)
        told = f" (95{PERCENT} CI {interval})" if interval else ""
        whose = " of the balanced answers" if "balanced" in split else ""
        found.append(
            f"Balanced accuracy{whose}: {figure_value('balanced_accuracy', entry)}{told}; chance: "
            f"{percentage(1 / len(shares))}."
        )
    return found


def rule_of(run: RunFiles) -> str:
    """How the model answers, in a few words; empty where the run does not say."""
    rule, limits = run.metrics.get("answers"), run.metrics.get("thresholds") or {}
    if not rule:
        return ""
    if rule == "balanced":
        return "balanced (largest probability before calibration)"
    told = ", ".join(f"{name} from {limit:g}" for name, limit in limits.items())
    usual = "each class above 0.5" if run.multilabel else "largest calibrated probability"
    return f"plain ({usual}{f'; {told}' if told else ''})"


def worse_than_constant(run: RunFiles, rows: pd.DataFrame | None) -> list[str]:
    """A caution where the commonest class alone is right significantly more often than the model."""
    if rows is None or rows.empty or run.multilabel:
        return []
    entry = run.metrics["splits"][main_split(run.metrics)]["metrics"].get("accuracy") or {}
    shares = rows["label"].value_counts(normalize=True)
    if len(shares) < 2 or entry.get("high") is None or entry["high"] >= shares.iloc[0]:
        return []
    return [
        f"Always answering “{shares.index[0]}” would be right more often than the model. If training gave rare classes "
        "more weight, compare the balanced accuracy with chance instead."
    ]


def key_figures(run: RunFiles) -> list[KeyFigure]:
    """The figures of the first screen."""
    metrics = run.metrics["splits"][main_split(run.metrics)]["metrics"]
    wanted = KEY_MULTI if run.multilabel else KEY
    chosen = [name for name in wanted if name in metrics] or list(metrics)[:4]
    return [key_figure(name, metrics[name]) for name in chosen]


def found_by_class(run: RunFiles) -> list[KeyFigure]:
    """The sensitivity of each class; of many classes the four lowest."""
    per_class = run.metrics["splits"][main_split(run.metrics)].get("per_class") or {}
    found = {name: entry["sensitivity"] for name, entry in per_class.items() if "sensitivity" in entry}
    if len(found) > LISTED:
        known = [name for name, entry in found.items() if entry.get("value") is not None]
        found = {name: found[name] for name in sorted(known, key=lambda name: found[name]["value"])[:4]}
    return [key_figure("sensitivity", entry, title=name) for name, entry in found.items()]


def cautions(run: RunFiles) -> list[str]:
    """What must be read before the numbers are used."""
    name = main_split(run.metrics)
    split = run.metrics["splits"][name]
    found = []
    units, what = (split["n"], "image") if split.get("patients") is None else (split["patients"], "patient")
    if split["n"] == 0:
        found.append("No image of the test split has a label: nothing was measured.")
    elif split["n"] == 1 or units == 1:
        found.append(
            f"The figures rest on one {'image' if split['n'] == 1 else what}. They say nothing about others, and no "
            "interval can be given."
        )
    elif units < FEW_UNITS:
        found.append(f"The figures rest on {of(units, what)} only. Treat them as a pilot: the intervals are wide.")
    if name == "val":
        found.append("There is no test split. The model was selected on these validation images: expect lower figures.")
    found += [f"{note[:1].upper()}{note[1:]}." for note in split.get("notes", ())]
    if run.metrics.get("answers") != "plain" and (run.metrics.get("calibration") or {}).get("weights_undone"):
        found.append(
            "Training gave rare classes more weight. The answers keep that weight, the probabilities do not: an answer "
            "may have a small probability."
        )
    if (run.model.get("start") or {}).get("limited"):
        found.append("The licence of the pretrained encoder forbids commercial use. It also covers this model.")
    if run.config.get("preset") == "tiny":
        found.append(SMOKE)
    if run.environment.get("went_on_with"):
        found.append(
            "The run went on with other software than it was begun with "
            f"({', '.join(run.environment['went_on_with'])})."
        )
    found += disagreement(run)
    return found


def disagreement(run: RunFiles) -> list[str]:
    """Whether ``metrics.json`` and ``predictions.csv`` speak of the same predictions."""
    if run.predictions is None:
        return []
    found = []
    for name, split in run.metrics["splits"].items():
        rows = run.predictions[(run.predictions["split"] == name) & (run.predictions["label"] != "")]
        entry = split["metrics"].get("accuracy", {})
        same = len(rows) == split["n"]
        if same and len(rows) and not run.multilabel and entry.get("value") is not None:
            same = bool(np.isclose((rows["label"] == rows["predicted"]).mean(), entry["value"], rtol=0, atol=1e-9))
        if not same and (len(rows) or name in ("test", "val")):
            found.append(
                f"predictions.csv does not agree with metrics.json on the {split_name(name)} images. One of them was "
                "changed or belongs to another run: evaluate again before you use any number."
            )
    return found
