"""What a comparison's folder holds: its plan, its audit, and a run's folder for each arm and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from msmae.errors import UserError
from msmae.files import read_mapping
from msmae.reporting.run_files import RunFiles, read_run_files
from msmae.statistics.answers import PLAIN
from msmae.statistics.predictions import read_predictions, read_text_table
from msmae.statistics.units import PATIENT, as_predictions

PLAN = "comparison.json"
CHEAP = {
    "linear_probe": "linear probe",
    "knn": "nearest neighbours",
    "quarter": "token share 0.25",
}
"""Further predictions of the same test images that a run may hold, as ``predictions_<name>.csv``."""


@dataclass(frozen=True)
class Column:
    """The predictions of one way to answer: name of the way, and the test rows of every arm that has it."""

    name: str
    title: str
    frames: dict[str, list[pd.DataFrame]]
    """Arm -> one frame a seed; the folds of a seed are joined."""


@dataclass(frozen=True)
class ComparisonFiles:
    """The content of a comparison's folder, as far as it can be compared. Build with `read_comparison`."""

    folder: Path
    plan: dict[str, Any]
    runs: dict[str, list[list[RunFiles]]]
    """Arm -> seed -> fold: the runs that are compared, for the arms and the seeds that are complete."""
    seeds: tuple[int, ...]
    """The seeds that every arm shown has finished."""
    cheap: tuple[Column, ...]
    units: Column | None
    """The pooled answers for patients, or other units, by what names them; None unless every run has them."""
    audit: dict[str, Any] | None
    manifest: pd.DataFrame | None
    unfinished: tuple[str, ...]
    """Folders of runs that are planned and not there."""
    unused: tuple[str, ...]
    """Folders of finished runs whose seed some other arm lacks."""
    missing: tuple[str, ...] = field(default=())
    """A sentence for each file of the folder itself that is not there."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that can be compared, in the plan's order."""
        return tuple(self.runs)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.plan["classes"])

    @property
    def multilabel(self) -> bool:
        return bool(self.plan.get("multilabel"))

    @property
    def ordinal(self) -> bool:
        return bool(self.plan.get("ordinal"))

    @property
    def external(self) -> None:
        """A comparison is no external test."""

    @property
    def name(self) -> str:
        """What a person calls the data."""
        data = str(self.plan.get("data", ""))
        return Path(data.rstrip("/")).stem if data else self.folder.resolve().name

    @property
    def all_runs(self) -> list[RunFiles]:
        return [run for seeds in self.runs.values() for folds in seeds for run in folds]

    @property
    def frames(self) -> dict[str, list[pd.DataFrame]]:
        """Arm -> the test predictions of each seed."""
        return {arm: [join_folds([_of(run) for run in folds]) for folds in seeds] for arm, seeds in self.runs.items()}


def is_comparison(folder: str | Path) -> bool:
    """Whether a folder is a comparison's, and not a run's."""
    return (Path(folder) / PLAN).is_file()


def read_comparison(folder: str | Path) -> ComparisonFiles:
    """Read a comparison's folder.

    An arm without any finished seed is left out, and of the seeds those that all other arms have finished are
    compared; what is left out is named. Raises ``UserError`` when that leaves no arm or no seed, when
    the plan cannot be read, or when a run's predictions are damaged.
    """
    folder = Path(folder)
    plan = _read_plan(folder / PLAN)
    planned = {arm: {seed: _folders(folder, arm, seed, plan) for seed in plan["seeds"]} for arm in plan["arms"]}
    done = {
        arm: [seed for seed, folders in seeds.items() if all(map(is_finished, folders))]
        for arm, seeds in planned.items()
    }
    shown = [arm for arm in plan["arms"] if done[arm]]
    if not shown:
        raise UserError(
            f"none of {len(plan['arms'])} arms has a finished run: there is nothing to compare yet",
            where=str(folder),
            mend="repeat the `msmae compare` command: it goes on where it stopped",
        )
    seeds = tuple(seed for seed in plan["seeds"] if all(seed in done[arm] for arm in shown))
    if not seeds:
        raise UserError(
            "no seed is finished for all arms: " + "; ".join(f"{arm}: {_listed(done[arm])}" for arm in shown),
            where=str(folder),
            mend="repeat the `msmae compare` command: it goes on where it stopped",
        )
    everything = [
        (arm, seed, path) for arm, of_arm in planned.items() for seed, paths in of_arm.items() for path in paths
    ]
    audit, missing = _read_audit(folder / "audit.json")
    manifest = folder / "manifest.csv"
    runs = {arm: [[read_run_files(path) for path in planned[arm][seed]] for seed in seeds] for arm in shown}
    return ComparisonFiles(
        folder=folder,
        plan=plan,
        runs=runs,
        seeds=seeds,
        cheap=tuple(column for column in (_plain(runs), *(_cheap(name, runs) for name in CHEAP)) if column.frames),
        units=_units(runs),
        audit=audit,
        manifest=read_text_table(manifest) if manifest.is_file() else None,
        unfinished=tuple(_place(folder, path) for _, _, path in everything if not is_finished(path)),
        unused=tuple(
            _place(folder, path)
            for arm, seed, path in everything
            if is_finished(path) and not (arm in shown and seed in seeds)
        ),
        missing=tuple(missing),
    )


def is_finished(run: Path) -> bool:
    """Whether a run's folder holds what a comparison needs."""
    return (run / "metrics.json").is_file() and (run / "predictions.csv").is_file()


def join_folds(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The test rows of a seed's folds below each other: with cross-validation every image is tested once."""
    return pd.concat([frame[frame["split"] == "test"] for frame in frames], ignore_index=True)


def _of(run: RunFiles) -> pd.DataFrame:
    assert run.predictions is not None  # is_finished has looked
    return run.predictions


def _cheap(name: str, runs: Mapping[str, list[list[RunFiles]]]) -> Column:
    """One of `CHEAP`, for the arms that have it for every seed and fold."""
    frames = {}
    for arm, seeds in runs.items():
        paths = [[run.folder / f"predictions_{name}.csv" for run in folds] for folds in seeds]
        if all(path.is_file() for folds in paths for path in folds):
            frames[arm] = [join_folds([read_predictions(path) for path in folds]) for folds in paths]
    return Column(name, CHEAP[name], frames)


def _plain(runs: Mapping[str, list[list[RunFiles]]]) -> Column:
    """The plain answers, which ``msmae predict`` gives; of no arm where they are the balanced ones throughout."""
    frames = {
        arm: [join_folds([_of(run) for run in folds]) for folds in seeds]
        for arm, seeds in runs.items()
        if all(PLAIN in _of(run) for folds in seeds for run in folds)
    }
    if all((frame["predicted"] == frame[PLAIN]).all() for seeds in frames.values() for frame in seeds):
        frames = {}
    answered = {arm: [frame.assign(predicted=frame[PLAIN]) for frame in seeds] for arm, seeds in frames.items()}
    return Column("plain", "plain answers", answered)


def _units(runs: Mapping[str, list[list[RunFiles]]]) -> Column | None:
    """The answers for units of every arm, seed and fold, as predictions of which each stands for an image."""
    every = [run for seeds in runs.values() for folds in seeds for run in folds]
    names = {str((run.metrics.get("patients") or {}).get("unit")) for run in every}
    if len(names) > 1 or any(run.patients is None or not run.metrics.get("patients") for run in every):
        return None
    frames = {
        arm: [
            join_folds([as_predictions(run.patients) for run in folds if run.patients is not None]) for folds in seeds
        ]
        for arm, seeds in runs.items()
    }
    name = names.pop()
    name = "patient" if name == PATIENT else name
    return Column(name, name, frames)


def _folders(folder: Path, arm: str, seed: int, plan: Mapping[str, Any]) -> list[Path]:
    """The run's folder of an arm and a seed, or those of its folds, counted from 1."""
    folds = int(plan.get("folds") or 0)
    return [folder / arm / f"{seed}-fold{k}" for k in range(1, folds + 1)] if folds else [folder / arm / str(seed)]


def _read_plan(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            "this is not a comparison's folder: it has no comparison.json",
            where=str(path.parent),
            mend="name the --out of `msmae compare`",
        )
    plan = read_mapping(path, mend="repeat the comparison")
    lacking = [name for name in ("arms", "seeds", "classes") if not plan.get(name)]
    if lacking:
        raise UserError(
            f"comparison.json names no {' and no '.join(lacking)}",
            where=str(path),
            mend="repeat the `msmae compare` command",
        )
    if any(Path(str(arm)).name != arm for arm in plan["arms"]):
        raise UserError(
            "comparison.json names an arm that is no folder's name", where=str(path), mend="write the arms' plain names"
        )
    return plan


def _read_audit(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    if not path.is_file():
        return None, ["audit.json is not in the folder: the data were not audited, or the result was not kept"]
    try:
        return read_mapping(path, mend=""), []
    except UserError:
        return None, ["audit.json cannot be read"]


def _place(folder: Path, run: Path) -> str:
    return run.relative_to(folder).as_posix()


def _listed(seeds: list[int]) -> str:
    return "seed " + ", ".join(map(str, seeds))
