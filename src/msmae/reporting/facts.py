"""What a run's files say about the study, as sentences: for the model card and the reporting checklists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msmae.config import ARMS
from msmae.reporting import cohort, headline
from msmae.reporting.cases import failures
from msmae.reporting.run_files import RunFiles
from msmae.reporting.sections import data, results
from msmae.reporting.wording import (
    SPLITS,
    count,
    describe,
    duration,
    figure_interval,
    figure_value,
    number,
    of,
    percentage,
    split_name,
)
from msmae.statistics.predictions import names_patient

FACTS = (
    "category",
    "goal",
    "source",
    "sizes",
    "excluded",
    "preprocessing",
    "missing_labels",
    "partition",
    "disjoint",
    "test_size",
    "model",
    "output",
    "software",
    "initial",
    "training",
    "imbalance",
    "selection",
    "ensemble",
    "metrics",
    "uncertainty",
    "calibration",
    "subgroups",
    "attention",
    "internal",
    "external",
    "flow",
    "characteristics",
    "events",
    "performance",
    "by_class",
    "failures",
    "cautions",
    "cost",
    "code",
)
"""The names of the sentences that `facts` gives."""


BALANCE = {
    "none": "Nothing was done.",
    "auto": "Default: equal total weight of each class in the loss where the commonest class has more than twice the "
    "images of the rarest, else nothing.",
    "class_weights": "Equal total weight of each class in the loss.",
    "logit_adjustment": "Logits shifted by the log class frequencies during training.",
    "sampling": "Classes sampled equally often during training.",
}
"""What the setting `finetune.balance` does."""


CATEGORY = {
    "pretrained": "a vision transformer pre-trained as a masked autoencoder",
    "trained": "a vision transformer",
    "linear": "a linear head on a frozen vision transformer",
    "knn": "a vote of nearest neighbours on a frozen vision transformer",
    "attentive": "an attention head on a frozen vision transformer",
}
"""By what an arm makes of its encoder (`_kind`)."""
HEADS = dict.fromkeys(CATEGORY, "a linear head reads") | {"knn": "the 20 nearest training images vote by"}
READS = {
    "cls": "the class token",
    "mean": "the mean of the patch tokens",
    "both": "the class token and the mean of the patch tokens",
    "attentive": "what a learned query takes from all tokens",
}
FITTED = {
    "linear": "The encoder stays as it is. A logistic regression on its features learns; its penalty is chosen by the "
    "validation loss.",
    "knn": "Nothing is trained: the model remembers the features of the training images.",
    "attentive": "The encoder stays as it is. A learned query and a linear head learn; the epoch is chosen by the "
    "validation loss.",
}
"""How the head of a frozen encoder comes about."""


def facts(run: RunFiles) -> dict[str, str]:
    """Name -> sentence, for each of `FACTS`; empty where the run's files do not say."""
    split = headline.main_split(run.metrics)
    found = {**_data_facts(run), **_model_facts(run), **_training_facts(run), **_result_facts(run, split)}
    assert set(found) == set(FACTS)
    return found


def _data_facts(run: RunFiles) -> dict[str, str]:
    dataset = _settings(run, "dataset")
    table = run.manifest
    known = {
        "source": f"Read from “{Path(str(run.config['data'])).name}”." if run.config.get("data") else "",
        "sizes": _join(f"{name}: {size}" for name, size in headline.sizes(run)),
        "excluded": _excluded(run),
    } | dict.fromkeys(("partition", "disjoint", "missing_labels", "flow", "characteristics", "events"), "")
    if run.external:
        known["partition"] = "Nothing was divided: every labelled image is a test image."
    elif dataset:
        known["partition"] = (
            "Splits that came with the data were kept; images without one were divided at random, stratified by label "
            f"and with the images of a patient together ({percentage(dataset.get('val_fraction', 0))} for validation, "
            f"{percentage(dataset.get('test_fraction', 0))} for testing; seed {run.config.get('seed')}). "
            "manifest.csv holds the assignment of every image."
        )
    if table is None:
        return known
    unlabelled = int((table["label"] == "").sum())
    known["missing_labels"] = (
        f"{of(unlabelled, 'image')} without a label; excluded from fine-tuning and evaluation."
        if unlabelled
        else "Every image has a label."
    )
    known["disjoint"] = _disjoint(run)
    known["flow"] = _join(f"{box['name']}: {box['size']} ({box['share']})" for box in data.flow(run))
    named = [*filter(cohort.is_age, table.columns), *(group.name for group in cohort.groups(table))]
    known["characteristics"] = (
        f"Table 1 of report.html: classes and {', '.join(dict.fromkeys(named))} in each split."
        if named
        else "Table 1 of report.html: classes in each split. The manifest names no age, sex or site."
    )
    known["events"] = _join(
        f"{split_name(split)}: "
        + ", ".join(
            f"{int(cohort.has_label(rows['label'], name, multilabel=run.multilabel).sum())} {name}"
            for name in run.classes
        )
        for split in cohort.split_order(table)
        for rows in [table[table["split"] == split]]
    )
    return known


def _model_facts(run: RunFiles) -> dict[str, str]:
    model, cost = run.model, run.metrics.get("cost") or {}
    arm = str(run.metrics.get("arm", ""))
    kind = headline.about_arm(run)
    known = {
        "category": f"Deep learning ({CATEGORY[_kind(arm)]}).",
        "goal": headline.asked(run),
        "model": "",
        "preprocessing": "",
        "output": _output(run),
        "cost": _cost(cost),
    }
    if model.get("image_size"):
        size = " × ".join(str(side) for side in model["image_size"])
        mean, std = (", ".join(number(value) for value in model.get(name, ())) for name in ("mean", "std"))
        used, seen = [model.get("mean"), model.get("std")], (model.get("start") or {}).get("seen")
        whose = "of the training images" if seen in (None, used) else "that the pretrained encoder expects"
        known["preprocessing"] = (
            f"Images resized to {size} pixels and {of(model.get('channels', 1), 'channel')}, then standardised with "
            f"mean {mean} and standard deviation {std} {whose}, in the files' own units."
        )
    if model.get("depth"):
        known["model"] = (
            f"Vision transformer of {of(model['depth'], 'block')}, {model.get('width')} wide, with "
            f"{of(model.get('heads', 1), 'attention head')}, on patches of {model.get('patch_size')} pixels; "
            f"{HEADS[_kind(arm)]} {READS.get(model.get('pool', 'cls'), READS['cls'])}"
            + (f"; {cost['parameters']:,} parameters" if cost.get("parameters") else "")
            + f". Arm “{arm}”"
            + (f": {kind}." if kind else ".")
        )
    return known


def _training_facts(run: RunFiles) -> dict[str, str]:
    packages = run.environment.get("packages") or {}
    versions = [f"{name} {version}" for name, version in packages.items() if version]
    own = (
        f"msmae {run.environment['msmae']}, Python {run.environment.get('python')}"
        if run.environment.get("msmae")
        else ""
    )
    fine, kind = _settings(run, "finetune"), _kind(str(run.metrics.get("arm", "")))
    pretrains, frozen = kind == "pretrained", kind in FITTED
    ema, remedy = None if frozen else fine.get("ema"), fine.get("balance")
    if remedy == "auto":  # what it came to
        remedy = (run.metrics.get("calibration") or {}).get("balance", remedy)
    return {
        "software": ", ".join([own, *versions]) + "." if own else "",
        "initial": _initial(run, pretrains=pretrains),
        "training": FITTED[kind]
        if frozen
        else " ".join(
            _stage(name, _settings(run, stage))
            for stage, name in (("pretrain", "Pre-training"), ("finetune", "Fine-tuning"))
            if _settings(run, stage) and (stage == "finetune" or pretrains)
        ),
        "imbalance": BALANCE.get(remedy, f"Setting: {remedy}.") if remedy else "",
        "selection": ""
        if frozen or not run.config
        else "The weights of the fine-tuning epoch with the lowest validation loss, of those validated.",
        "ensemble": _ensemble(run.config.get("folds", 0), ema, mirrored=run.model.get("mirrored", False))
        if fine
        else "",
        "code": "Made with msmae (MIT licence); config.yaml holds every setting. SHA-256 of the weights "
        f"{str(run.metrics.get('model_sha256', 'unknown'))[:12]}, of the data "
        f"{str(run.metrics.get('data_sha256', 'unknown'))[:12]}.",
    }


def _ensemble(folds: int, ema: float | None, *, mirrored: bool) -> str:
    """What is averaged: the answers of several models, those to mirror images, the weights over the training."""
    said = "None."
    if folds:
        said = f"The mean of the probabilities of {folds} models of one recipe, each validated on images of its own. "
        said += "Validation figures are of the model that had not learned from the image."
    if mirrored:
        said += " The answers to an image and to its mirror image are averaged."
    if ema:
        said += f" The weights are an exponential moving average over training steps (decay {ema})."
    return said


def _result_facts(run: RunFiles, split: str) -> dict[str, str]:
    result = run.metrics["splits"][split]
    names = [describe(name).name for name in result["metrics"]]
    slopes = {
        name: entry["calibration_slope"] for name, entry in (result.get("per_class") or {}).items()
        if entry.get("calibration_slope", {}).get("value") is not None
    }  # fmt: skip
    ece = result["metrics"].get("ece") or {}
    groups = [group.name for group in cohort.groups(run.manifest)] if run.manifest is not None else []
    return {
        "test_size": f"{of(result['n'], 'image')} of {of(result['patients'], 'patient')}."
        if result.get("patients")
        else f"{of(result['n'], 'image')}"
        + (f" with {of(result['clusters'], 'cluster')} of near-identical images" if result.get("clusters") else "")
        + "; patients unknown.",
        "metrics": f"{'; '.join(names)}; by class sensitivity, specificity, PPV, NPV, F1, AUROC and AUPRC.",
        "uncertainty": f"95 % intervals: bootstrap over {_units(result)} "
        f"({count(result.get('resamples'))} resamples, bias-corrected and accelerated), Wilson or Clopper-Pearson "
        "where a share has no clusters or is 0 or 1. No hypothesis was tested.",
        "calibration": (
            f"Expected calibration error {figure_value('ece', ece)} ({figure_interval('ece', ece) or 'no interval'})."
            + "".join(f" {told}" for told in results.calibration(run.metrics, split))
            + "".join(f" Slope for {name}: {figure_value('calibration_slope', e)}." for name, e in slopes.items())
            if ece.get("value") is not None
            else ""
        ),
        "subgroups": f"Figures by {', '.join(groups)} in report.html; not planned beforehand." if groups else "",
        "attention": f"The attention of the class token is shown for {of(len(run.panels), 'case')}; it was not "
        "validated against readers."
        if run.panels
        else "",
        "internal": _performance(run, "test") or _performance(run, "internal"),
        "external": _performance(run, "external"),
        "performance": _performance(run, split),
        "by_class": "; ".join(
            f"{name}: sensitivity {_with_interval('sensitivity', entry['sensitivity'])}, specificity "
            f"{_with_interval('specificity', entry['specificity'])}"
            for name, entry in (result.get("per_class") or {}).items()
            if "sensitivity" in entry and "specificity" in entry
        ),
        "failures": _failures(run, split),
        "cautions": " ".join([*headline.cautions(run), *data.warnings(run.audit)]),
    }


def _units(result: Mapping[str, Any]) -> str:
    """What was resampled."""
    if result.get("patients"):
        return "patients"
    return "images and clusters of near-identical images" if result.get("clusters") else "images"


def _settings(run: RunFiles, group: str) -> dict[str, Any]:
    return dict((run.config.get("settings") or {}).get(group) or {})


def _join(pieces: Any) -> str:
    text = "; ".join(pieces)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _excluded(run: RunFiles) -> str:
    if run.audit is None:
        return ""
    unreadable = data.amount(run.audit.get("unreadable"))
    return f"{of(unreadable, 'image')} could not be read." if unreadable else "Every image could be read."


def _disjoint(run: RunFiles) -> str:
    assert run.manifest is not None
    used = run.manifest[run.manifest["split"] != ""]
    named = used[names_patient(used)]
    if named.empty and (together := cohort.split_clusters(used)) is not None:
        return f"Cluster of near-identical images: {of(together, 'cluster')} in more than one split. Patients unknown."
    if named.empty:
        return "Image: patients unknown, so images of one patient may be in several splits."
    crossing = int((named.groupby("patient_id")["split"].nunique() > 1).sum())
    if crossing:
        return f"Image: {of(crossing, 'patient')} in more than one split."
    unknown = int((~names_patient(run.manifest)).sum())
    return "Patient: no patient is in more than one split." + (
        f" {of(unknown, 'image')} without a patient id." if unknown else ""
    )


def _kind(arm: str) -> str:
    """What an arm makes of its encoder: pretrained (here), trained, or what kind of head is fitted to a frozen one."""
    known = ARMS.get(arm)
    return "pretrained" if known is None or known.pretrains else known.frozen or "trained"


def _initial(run: RunFiles, *, pretrains: bool) -> str:
    if not run.config:
        return ""
    init = run.config.get("init")
    start = f"encoder weights from “{Path(str(init)).name}”{licence_of_start(run)}" if init else "random weights"
    if pretrains:
        return f"Fine-tuning starts from the encoder that was pre-trained in this run; pre-training from {start}."
    return f"Training starts from {start}."


def _output(run: RunFiles) -> str:
    if not run.classes:
        return ""
    names, rule = ", ".join(run.classes), headline.rule_of(run)
    told = f"Answers: {rule}." if rule else ""
    if run.multilabel:
        return f"A probability for each of {names}. {told}"
    return f"A probability for each of {names}, summing to one. {told}"


def _stage(name: str, settings: dict[str, Any]) -> str:
    low, high = (settings.get("crop_scale") or (1, 1))[:2]
    return (
        f"{name}: {of(settings.get('epochs') or 0, 'epoch')}, batches of {settings.get('batch_size')}, AdamW, base "
        f"learning rate {settings.get('base_lr')} for 256 images with warm-up and cosine decay; random crops of "
        f"{100 * low:.0f} to {100 * high:.0f} % of the area, left-right flip with probability {settings.get('flip')}."
    )


def _cost(cost: dict[str, Any]) -> str:
    told = [
        f"{cost[key]:.3g} GMAC an image in {what}"
        for key, what in (("gmacs_pretrain", "pre-training"), ("gmacs_train", "fine-tuning"), ("gmacs_predict", "use"))
        if cost.get(key) is not None
    ]
    spent = sum(cost[key] for key in ("seconds_pretrain", "seconds_finetune") if cost.get(key) is not None)
    return _join([*told, *([f"{duration(spent)} of training"] if spent else [])])


def _with_interval(name: str, entry: dict[str, Any]) -> str:
    interval = figure_interval(name, entry)
    return figure_value(name, entry) + (f" ({interval})" if interval else "")


def _performance(run: RunFiles, split: str) -> str:
    result = run.metrics["splits"].get(split)
    if not result or not result["metrics"]:
        return ""
    shown = [name for name in headline.KEY if name in result["metrics"]] or list(result["metrics"])[:4]
    told = [f"{describe(name).name} {_with_interval(name, result['metrics'][name])}" for name in shown]
    return f"{SPLITS.get(split, split).capitalize()} images ({result['n']:,}): {', '.join(told)}."


def _failures(run: RunFiles, split: str) -> str:
    if run.predictions is None:
        return ""
    rows = run.predictions[(run.predictions["split"] == split) & (run.predictions["label"] != "")]
    wrong = failures(rows, classes=run.classes, multilabel=run.multilabel, panels=())
    return f"{len(wrong):,} of {len(rows):,} answers are wrong; report.html lists the most confident."


def licence_of_start(run: RunFiles) -> str:
    """In brackets, the checksum and the licence of the pretrained encoder that a run began with."""
    start = run.model.get("start") or {}
    if not start:
        return ""
    licence = start.get("licence") or "licence not known"
    return f" (SHA-256 {str(start.get('sha256'))[:12]}...; {licence})"
