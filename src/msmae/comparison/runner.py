"""The runs of a comparison: which there are, who makes each, and how; each is a run like any other."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msmae.comparison.baselines import BASELINE, NOT_CALIBRATED
from msmae.comparison.budgets import (
    BUDGETS,
    Price,
    prices_in_gmacs,
    prices_in_seconds,
    settings_of_arm,
    statement,
)
from msmae.comparison.probes import write_columns
from msmae.config import ARMS, BASELINES, RETIRED, Settings, require
from msmae.data.manifest import Manifest
from msmae.data.opening import whole_groups
from msmae.data.splits import make_folds
from msmae.encoders.weights import Weights
from msmae.errors import UserError, count, nearest
from msmae.evaluation.evaluate import predictions_frame, seconds_spent, write_evidence
from msmae.evaluation.train_and_test import train_and_test
from msmae.files import read_mapping
from msmae.runs.checkpoint import read_card
from msmae.runs.folder import completed, describe_run, differences, read_run, write_json
from msmae.runs.lock import InUse, held
from msmae.statistics.answers import name_classes
from msmae.training.cards import card_of
from msmae.training.prepare import Prepared, prepare

PLAN = "comparison.json"


@dataclass(frozen=True)
class Part:
    """One run of a comparison. ``fold`` counts from 1; 0 where there are none."""

    arm: str
    seed: int
    fold: int

    @property
    def name(self) -> str:
        """Its folder, within the comparison's."""
        return f"{self.arm}/{self.seed}" + (f"-fold{self.fold}" if self.fold else "")


@dataclass(frozen=True)
class Request:
    """What was asked, checked."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int
    budget: str

    @classmethod
    def of(cls, arms: Sequence[str], seeds: Sequence[int | str], *, folds: int, budget: str) -> Request:
        """Lists may also be words joined by commas. Raises ``UserError`` for an unknown arm or budget, a bad seed."""
        known = (*ARMS, *BASELINES)
        names = [name for words in listed(arms) for name in str(words).split(",") if name]
        for name in names:
            require(name not in RETIRED, f"the arm {name} was retired", where="--arms", mend=RETIRED.get(name, ""))
            require(name in known, f"no arm '{name}'", where="--arms", mend=nearest(name, known))
        numbers = [number for words in listed(seeds) for number in str(words).split(",") if number]
        for number in numbers:
            require(number.isdecimal(), f"'{number}' is no seed", where="--seeds", mend="give whole numbers, 0 or more")
        require(bool(names) and bool(numbers), "nothing to compare", where="--arms, --seeds", mend="name one at least")
        require(folds == 0 or folds >= 2, count(folds, "fold"), where="--folds", mend="give 2 or more, or 0 for none")
        require(budget in BUDGETS, f"no budget '{budget}'", where="--budget", mend=nearest(budget, BUDGETS))
        return cls(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(map(int, numbers))), folds, budget)


def listed(words: Any) -> list[Any]:
    """A list as it is; anything else as a list of one."""
    return list(words) if isinstance(words, (list, tuple)) else [words]


def read_plan(folder: Path) -> dict[str, Any]:
    """The comparison.json of a comparison that was begun; empty where there is none."""
    path = folder / PLAN
    return read_mapping(path, mend="choose another --out, or delete it") if path.is_file() else {}


def cut_folds(whole: Manifest, request: Request, *, settings: Settings, seed: int) -> list[Manifest]:
    """One manifest a fold; the data as it is divided where there are no folds."""
    if not request.folds:
        return [whole]
    groups = whole_groups(whole, settings)
    return make_folds(whole, folds=request.folds, val_fraction=settings.dataset.val_fraction, seed=seed, groups=groups)


def parts_of(plan: dict[str, Any]) -> list[Part]:
    """All runs of a comparison, seed by seed, so that every arm has a first figure early."""
    folds = range(1, plan["folds"] + 1) if plan["folds"] else [0]
    return [Part(arm, seed, fold) for seed in plan["seeds"] for fold in folds for arm in plan["arms"]]


def finished(folder: Path, part: Part) -> bool:
    """Whether a run has its result."""
    return (folder / part.name / "metrics.json").is_file()


@contextmanager
def claimed(folder: Path, part: Part) -> Iterator[bool]:
    """Whether a run is ours to make for now, and no other process's."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / part.name))
        except InUse:
            yield False
        else:
            yield True


class Bench:
    """Where the runs of a comparison are made: the data of every fold, and the settings all arms start from."""

    def __init__(
        self,
        data: str,
        manifests: list[Manifest],
        settings: Settings,
        *,
        given: dict[str, Any],
        encoders: Path | None,
        start: Weights | None = None,
    ) -> None:
        self.data, self.given, self.encoders = data, given, encoders
        self.prepared = [prepare(m, settings=settings, method="msmae", start=start) for m in manifests]

    def plan(self, request: Request, before: dict[str, Any], *, where: Path) -> dict[str, Any]:
        """The content of comparison.json: what is asked now and what was asked before, together.

        Raises:
            UserError: an earlier call asked for another budget, other folds or other settings.
        """
        first = self.prepared[0]
        asked: dict[str, Any] = {
            "data": Path(self.data).name,
            "folds": request.folds,
            "budget": {"kind": request.budget},
            "classes": list(first.manifest.classes),
            "multilabel": first.manifest.multilabel,
            "ordinal": bool(first.settings.dataset.ordinal),
            "encoders": str(self.encoders) if self.encoders else None,
            "start": first.origin.get("sha256"),
            "settings": first.settings.to_dict(),
        }
        known = {name: before.get(name) for name in asked} | {
            "settings": completed(before.get("settings", {}), asked["settings"]),
            "budget": {"kind": (before.get("budget") or {}).get("kind")},
            "start": before.get("start", asked["start"]),  # not recorded by earlier versions
            "ordinal": asked["ordinal"],  # follows from the data and its settings
        }
        other = sorted(differences(known, asked)) if before else []
        if other:
            raise UserError(
                f"this comparison was begun with other settings ({', '.join(other)})",
                where=str(where),
                mend="use the same, or choose another --out",
            )
        begun = [arm for arm in before.get("arms", []) if list((where / arm).glob("*/metrics.json"))]
        arms = list(dict.fromkeys([*begun, *request.arms]))
        return {
            **asked,
            "budget": {"kind": request.budget, "statement": statement(request.budget, first.settings, arms)},
            "arms": arms,
            "seeds": sorted({*before.get("seeds", []), *request.seeds}),
            "split_seed": before.get("split_seed", request.seeds[0]),
            "prices": self.prices(request.budget, arms, before.get("prices", {})),
            "missing": [],
        }

    def prices(self, budget: str, arms: list[str], before: dict[str, Any]) -> dict[str, Any]:
        """What an image costs each arm; a price that was taken once stays."""
        new = [arm for arm in ("msmae", *arms) if arm not in before]
        if budget == "epochs" or not new:
            return before
        take = prices_in_gmacs if budget == "gmacs" else prices_in_seconds
        return {name: asdict(price) for name, price in take(self.prepared[0], new).items()} | before

    def of(self, part: Part, plan: dict[str, Any]) -> Prepared:
        """Data and settings of one run."""
        base = dataclasses.replace(self.prepared[max(0, part.fold - 1)], seed=part.seed)
        prices = {name: Price(**price) for name, price in plan["prices"].items()}
        settings = settings_of_arm(base, part.arm, budget=plan["budget"]["kind"], prices=prices)
        return dataclasses.replace(base, settings=settings, method=part.arm)

    def make(self, part: Part, run: Path, plan: dict[str, Any], *, audit: dict[str, Any], columns: bool) -> None:
        """Make one run, or what it lacks.

        Raises:
            UserError: the run is there, with other settings.
        """
        prepared = self.of(part, plan)
        if finished(run.parent.parent, part):
            check_same(run, prepared)
        else:
            describe_run(
                run, data=self.data, method=part.arm, seed=part.seed, settings=prepared.settings, given=self.given
            )
            prepared.manifest.write(run / "manifest.csv", record=True)
            write_json(run / "audit.json", audit)
            if part.arm in BASELINES:
                run_baseline(prepared, run)
            else:
                self.borrow_encoder(part, run, prepared)
                train_and_test(prepared, run)
        if columns and part.arm in ARMS and (run / "model").is_dir():
            write_columns(prepared, run)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)  # a finished run is not continued

    def borrow_encoder(self, part: Part, run: Path, prepared: Prepared) -> None:
        """Take the pre-trained encoder of the same run in another comparison.

        Raises:
            UserError: it is not there, or is not what would be pre-trained here.
        """
        if self.encoders is None or not prepared.arm.pretrains or (run / "pretrained").is_dir():
            return
        source = self.encoders / part.name / "pretrained"
        if not source.is_dir():
            raise UserError("no pre-trained encoder", where=str(source), mend="finish that comparison first")
        there, here = (
            json.loads(json.dumps(asdict(card))) for card in (read_card(source), card_of(prepared, "pretrained"))
        )
        for card in (there, here):
            card["start"].pop("path", None)  # wherever it lay
            card["start"].pop("seen", None)  # follows from the data; cards of earlier versions have none
            card.pop("sha256", None)  # of weights that are not there yet
        other = [name for name in here if there[name] != here[name]]
        if other:
            raise UserError(
                f"the encoder was pre-trained on other data or with other settings ({', '.join(other)})",
                where=str(source),
                mend="compare with the same data, split and model settings",
            )
        shutil.copytree(source, run / "pretrained")


def check_same(run: Path, prepared: Prepared) -> None:
    """Raise ``UserError`` unless a finished run was made with these settings."""
    asked = prepared.settings.to_dict()
    made = completed(read_run(run)[0]["settings"], asked)
    other = sorted(differences({"settings": made}, {"settings": asked}))
    if other:
        raise UserError(
            f"a finished run was made with other settings ({', '.join(other)})",
            where=str(run),
            mend="use the same, move it away, or choose another --out",
        )


def run_baseline(prepared: Prepared, run: Path) -> dict[str, Any]:
    """Train, predict and measure a baseline; the content of metrics.json."""
    rows = np.concatenate([prepared.ids("val"), prepared.ids("test")])
    answers = BASELINE[prepared.method].predict(prepared, run, rows)
    frame = predictions_frame(answers.probabilities, prepared, rows)
    if answers.favoured is not None:
        frame["predicted"] = name_classes(answers.favoured, prepared.manifest.classes, multilabel=False)
    return write_evidence(
        frame,
        prepared,
        run,
        model_sha256=None,
        cost=answers.cost | (seconds_spent(run) if answers.trained else {}),
        calibration=None if answers.trained else NOT_CALIBRATED,
    )
