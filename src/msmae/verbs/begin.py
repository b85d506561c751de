"""How run, pretrain, segment and compare begin: what is cheap is checked first, then the data is opened and audited."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.config import GROUPS, Settings, require
from msmae.config.layers import SETTINGS_FILE
from msmae.data.tables.listing import count
from msmae.errors import UserError, nearest
from msmae.files import read_mapping

if TYPE_CHECKING:
    from msmae.data.audit import Audit
    from msmae.data.audit.shortcuts import Shortcut
    from msmae.data.manifest import Manifest
    from msmae.encoders.weights import Weights
    from msmae.training.prepare import Prepared

LONGEST = 150
"""Characters of a finding before training."""
TRAINING = ("dataset", "model", "pretrain", "finetune", "evaluate", "trainer")
"""The groups of settings that training a classifier uses."""
USUAL = {"seed": 0, "preset": "auto"}
"""What these options are where neither the command nor a run's config.yaml says it."""
SMALLEST_DISK = 200 * 2**20
"""Bytes that must be free where a run is written: its checkpoints and pictures take about as much."""


@dataclass(frozen=True)
class Asked:
    """What a person asked for, and what every run's config.yaml says of it."""

    data: str
    folder: Path
    settings: Settings
    start: Weights | None = None
    seed: int = 0
    overwrite: bool = False
    allow_leakage: bool = False
    preset: str = "auto"
    init: str | None = None
    folds: int = 0
    """Models that are to answer together (``training.ensemble``); 0: one is trained."""

    @property
    def given(self) -> dict[str, Any]:
        """What was given beside data, method, seed and settings."""
        given = {"init": self.init, "preset": self.preset, "allow_leakage": self.allow_leakage}
        return {**given, "folds": self.folds} if self.folds else given


def as_recorded(config: str | None, *, task: str | None = None, **given: Any) -> dict[str, Any]:
    """The options that were given; in place of each that was not (None) what a run's config.yaml records, said in one
    line, else its usual value. ``--init none`` is no encoder, whatever is recorded.

    Args:
        config: a run's config.yaml; of any other file of settings nothing is taken here.
        task: what the verb does, as the runs that it makes record it.

    Raises:
        UserError: the encoder that is recorded is no longer there, or a value is of another type.
    """
    from msmae.encoders.catalogue import find_known

    path = Path(config or "")
    said = read_mapping(path, mend=SETTINGS_FILE) if path.is_file() and path.read_bytes().strip() else {}
    record = said if "settings" in said else {}
    taken = {name: record[name] for name, value in given.items() if value is None and record.get(name) is not None}
    if record and record.get("task") != task:
        print(f"- {config} is of another task: its settings are taken, and not its {', '.join(taken)}")
        taken = {}
    for name, value in taken.items():
        kind, words = (int, "a whole number") if name in ("seed", "folds") else (str, "text")
        whole = isinstance(value, kind) and not isinstance(value, bool)
        require(whole, f"{name} is '{value}', not {words}", where=str(config), mend=f"correct it, or give --{name}")
    for name in ("init", "from"):
        began = str(taken.get(name, "none"))
        if began != "none" and not Path(began).exists() and find_known(began) is None:
            mend = f"name it: --{name}"
            raise UserError(f"the encoder that it began with is gone: {began}", where=str(config), mend=mend)
    if taken:
        order = ("method", "from", "seed", "init", "preset", "folds")
        told = [f"{name} {taken[name]}" for name in order if name in taken]
        print(f"- from {config}: {', '.join(told)}")
    chosen = {name: taken.get(name, USUAL.get(name) if value is None else value) for name, value in given.items()}
    return {name: None if (name, value) == ("init", "none") else value for name, value in chosen.items()}


def check_keep(keep: float | str, selector: str | None) -> None:
    """Raise ``UserError`` for what is no share of the tokens, or no selector: asked before a model is loaded."""
    from msmae.selection.selectors import SELECTORS

    share = keep == "auto" or (isinstance(keep, (int, float)) and 0 < keep <= 1)
    mend = "give a share above 0, at most 1, or auto"
    require(share, f"{keep} is no share of the patches", where="--keep", mend=mend)
    known = selector is None or selector in SELECTORS
    require(known, f"no selector '{selector}'", where="--selector", mend=nearest(selector, SELECTORS))


def settings_of(
    preset: str,
    config: str | None,
    given: Mapping[str, Any],
    *,
    groups: Sequence[str],
    seed: int = 0,
    weights: str | None = None,
) -> tuple[Settings, Weights | None]:
    """The settings of a verb that uses these groups of them, and the pretrained weights that it starts from.

    Raises:
        UserError: a setting is wrong, or belongs to a group that the verb has no use for; the seed is negative; or
            there are no such weights, or none that can be used.
    """
    idle = sorted(set(given) & set(GROUPS) - set(groups))
    require(not idle, f"settings of {' and '.join(idle)} have no effect here", where="settings", mend="leave them out")
    require(seed >= 0, f"{seed} is negative", where="--seed", mend="give 0 or more")
    from msmae.encoders.start import settings_with_start

    return settings_with_start(weights, preset, config, dict(given))


def check_folder(
    out: str, data: str, *, finished: Sequence[str], overwrite: bool = False, ours: tuple[str, ...] | None = None
) -> None:
    """Whether the run may be written where it is to lie.

    Args:
        finished: the files and folders that a finished run of the verb holds; none: more may always be added.
        ours: files by which a folder of the verb is known; those of a run unless given.

    Raises:
        UserError: the folder cannot be used, or the disk is full.
    """
    from msmae.runs.folder import RUN_FILES, check_run

    check_run(Path(out), data=data, finished=finished, overwrite=overwrite, ours=ours or RUN_FILES)
    place = next(p for p in (Path(out).absolute(), *Path(out).absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    require(
        free >= SMALLEST_DISK, f"only {free // 2**20} MB are free", where=str(place), mend="make room, or another --out"
    )


def check_machine(asked: Asked) -> None:
    """Raise ``UserError`` where the machine lacks what was asked for: a device, a precision, threads."""
    from msmae.training.trainer import check_trainer

    check_trainer(asked.settings.trainer)


def open_data(
    asked: Asked, *, first: Callable[[Manifest], None] | None = None, seed: int | None = None, goes_on: bool = True
) -> Manifest:
    """The data with its splits; what was recognised, guessed and cut is printed.

    Args:
        first: what is checked before an image is read, beside the column of units.
        seed: of the splits, where it is another than the run's.
        goes_on: the folder may hold an unfinished run, which must have been begun with the same images.

    Raises:
        UserError: the data cannot be read, or an unfinished run in the folder was begun with other images.
    """
    from msmae.data.opening import divide, whole_groups
    from msmae.encoders.start import channels_of
    from msmae.runs.folder import check_same_images
    from msmae.statistics.units import check_unit
    from msmae.training.ensemble import with_folds
    from msmae.verbs.show import show_understood

    def check(manifest: Manifest) -> None:
        try:
            check_unit(asked.settings.dataset.unit, manifest.table)
            if first is not None:
                first(manifest)
        except UserError:
            show_understood(manifest)
            raise

    seed = asked.seed if seed is None else seed
    manifest = divide(asked.data, settings=asked.settings, seed=seed, takes=channels_of(asked.start), first=check)
    if asked.folds:
        manifest = with_folds(manifest, asked.folds, seed=seed, groups=whole_groups(manifest, asked.settings))
        others = f"the training images are dealt into {asked.folds - 1} more folds, one a model"
        print(f"- {asked.folds} models: the validation split is the first one's, and {others}")
    if goes_on and not asked.overwrite:
        check_same_images(asked.folder, manifest, seed=asked.seed, settings=asked.settings)
    show_understood(manifest)
    return manifest


def check_classifier(manifest: Manifest) -> None:
    """Raise ``UserError`` where the data has not the labels that a classifier needs."""
    from msmae.data.obstacles import early_obstacles, stop_on

    stop_on(early_obstacles(manifest))


def audited(asked: Asked, manifest: Manifest) -> Audit:
    """The audit of a manifest. A finding is printed on a line, with its count; the report and audit.json say more.

    Raises:
        LeakageError: test images or patients are also in training or validation, and that is not allowed.
    """
    from msmae.data.audit import list_warnings, stop_on_leakage
    from msmae.data.audit.against import audit_against

    found = audit_against(manifest, settings=asked.settings, source=asked.data)
    stop_on_leakage(found, allow=asked.allow_leakage)
    for line in [*list_warnings(dataclasses.replace(found, shortcuts=())), *shortcut_lines(found.shortcuts)]:
        print(f"- audit: {line if len(line) <= LONGEST else line[:LONGEST].rsplit(' ', 1)[0] + ' ...'}")
    return found


def known_to_start(asked: Asked, manifest: Manifest) -> dict[str, Any]:
    """What audit.json says of test images that a start from another run has learned from; empty for any other start.

    Raises:
        LeakageError: there are such images, and that is not allowed.
    """
    if asked.start is None or asked.start.files.run is None:
        return {}
    from msmae.evaluation.encoder_history import refuse_leakage
    from msmae.training.source import find_source

    source = find_source(str(asked.start.path))
    learned = refuse_leakage(manifest, source, asked.settings, allow=asked.allow_leakage)
    return {"test_in_encoder_pool": learned["test_in_encoder_pool"]}


def shortcut_lines(shortcuts: Sequence[Shortcut]) -> list[str]:
    """What beside the tissue predicts the class, and what the split: a line each, with the strongest."""
    lines = []
    for target in ("class", "split"):
        those = [shortcut for shortcut in shortcuts if shortcut.target == target]
        if not those:
            continue
        best = max(those, key=lambda shortcut: shortcut.balanced_accuracy)
        figures = f"balanced accuracy {best.balanced_accuracy:.2f}, chance {best.guessing:.2f}"
        others = len(those) - 1
        more = f"; so do{'es' * (others == 1)} {count(others, 'more trait')} (the report lists them)" if others else ""
        lines.append(f"the {best.trait} alone predicts the {target} ({figures}){more}")
    return lines


def write_start(
    asked: Asked, prepared: Prepared, found: Audit, *, given: Mapping[str, Any] | None = None, **more: Any
) -> None:
    """Begin the run's folder: its settings, its manifest and the audit, to which ``more`` is added; what an
    earlier run left is thrown away where that was asked for. Of several processes the main one does.

    Raises:
        UserError: an unfinished run in the folder was begun with other settings, or with other images.
    """
    from msmae.records import check_content
    from msmae.runs.folder import clear_run, describe_run, is_helper_process, write_json

    folder = asked.folder
    if is_helper_process():  # the main process writes
        return
    if asked.overwrite:
        clear_run(folder)
    describe_run(
        folder,
        data=str(asked.data),
        method=prepared.method,
        seed=asked.seed,
        settings=prepared.settings,
        given={**(asked.given if given is None else given), "understood": found.understood.to_dict()},
    )
    check_content(folder, prepared.store.content)
    prepared.manifest.write(folder / "manifest.csv", record=True)
    write_json(folder / "audit.json", {**found.to_dict(), **more})
