"""What a RUN folder holds, read without torch; what it lacks is said, not guessed."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from msmae.errors import UserError
from msmae.files import own_cell, read_mapping
from msmae.records import check_recorded
from msmae.statistics.answers import PLAIN
from msmae.statistics.predictions import PREFIX, read_predictions, read_text_table
from msmae.statistics.summary import figures_by

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Panel:
    """A saved picture of one image with its map, plan and overlay."""

    image_path: str
    label: str
    predicted: str
    probability: float | None
    picture: Path
    kind: str = ""
    """right, wrong or uncertain, where the run says it; of a segmentation best, median or worst."""
    dice: float | None = None

    def as_data(self) -> str:
        """The PNG as a ``data:`` address."""
        return "data:image/png;base64," + base64.b64encode(self.picture.read_bytes()).decode("ascii")


@dataclass(frozen=True)
class RunFiles:
    """The content of a RUN folder; only ``metrics.json`` must be there. Build with `read_run_files`."""

    folder: Path
    metrics: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] | None = None
    predictions: pd.DataFrame | None = None
    manifest: pd.DataFrame | None = None
    patients: pd.DataFrame | None = None
    """predictions_patients.csv: one answer a patient, or another unit."""
    neighbours: pd.DataFrame | None = None
    """neighbours.csv: the nearest training images of each image, where they were asked for."""
    logs: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Stage -> the rows of its ``metrics.csv``."""
    panels: tuple[Panel, ...] = ()
    budget: dict[str, Any] | None = None
    """What smaller token shares cost, where `msmae budget` measured it."""
    looks: tuple[Panel, ...] = ()
    """Pictures of the patches that were encoded."""
    missing: tuple[str, ...] = ()
    """A sentence for each file that is not there, or cannot be read."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's classes, in its order."""
        for split in self.metrics["splits"].values():
            if split.get("per_class"):
                return tuple(split["per_class"])
        if self.predictions is not None:
            return tuple(name[len(PREFIX) :] for name in self.predictions.columns if name.startswith(PREFIX))
        return tuple(self.model.get("classes", ()))

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return "multi-label" in str(self.metrics.get("task", "")) or bool(self.model.get("multilabel"))

    @property
    def external(self) -> dict[str, str] | None:
        """Of an external test: the names of its data and of the run whose model was tested."""
        return self.metrics.get("external")

    @property
    def name(self) -> str:
        """What a person calls the data: the last part of its path, without the ending."""
        data = str(self.config.get("data", ""))
        return Path(data.rstrip("/")).stem if data else self.folder.resolve().name


def software(environment: dict[str, Any]) -> dict[str, str | None]:
    """Of environment.json: the versions of what decides a run's numbers, and their precision."""
    known = {"msmae": environment.get("msmae"), "precision": environment.get("auto_precision")}
    return known | dict(environment.get("packages") or {})


def different_software(environments: Iterable[dict[str, Any]]) -> list[str]:
    """What differs between the software of runs, or within one that went on with another: packages, ``precision``. An
    empty record is not compared.
    """
    known: dict[str, set[Any]] = {}
    for environment in filter(None, environments):
        later = [tuple(entry.split(" ", 1)) for entry in environment.get("went_on_with", ())]
        for name, version in [*software(environment).items(), *later]:
            known.setdefault(name, set()).update({version} - {None})
    return sorted(name for name, versions in known.items() if len(versions) > 1)


def as_answered(run: RunFiles) -> RunFiles:
    """The run with the figures and the answers of the rule that it shows first; the figures of balanced answers stay
    with each split, as ``"balanced"``. A run that knows one rule only (of version 0.1) stays as it is.
    """
    rule = run.metrics.get("answers")
    if rule is None:
        return run
    splits = {
        name: {**figures_by(split, rule), "balanced": {"metrics": split["metrics"], "per_class": split["per_class"]}}
        for name, split in run.metrics["splits"].items()
    }
    predictions = run.predictions
    if predictions is not None and rule == "plain" and PLAIN in predictions:
        predictions = predictions.assign(predicted=predictions[PLAIN])
    return replace(run, metrics={**run.metrics, "splits": splits}, predictions=predictions)


def read_run_files(run: Path) -> RunFiles:
    """Read a RUN folder.

    Raises ``UserError`` when there is no readable ``metrics.json`` (the run is not finished), or when the
    predictions are damaged: nothing is reported of those.
    """
    metrics = _read_metrics(run)
    missing: list[str] = []

    def optional(name: str, what: str) -> dict[str, Any]:
        try:
            return _read_mapping(run / name)
        except FileNotFoundError:
            missing.append(f"{name} is not in the folder: {what}")
        except ValueError as problem:
            missing.append(f"{name} cannot be read ({problem}): {what}")
        return {}

    config = optional("config.yaml", "the settings are unknown")
    for name in ("config.yaml", "manifest.csv"):
        check_recorded(run / name)
    environment = optional("environment.json", "software and machine are unknown")
    card = "model.json" if (run / "model.json").is_file() else "model/config.json"
    model = optional(card, "the shape of the model is unknown")
    audit = optional("audit.json", "the data were not audited, or the result was not kept")
    manifest = _read_table(run / "manifest.csv")
    if manifest is not None and metrics.get("external"):
        manifest["split"] = manifest["split"].replace("test", "external")
    if manifest is not None and config.get("folds") and "ensemble_fold" in manifest:
        manifest["split"] = manifest["split"].mask(manifest["ensemble_fold"] != "", "train")  # all but one model's
    if manifest is None:
        missing.append("manifest.csv is not in the folder: the origin of the images is unknown")
    predictions = None
    if (run / "predictions.csv").is_file():
        predictions = read_predictions(run / "predictions.csv")
    elif not (run / "segmentation.csv").is_file():
        missing.append("predictions.csv is not in the folder: no curve and no single case can be shown")
    pooled = None
    if metrics.get("patients") and (run / "predictions_patients.csv").is_file():
        pooled = read_predictions(run / "predictions_patients.csv")
    logs = _read_logs(run / "logs") or _read_logs(run / "folds" / "1" / "logs")  # of an ensemble those of the first
    if not logs:
        missing.append("there are no logs: the course of the training cannot be shown")
    panels, lost = _read_panels(run / "panels")
    measured = (
        optional("budget.json", "the cost of smaller token shares is unknown")
        if (run / "budget.json").is_file()
        else {}
    )
    near = _read_table(run / "neighbours.csv")
    looks, unseen = _read_panels(run / "looks") if measured else ((), [])
    return RunFiles(
        folder=run,
        metrics=metrics,
        config=config,
        environment=environment,
        model=model,
        audit=audit or None,
        predictions=predictions,
        manifest=manifest,
        patients=pooled,
        neighbours=None if near is None else near.map(own_cell),
        logs=logs,
        panels=panels,
        budget=measured or None,
        looks=looks,
        missing=(*missing, *lost, *unseen),
    )


def _read_metrics(run: Path) -> dict[str, Any]:
    path = run / "metrics.json"
    if not path.is_file():
        raise UserError(
            "there is no metrics.json in this folder", where=str(run), mend="name a finished run, or finish this one"
        )
    try:
        metrics = _read_mapping(path)
    except ValueError as problem:
        raise UserError("metrics.json cannot be read", where=str(path), mend=f"evaluate again ({problem})") from problem
    if not isinstance(metrics.get("splits"), dict) or not metrics["splits"]:
        raise UserError("metrics.json has no splits", where=str(path), mend="evaluate the run again")
    return metrics


def _read_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds a mapping. Raises FileNotFoundError, or ValueError for anything else."""
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        return read_mapping(path, mend="")
    except UserError as problem:
        raise ValueError(problem.what) from None


def _read_table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    return read_text_table(path)


def _read_logs(folder: Path) -> dict[str, pd.DataFrame]:
    logs = {}
    for path in sorted(folder.glob("*/csv/metrics.csv"), key=lambda p: (p.parts[-3] != "pretrain", p)):
        try:
            table = pd.read_csv(path)
        except pd.errors.EmptyDataError:
            continue
        if "epoch" in table and len(table):
            logs[path.parts[-3]] = table.apply(pd.to_numeric, errors="coerce")
    return logs


def _read_panels(folder: Path) -> tuple[tuple[Panel, ...], list[str]]:
    """The pictures that ``panels.json`` lists, or all PNG files of the folder where there is none."""
    if not folder.is_dir():
        return (), ["there are no attention panels: `msmae masks` draws them"]
    listing = folder / "panels.json"
    if listing.is_file():
        try:
            content = _read_mapping(listing)
        except ValueError:
            return (), ["panels/panels.json cannot be read: the attention panels are left out"]
        entries = content.get("panels", [])
    else:
        entries = [{"file": path.name} for path in sorted(folder.glob("*.png"))]
    panels, lost = [], []
    for entry in entries:
        picture = folder / Path(str(entry.get("file", ""))).name  # never outside the folder
        if not picture.is_file() or picture.read_bytes()[:8] != PNG:
            lost.append(f"the picture panels/{picture.name} is not there, or no PNG")
            continue
        probability = entry.get("probability")
        panels.append(
            Panel(
                image_path=str(entry.get("image_path", picture.name)),
                label=str(entry.get("label", "")),
                predicted=str(entry.get("predicted", "")),
                probability=float(probability) if isinstance(probability, int | float) else None,
                picture=picture,
                kind=str(entry.get("kind", "")),
                dice=float(dice) if isinstance(dice := entry.get("dice"), int | float) else None,
            )
        )
    return tuple(panels), lost
