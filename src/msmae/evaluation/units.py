"""A model's answers for patients (or lesions, studies): pooled, the pooling chosen on validation, measured on test.

Writes RUN/predictions_patients.csv; what metrics.json says of it is its entry ``patients``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from msmae.data.manifest import Manifest
from msmae.evaluation.known_features import known_tokens
from msmae.evaluation.pooling import AttentionPooling, Bags, fit_attention
from msmae.inference.model import Model, own_way
from msmae.inference.reference import own_tokens
from msmae.method.classifier import Classifier
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import write_tensors
from msmae.statistics.answers import name_classes
from msmae.statistics.calibration import Calibrator, fit_calibrator
from msmae.statistics.metrics import prepare
from msmae.statistics.predictions import PREFIX, read_predictions, to_arrays, write_predictions
from msmae.statistics.summary import summarise
from msmae.statistics.units import PATIENT, Pooling, Units, as_predictions, gather, pool, unit_column, unit_predictions
from msmae.training.prepare import Prepared

FILE = "predictions_patients.csv"
BATCH = 64
"""Images whose features are computed at a time."""
WEIGHTS = "patients.safetensors"
LEAST_BAGS = 20
"""Training units of several images below which no attention is fitted."""
MOST_IMAGES = 3000
"""Training images that attention is fitted on; of more, units by chance."""
LEAST_GAIN = 0.01
"""Validation log loss by which another pooling must be better than the mean, the plainest, to be chosen."""


@dataclass(frozen=True)
class Pooled:
    """Units with their probabilities [U, C] by one pooling, and weights [n] of their images where it has them."""

    probabilities: np.ndarray
    weights: np.ndarray | None = None


def evaluate_units(
    frame: pd.DataFrame,
    prepared: Prepared,
    run: Path,
    *,
    model: Model | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any] | None:
    """Pool the calibrated predictions of a run's images by unit, and write RUN/predictions_patients.csv.

    ``thresholds``: those of the images' answers hold for units too. ``model``: with it, attention pooling is fitted
    too, on features of the training images. Returns the entry ``patients`` of metrics.json; None where no unit is
    named, or none has several images.
    """
    (run / FILE).unlink(missing_ok=True)  # of other units, maybe
    column = unit_column(frame, prepared.settings.dataset.unit)
    if column is None:
        return None
    classes, multilabel = prepared.manifest.classes, prepared.manifest.multilabel
    rule: dict[str, Any] = {"multilabel": multilabel, "thresholds": thresholds}
    units = gather(frame, column, multilabel=multilabel)
    if not len(units) or units.table["images"].max() < 2:
        return None
    own = frame[[PREFIX + name for name in classes]].to_numpy(dtype=np.float64)[units.rows]  # [n, C]
    found = {how: Pooled(pool(own, units.members, len(units), how, multilabel=multilabel)) for how in ("mean", "max")}
    attention = None
    if model is not None and (bags := training_bags(prepared, units, column)) is not None:
        seen = features(model, prepared, rows_of(prepared.manifest, frame)[units.rows])
        attention = _attention(model, prepared, units, seen, bags)
        found["attention"] = Pooled(*attention(attention.terms(seen), units.members, len(units)))
    calibrated = {how: calibrate(units, one, classes, multilabel=multilabel) for how, one in found.items()}
    reached = {
        split: {how: _measure(units, one, classes, split, rule) for how, (one, _) in calibrated.items()}
        for split in ("val", "test")
    }
    chosen = choose({how: figures.get("log_loss") for how, figures in reached["val"].items()})
    pooled, calibrator = calibrated[chosen]
    table = unit_predictions(units, frame, pooled.probabilities, classes, weights=pooled.weights, **rule)
    write_predictions(table, run / FILE)
    if chosen == "attention" and attention is not None and (run / "model").is_dir():
        write_tensors(run / "model" / WEIGHTS, {name: part.contiguous() for name, part in attention.tensors().items()})
    splits = summarise(as_predictions(table), **summary_options(prepared, classes, multilabel=multilabel))
    return {
        "unit": column,
        "pooling": chosen,
        "calibration": None if calibrator is None else asdict(calibrator),
        "poolings": reached,
        "notes": units.notes,
        "splits": _in_units(splits),
    }


def evaluate_units_elsewhere(
    frame: pd.DataFrame, prepared: Prepared, run: Path, out: Path, *, model: Model
) -> dict[str, Any] | None:
    """The same of external images (split ``external`` of the frame; the others are the run's), pooled and calibrated as
    the run chose on its own validation units; as ``by_mean`` where the run's units are of another column, or none.
    """
    column = unit_column(frame, prepared.settings.dataset.unit)
    if column is None:
        return None
    classes, multilabel = model.classes, model.card.multilabel
    external = frame[frame["split"] == "external"].reset_index(drop=True)
    units = gather(external, column, multilabel=multilabel)
    if not len(units) or units.table["images"].max() < 2:
        return None
    chosen, terms, notes = Chosen.of(run, model.card), None, units.notes
    before = None
    if chosen.known.get("unit") != column:
        own = frame[frame["split"] != "external"].reset_index(drop=True)
        chosen, before, told = by_mean(chosen, own, column, classes)
        notes = [*notes, told]
    elif (run / FILE).is_file():
        before = read_predictions(run / FILE).replace({"split": {"test": "internal"}})
    if chosen.attention is not None:
        terms = chosen.attention.terms(features(model, prepared, rows_of(prepared.manifest, external)[units.rows]))
    table = chosen.answer(units, external, classes, terms=terms)
    if before is not None:
        table = pd.concat([table, before], ignore_index=True)
    write_predictions(table, out / FILE)
    splits = summarise(as_predictions(table), **summary_options(prepared, classes, multilabel=multilabel))
    return {
        "unit": column,
        "pooling": chosen.pooling,
        "calibration": chosen.known.get("calibration"),
        "poolings": chosen.known.get("poolings", {}),
        "notes": notes,
        "splits": _in_units({name: splits[name] for name in ("external", "internal", "val") if name in splits}),
    }


@dataclass(frozen=True)
class Chosen:
    """How a run answers for its units, as it was chosen on its validation units; the plain mean where it has none."""

    known: dict[str, Any]
    """The entry ``patients`` of metrics.json; empty: there is none."""
    card: ModelCard
    attention: AttentionPooling | None = None

    @classmethod
    def of(cls, run: Path, card: ModelCard) -> Chosen:
        """From a run's folder and its model's card; a folder without figures pools by the mean."""
        file = run / "metrics.json"
        known = (json.loads(file.read_text(encoding="utf-8")).get("patients") or {}) if file.is_file() else {}
        if known.get("pooling") != "attention":
            return cls(known, card)
        weights = load_file(run / "model" / WEIGHTS)
        return cls(known, card, AttentionPooling.of(weights, multilabel=card.multilabel))

    @property
    def pooling(self) -> Pooling:
        chosen: Pooling = self.known.get("pooling", "mean")
        return chosen

    @property
    def column(self) -> str:
        """The column that names the units."""
        return str(self.known.get("unit", PATIENT))

    def answer(
        self, units: Units, frame: pd.DataFrame, classes: Sequence[str], *, terms: np.ndarray | None = None
    ) -> pd.DataFrame:
        """The table of predictions_patients.csv; ``terms`` [n, 1 + K] of the units' images, where attention pools."""
        weights = None
        if self.attention is not None:
            assert terms is not None
            pooled, weights = self.attention(terms, units.members, len(units))
        else:
            own = frame[[PREFIX + name for name in classes]].to_numpy(dtype=np.float64)[units.rows]
            pooled = pool(own, units.members, len(units), self.pooling, multilabel=self.card.multilabel)
        if self.known.get("calibration"):
            pooled = Calibrator(**self.known["calibration"])(pooled)
        rule: dict[str, Any] = {"multilabel": self.card.multilabel, "thresholds": self.card.thresholds}
        return unit_predictions(units, frame, pooled, classes, weights=weights, **rule)


def by_mean(
    run: Chosen, own: pd.DataFrame, column: str, classes: Sequence[str]
) -> tuple[Chosen, pd.DataFrame | None, str]:
    """How to answer for units of a column that are not the run's: by the mean, at the temperature that fits them among
    the run's validation images.

    ``own``: the run's predictions. Also gives its answers for such units, None where there are none; and a note.
    """
    multilabel = run.card.multilabel
    units = gather(
        own.fillna({column: ""}), column, multilabel=multilabel
    )  # nan: a column of the external images alone
    told = f"the run itself answers by {run.known['unit']}" if run.known else "the run has no such answers of its own"
    told = f"{told}, so that images are pooled by the mean here"
    if not len(units):
        return (
            Chosen({}, run.card),
            None,
            f"{told}; its images name no {column}, so there is no temperature of their own",
        )
    probabilities = own[[PREFIX + name for name in classes]].to_numpy(dtype=np.float64)[units.rows]
    pooled = Pooled(pool(probabilities, units.members, len(units), "mean", multilabel=multilabel))
    _, calibrator = calibrate(units, pooled, classes, multilabel=multilabel)
    chosen = Chosen({"unit": column, "calibration": asdict(calibrator) if calibrator else None}, run.card)
    return chosen, chosen.answer(units, own, classes), f"{told}, those of its own images too"


def answer_units(
    chosen: Chosen, frame: pd.DataFrame, classes: Sequence[str], *, terms: np.ndarray | None
) -> pd.DataFrame | None:
    """The same of new images: their labels are not needed, and stay where all of a unit's images have one label. None
    where no unit has several images.

    ``terms`` [n, 1 + K] of all rows of the frame, where attention pools.
    """
    if chosen.column not in frame or not (frame[chosen.column] != "").any():
        return None
    units = gather(frame.assign(label="?"), chosen.column, multilabel=False)
    if not len(units) or units.table["images"].max() < 2:
        return None
    for note in units.notes:
        print(f"- {FILE}: {note}")
    table = chosen.answer(units, frame, classes, terms=None if terms is None else terms[units.rows])
    labels: list[set[str]] = [set() for _ in range(len(units))]
    for member, label in zip(units.members, frame["label"].to_numpy()[units.rows], strict=True):
        labels[member].add(label)
    return table.assign(label=["".join(said) if len(said) == 1 else "" for said in labels])


def summary_options(prepared: Prepared, classes: Sequence[str], *, multilabel: bool) -> dict[str, Any]:
    """What `summarise` must know of a run's settings."""
    return {
        "classes": classes,
        "resamples": prepared.settings.evaluate.resamples,
        "seed": prepared.seed,
        "ordinal": bool(prepared.settings.dataset.ordinal),
        "multilabel": multilabel,
    }


def calibrate(
    units: Units, pooled: Pooled, classes: Sequence[str], *, multilabel: bool
) -> tuple[Pooled, Calibrator | None]:
    """Pooled probabilities at the temperature that fits the validation units; as they are where there are none."""
    val = (units.table["split"] == "val").to_numpy()
    if not val.any():
        return pooled, None
    calibrator = fit_calibrator(pooled.probabilities[val], units.flags(classes)[val], multilabel=multilabel)
    return Pooled(calibrator(pooled.probabilities), pooled.weights), calibrator


def choose(losses: dict[str, float | None]) -> str:
    """The pooling with the least validation log loss; the mean unless another is clearly better."""
    known = {how: loss for how, loss in losses.items() if loss is not None}
    if "mean" not in known:
        return "mean"
    best = min(known, key=lambda how: known[how])
    return best if known[best] <= known["mean"] - LEAST_GAIN else "mean"


def _measure(
    units: Units, pooled: Pooled, classes: Sequence[str], split: str, rule: dict[str, Any]
) -> dict[str, float | None]:
    """What a pooling reaches on the units of a split, answered by a ``rule`` (of ``name_classes``); of test units this
    is reported, and nothing is chosen by it.
    """
    rows = (units.table["split"] == split).to_numpy()
    if not rows.any():
        return {}
    probabilities = pooled.probabilities
    table = units.table[rows].reset_index(drop=True)
    for number, name in enumerate(classes):
        table[PREFIX + name] = probabilities[rows, number]
    table["predicted"] = name_classes(probabilities[rows], classes, **rule)
    arrays = to_arrays(as_predictions(table), classes=classes, multilabel=rule["multilabel"])
    values = prepare(arrays).as_is().overall
    known = ("balanced_accuracy", "auroc", "log_loss")
    return {name: None if np.isnan(values[name][0]) else float(values[name][0]) for name in known}


def training_bags(prepared: Prepared, units: Units, column: str) -> tuple[Units, np.ndarray] | None:
    """Training units for the attention and their rows of the manifest, of at most ``MOST_IMAGES`` images; None where
    too few have several images, or no unit is validation.
    """
    ids, manifest = prepared.ids("train"), prepared.manifest
    train = gather(manifest.table.loc[ids].reset_index(drop=True), column, multilabel=manifest.multilabel)
    several = np.flatnonzero(train.table["images"] > 1)
    if not (units.table["split"] == "val").any() or len(several) < LEAST_BAGS:
        return None
    order = np.random.default_rng(prepared.seed).permutation(len(train))
    chosen = np.sort(order[: int((train.table["images"].to_numpy()[order].cumsum() <= MOST_IMAGES).sum())])
    number = np.full(len(train), -1)
    number[chosen] = np.arange(len(chosen))
    inside = number[train.members] >= 0
    table = train.table.iloc[chosen].reset_index(drop=True)
    return Units(table, train.rows[inside], number[train.members[inside]]), ids[train.rows[inside]]


def _attention(
    model: Model, prepared: Prepared, units: Units, seen: np.ndarray, bags: tuple[Units, np.ndarray]
) -> AttentionPooling:
    """Gated attention fitted on training units, stopped by the validation units; ``seen`` are the features of the
    images of ``units`` [n, D].
    """
    train, rows = bags
    val = np.flatnonzero(units.table["split"] == "val")
    inside = np.isin(units.members, val)
    number = np.full(len(units), -1)
    number[val] = np.arange(len(val))
    classes = model.classes
    return fit_attention(
        Bags(features(model, prepared, rows), train.members, train.flags(classes)),
        Bags(seen[inside], number[units.members[inside]], units.flags(classes)[val]),
        multilabel=prepared.manifest.multilabel,
        seed=prepared.seed,
    )


def features(model: Model, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """``features_of`` images of the store, [n, 2D + C]."""
    tokens = known_tokens(model, prepared, rows)
    if tokens is not None:
        return read_off(model.network, tokens)
    parts = []
    for start in range(0, len(rows), BATCH):
        images = prepared.store.fetch(rows[start : start + BATCH]).astype(np.float32)
        parts.append(features_of(model, torch.from_numpy(images)))
    return np.concatenate(parts)


@torch.inference_mode()
def features_of(model: Model, images: Tensor) -> np.ndarray:
    """Frozen features float32 [B, 2D + C] of images [B, channels, H, W] in the files' own units, seen as the model sees
    them: class token, mean of the patches, and the logits."""
    return read_off(model.selection(own_way(model.card)[1]).model, own_tokens(model, images))


@torch.inference_mode()
def read_off(network: Classifier, tokens: Tensor) -> np.ndarray:
    """Class token, mean of the patches and logits, float32 [B, 2D + C], of tokens [B, 1+K, D]."""
    read = [tokens[:, 0], tokens[:, 1:].mean(dim=1), network.classify(tokens)]
    return np.asarray(torch.cat(read, dim=1).float().cpu().numpy())


def rows_of(manifest: Manifest, frame: pd.DataFrame) -> np.ndarray:
    """The manifest's row of each image of a predictions frame, int64 [n]."""
    keys = [name for name in ("image_path", "axis", "index", "frame") if name in frame and name in manifest.table]
    table = manifest.table.assign(image_path=manifest.names)
    place = {key: row for row, key in enumerate(table[keys].itertuples(index=False, name=None))}
    return np.array([place[key] for key in frame[keys].itertuples(index=False, name=None)], dtype=np.int64)


def _in_units(splits: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """``summarise`` counts images; here each stands for a unit, and what it notes of images is not said."""
    return {
        name: {key: value for key, value in split.items() if key not in ("notes", "patients")}
        for name, split in splits.items()
    }
