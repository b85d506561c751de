"""Evaluation: predictions on validation and test, and the figures drawn from them."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from msmae.evaluation.calibrate import calibrate
from msmae.evaluation.known_features import known_tokens
from msmae.evaluation.panels import draw_panels
from msmae.evaluation.units import evaluate_units, summary_options
from msmae.files import fill_csv, whole
from msmae.inference.model import Keep, Model, kept_tokens, load, own_way, selection_with
from msmae.method.cost import classifier_macs, map_macs, msmae_macs
from msmae.method.msmae import MSMAE
from msmae.reporting.papers import write_checklists, write_model_card
from msmae.reporting.report import write_report
from msmae.runs.checkpoint import file_sha256, read_card, read_checkpoint, with_keep, write_card
from msmae.runs.folder import write_json
from msmae.selection.cost import selection_macs
from msmae.statistics.answers import DEFAULT, PLAIN, Rule, name_classes, say_averaged, with_plain
from msmae.statistics.labels import labels_to_check
from msmae.statistics.predictions import write_predictions
from msmae.statistics.summary import summarise, with_both_rules
from msmae.training.ensemble import member
from msmae.training.prepare import Prepared, data_fingerprint
from msmae.training.views import finetuning_macs

RATED = 512
"""Images by which a probe's rate is measured: its answers come from features that are known."""


@dataclass(frozen=True)
class How:
    """How a model answers the images of a data set."""

    keep: float = 1.0
    """Share of the tokens that are encoded."""
    selector: str | None = None
    """What chooses them; None: the model's own way (``inference.model.own_way``)."""
    splits: tuple[str, ...] = ("val", "test")
    """Whose labelled images are predicted."""


def evaluate(model: Model, data: Prepared, how: How) -> tuple[pd.DataFrame, float]:
    """Predictions of the labelled images of some splits, the network's own (not calibrated); and images a second."""
    rows = np.concatenate([data.ids(split) for split in how.splits])
    probabilities = from_features(model, data, rows) if how == How(splits=how.splits) else None
    timed = rows[:RATED] if probabilities is not None else rows
    began = time.perf_counter()
    predicted = predict_rows(model, data, timed, keep=how.keep, selector=how.selector)
    rate = len(timed) / (time.perf_counter() - began)
    probabilities = predicted if probabilities is None else probabilities
    kind: dict[str, Any] = {"classes": model.classes, "multilabel": model.card.multilabel}
    frame = predictions_frame(probabilities, data, rows, **kind)
    if not data.folds or "val" not in how.splits:
        return frame, rate
    parts = [frame[frame["split"] != "val"]]
    for number, one in enumerate(model.members(), start=1):  # what each has not learned from
        view = member(data, number)
        rows = view.ids("val")
        parts.insert(-1, predictions_frame(predict_rows(one, view, rows), view, rows, **kind))
    return pd.concat(parts, ignore_index=True), rate


def evaluate_model(
    prepared: Prepared,
    run: Path,
    *,
    answers: Rule = DEFAULT,
    thresholds: Mapping[str, float] | None = None,
    mirrored: bool | None = None,
) -> dict[str, Any]:
    """Write RUN/predictions.csv and RUN/metrics.json; the model was chosen on validation, the test split is read once.

    ``answers``: the rule whose figures are shown first; metrics.json holds both. ``thresholds``, and whether answers
    are ``mirrored``, replace what the model keeps. Returns the content of metrics.json.
    """
    if mirrored is not None:
        write_card(run / "model", replace(read_card(run / "model"), mirrored=mirrored))
    model = load(run)
    own, rate = evaluate(model, prepared, How())
    frame, calibrator, calibration = calibrate(own, prepared)
    card = replace(model.card, calibration=asdict(calibrator) if calibrator else {})
    card = card if thresholds is None else replace(card, thresholds=dict(thresholds))
    write_card(run / "model", card)
    frame = with_plain(frame, model.classes, multilabel=card.multilabel, thresholds=card.thresholds)
    draw_panels(prepared, run, frame if answers == "balanced" else frame.assign(predicted=frame[PLAIN]))
    metrics = write_evidence(
        frame,
        prepared,
        run,
        model_sha256=file_sha256(run / "model" / "model.safetensors"),
        cost={
            **count_cost(prepared, run, model),
            "images_per_s_predict": rate,
            **seconds_spent(run),
            "memory_bytes": peak_memory(),
        },
        calibration=calibration,
        answers=answers,
        thresholds=card.thresholds,
        averaged=say_averaged(card.members, mirrored=card.mirrored),
        model=None if prepared.folds else model,  # the first one's features know the others' images
    )
    write_model_card(run)
    write_checklists(run)
    return metrics


def evaluate_kept(prepared: Prepared, run: Path, how: How, *, answers: Rule = DEFAULT) -> dict[str, Any]:
    """Write RUN/predictions_keep.csv and RUN/metrics_keep.json: the same from some of the patches, calibrated anew; the
    model's card keeps that calibration, so that the model predicts what was measured.

    Returns the content of metrics_keep.json.
    """
    model = load(run)
    assert how.selector is not None
    selection = selection_with(model.network, model.prepared, how.selector)
    own, rate = evaluate(model, prepared, how)
    frame, calibrator, calibration = calibrate(own, prepared)
    point = {"selector": how.selector, "keep": how.keep}
    others = [one for one in model.card.keep.get("calibrations", []) if {**one, **point} != one]
    fitted = {**point, "calibration": asdict(calibrator) if calibrator else {}}
    write_card(run / "model", with_keep(model.card, calibrations=[*others, fitted]))
    thresholds = model.card.thresholds
    frame = with_plain(frame, model.classes, multilabel=model.card.multilabel, thresholds=thresholds)
    write_predictions(frame, run / "predictions_keep.csv")
    metrics = {
        **described(prepared),
        "keep": point,
        "answers": answers,
        "thresholds": thresholds,
        "calibration": calibration,
        "splits": summarised(frame, prepared, classes=model.classes, multilabel=model.card.multilabel),
        "cost": {
            "gmacs_predict": selection_macs(selection, kept_tokens(selection, how.keep)).total / 1e9,
            "images_per_s_predict": rate,
        },
    }
    write_json(run / "metrics_keep.json", metrics)
    return metrics


def summarised(
    frame: pd.DataFrame, prepared: Prepared, *, classes: Sequence[str], multilabel: bool
) -> dict[str, dict[str, Any]]:
    """The ``splits`` of metrics.json, by both rules, under the run's settings."""
    options = summary_options(prepared, classes, multilabel=multilabel)
    return with_both_rules(summarise(frame, **options), frame, **options)


def write_evidence(
    frame: pd.DataFrame,
    prepared: Prepared,
    run: Path,
    *,
    model_sha256: str | None,
    cost: dict[str, Any],
    calibration: dict[str, Any] | None = None,
    answers: Rule = DEFAULT,
    thresholds: Mapping[str, float] | None = None,
    averaged: str = "",
    model: Model | None = None,
) -> dict[str, Any]:
    """RUN/predictions.csv, RUN/metrics.json and RUN/report.html from the predictions of any model; where the images
    name patients (or other units) also RUN/predictions_patients.csv.

    ``calibration``: what was done to the probabilities; None: nothing yet, so it is done here. ``model``: gives
    features for the attention that pools a patient's images.

    Returns the content of metrics.json.
    """
    classes, multilabel = prepared.manifest.classes, prepared.manifest.multilabel
    if calibration is None:
        frame, _, calibration = calibrate(frame, prepared)
    if PLAIN not in frame:
        frame = with_plain(frame, classes, multilabel=multilabel)
    write_predictions(frame, run / "predictions.csv")
    write_labels(frame, run, classes=classes, multilabel=multilabel)
    patients = evaluate_units(frame, prepared, run, model=model, thresholds=thresholds)
    metrics = {
        **described(prepared),
        "model_sha256": model_sha256,
        "data_sha256": data_fingerprint(prepared),
        "answers": answers,
        "thresholds": dict(thresholds or {}),
        "averaged": averaged,
        "calibration": calibration,
        "splits": summarised(frame, prepared, classes=classes, multilabel=multilabel),
        "cost": cost,
    }
    if patients:
        metrics["patients"] = patients
    write_json(run / "metrics.json", metrics)
    write_report(run)
    return metrics


def write_labels(frame: pd.DataFrame, folder: Path, *, classes: Sequence[str], multilabel: bool) -> None:
    """Write FOLDER/labels_to_check.csv: the labels of validation and test images that the model believes least."""
    table = labels_to_check(frame, classes=classes, multilabel=multilabel)
    with whole(folder / "labels_to_check.csv") as unfinished:
        fill_csv(unfinished, table)


def described(prepared: Prepared) -> dict[str, Any]:
    """What was asked of which arm, as metrics.json begins."""
    return {"task": name_task(prepared), "arm": prepared.method, "seed": prepared.seed}


def name_task(prepared: Prepared) -> str:
    """What is asked of the model, as metrics.json names it."""
    kind = "multi-label " if prepared.manifest.multilabel else "ordinal " if prepared.settings.dataset.ordinal else ""
    return f"{kind}classification"


def predict_rows(
    model: Model, prepared: Prepared, rows: np.ndarray, *, keep: Keep = 1.0, selector: str | None = None
) -> np.ndarray:
    """The network's own probabilities [n, classes] of images of the store, not calibrated; of single-label data, each
    row sums to one in doubles.
    """
    parts = [
        model.predict(
            prepared.store.fetch(rows[start : start + 256]).astype(np.float32),
            keep,
            selector=selector,
            calibrated=False,
        ).double()
        for start in range(0, len(rows), 256)
    ]
    probabilities = torch.cat(parts)
    if not model.card.multilabel:
        probabilities = probabilities / probabilities.sum(dim=1, keepdim=True)
    return probabilities.numpy()


@torch.inference_mode()
def from_features(model: Model, prepared: Prepared, rows: np.ndarray) -> np.ndarray | None:
    """``predict_rows`` of a probe, from the features that its head was fitted to; None for any other model."""
    tokens = known_tokens(model, prepared, rows)
    if tokens is None:
        return None
    logits = model.network.classify(tokens).double()
    return np.asarray((logits.sigmoid() if model.card.multilabel else logits.softmax(dim=1)).cpu().numpy())


def predictions_frame(
    probabilities: np.ndarray,
    prepared: Prepared,
    rows: np.ndarray,
    *,
    classes: Sequence[str] = (),
    multilabel: bool | None = None,
) -> pd.DataFrame:
    """One row an image, as predictions.csv has them; ``predicted`` is the balanced answer: the
    network's own first choice.

    ``classes`` and ``multilabel`` are those of the data, unless a model of others made the predictions.
    """
    manifest = prepared.manifest
    classes = classes or manifest.classes
    multilabel = manifest.multilabel if multilabel is None else multilabel
    table = manifest.table.assign(image_path=manifest.names).loc[rows]
    frame = table[["image_path", "patient_id", "split", "label"]].reset_index(drop=True)
    frame["predicted"] = name_classes(probabilities, classes, multilabel=multilabel)
    for column, name in enumerate(classes):
        frame[f"prob_{name}"] = probabilities[:, column]
    for place in ("axis", "index", "frame", "cluster", prepared.settings.dataset.unit):
        if place in table and place not in frame:
            frame[place] = table[place].to_numpy()
    return frame


def count_cost(prepared: Prepared, run: Path, model: Model) -> dict[str, Any]:
    """MACs per image, in units of 10^9.

    ``gmacs_train`` and ``gmacs_predict`` are what a forward pass of fine-tuning and of prediction executes, attention
    products included; ``gmacs_predict_kept`` is a prediction from the kept quarter, to which finding it (``gmacs_map``)
    is added. ``as_the_paper_counts`` embeds every patch, as the released code does: linear and convolution
    layers alone, and with the attention products, for all patches and for the kept quarter.
    """
    network = model.network
    patches = network.encoder.patches
    masked, _, quarter = prepared.draw.counts(patches)
    share, selector = own_way(model.card)
    own = selection_with(network, model.prepared, selector)
    predict = selection_macs(own, kept_tokens(own, share)).total / 1e9
    cost: dict[str, Any] = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "patches": patches,
        "patches_kept": quarter,
        "gmacs_train": finetuning_macs(prepared, network) / 1e9 if selector == "all" else predict,
        "gmacs_predict": predict,
        "gmacs_predict_kept": classifier_macs(network, quarter).total / 1e9,
        "gmacs_map": map_macs(network.encoder).total / 1e9,
        "gmacs_pretrain": None,
        "as_the_paper_counts": {
            name: {
                "linear": classifier_macs(network, kept, embed_all=True).linear / 1e9,
                "with_attention": classifier_macs(network, kept, embed_all=True).total / 1e9,
            }
            for name, kept in (("all", None), ("kept", quarter))
        },
    }
    if (run / "pretrained").is_dir():
        from msmae.runs.checkpoint import load_model

        source, _ = load_model(run / "pretrained")
        assert isinstance(source, MSMAE)
        cost["gmacs_pretrain"] = msmae_macs(source, quarter, masked).total / 1e9
    return cost


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes: of the GPU where it used one, else of the host."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds_spent(run: Path) -> dict[str, float | None]:
    """Training time of both stages, from their checkpoints, of an ensemble that of all its models; None for a stage
    that did not run."""

    def seconds(path: Path) -> float | None:
        if not path.is_file():
            return None
        callbacks = read_checkpoint(path)["callbacks"]
        return next((float(s["seconds"]) for key, s in callbacks.items() if key.startswith("StageProgress")), None)

    last = [run / "checkpoints" / "last.ckpt", *sorted(run.glob("folds/*/checkpoints/last.ckpt"))]
    known = [spent for path in last if (spent := seconds(path)) is not None]
    return {
        "seconds_pretrain": seconds(run / "checkpoints" / "pretrain.ckpt"),
        "seconds_finetune": sum(known) if known else None,
    }
