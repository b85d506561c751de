"""The RUN folder: what it holds, whether it is new, unfinished or finished, and how files get into it whole."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from msmae import __version__
from msmae.config import Settings, TrainerSettings, as_of_today, merge_layers
from msmae.data.tables.listing import some
from msmae.errors import UserError
from msmae.files import read_mapping, write_whole
from msmae.records import check_recorded, write_recorded
from msmae.reporting.run_files import software
from msmae.runs.lock import LOCK

if TYPE_CHECKING:
    from msmae.data.manifest import Manifest

log = logging.getLogger("msmae")

FORMAT_VERSION = 1
PACKAGES = (
    "torch",
    "pytorch-lightning",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "Pillow",
    "pydicom",
    "safetensors",
)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON with a format version; numbers that are not finite are refused (an undefined figure is null)."""
    content = {"format_version": FORMAT_VERSION, **content}
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


RUN_FILES = ("config.yaml", "environment.json")
BEGUN = {LOCK, "environment.json", "record.json"}
"""What a run holds that was killed before its settings were written: it is begun again."""


def check_run(
    run: Path, *, data: str, finished: Sequence[str], overwrite: bool = False, ours: tuple[str, ...] = RUN_FILES
) -> None:
    """Check that RUN may be written, before anything is done.

    Args:
        data: DATA as given; the run's folder and the data may not lie in one another.
        finished: what a finished run of this verb holds, all of it; nothing: more may always be added.
        overwrite: whether what is there may be thrown away (see :func:`clear_run`).
        ours: files by which a folder of ours is known.

    Raises:
        UserError: RUN is finished, is a folder of something else, or would mix with the data.
    """
    if str(run) in ("", "."):
        raise UserError("no folder for the run", where="--out", mend="name one, for instance runs/mine")
    here, source = run.resolve(), Path(data).resolve()
    if source.exists() and (here == source or (source.is_dir() and source in here.parents)):
        raise UserError("the run would lie in its own data", where=str(run), mend="choose another --out")
    if overwrite and here in source.parents:
        raise UserError("--overwrite would delete the data of the run", where=data, mend="choose another --out")
    check_writable(run)
    if not run.exists():
        return
    names = {path.name for path in run.iterdir() if not (path.name.startswith(".") and path.name.endswith(".part"))}
    if names - BEGUN and not all((run / name).is_file() for name in ours):
        raise UserError("the folder holds something else", where=str(run), mend="choose another --out")
    if finished and all((run / name).exists() for name in finished) and not overwrite and not is_helper_process():
        raise UserError(
            "the folder holds a finished run", where=str(run), mend="choose another --out, or add --overwrite"
        )


def check_writable(folder: Path, *, flag: str = "--out") -> None:
    """Raise ``UserError`` where no file can be put into a folder, which need not exist yet: asked before any work."""
    whole = folder.absolute()
    there = next(place for place in (whole, *whole.parents) if os.path.lexists(place))
    if not there.is_dir():
        what = "there is a file of this name" if there == whole else f"a file stands in the way of {folder}"
        raise UserError(what, where=str(there), mend=f"choose another {flag}")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError("nothing may be written here", where=str(there), mend=f"ask for the right, or another {flag}")


def check_output(
    out: Path, *, overwrite: bool, writes: Sequence[str] = (), goes_on: bool = False, flag: str = "--out"
) -> None:
    """Whether a file or a folder may be written, asked before any work; all verbs that make no run ask here.

    Args:
        out: the file; or the folder, in which the names in ``writes`` are made.
        overwrite: what has these names may be replaced (see :func:`clear_output`); what else a folder holds stays.
        goes_on: the folder holds the same work, unfinished.
        flag: the option that named it.

    Raises:
        UserError: there is something, and it may not be replaced; the folder is a run's; or nothing may be written.
    """
    check_writable(out if writes else out.parent, flag=flag)
    if not writes:
        if out.is_dir():
            raise UserError("this is a folder", where=str(out), mend=f"name a file with {flag}")
        if out.exists() and not overwrite:
            raise UserError(
                "there is a file of this name", where=str(out), mend=f"choose another {flag}, or add --overwrite"
            )
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if "environment.json" in names and "model.json" not in names:
        raise UserError("this folder holds a run", where=str(out), mend=f"choose another {flag}")
    if names and not overwrite and not goes_on:
        replaced = sorted(names & set(writes))
        what = f"the folder holds {some(replaced)} already" if replaced else f"the folder holds {some(sorted(names))}"
        mend = "which replaces only that" if replaced else "which leaves that as it is"
        raise UserError(what, where=str(out), mend=f"choose another {flag}, or add --overwrite, {mend}")


def clear_output(out: Path, writes: Sequence[str]) -> None:
    """Remove what an earlier call wrote under these names, so that nothing of it stands beside what is written now."""
    for path in (out / name for name in writes):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def clear_run(run: Path) -> None:
    """Throw away an earlier run, once everything about the new one has been checked; the lock stays held."""
    if not run.exists() or is_helper_process():
        return
    for path in run.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def is_helper_process() -> bool:
    """Whether this is a process of distributed training beside the main one, whoever started it: Lightning on this
    machine or another, torchrun or srun."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return any(os.environ.get(name, "0") != "0" for name in ranks)


def describe_run(run: Path, *, data: str, method: str, seed: int, settings: Settings, given: dict[str, Any]) -> None:
    """Write config.yaml and environment.json, or check that an unfinished run asked for the same.

    What the run is made from (``data``, and of ``given`` ``from`` and ``init``) is recorded as whole paths: it is found
    again from any folder.

    Raises:
        UserError: the unfinished run in this folder was started with other settings; they are named.
    """
    config = {
        "format_version": FORMAT_VERSION, "data": data, "method": method, "seed": seed, **given,
        "settings": settings.to_dict(),
    }  # fmt: skip
    config |= whole_paths(config)
    path = run / "config.yaml"
    if path.is_file():
        before = read_config(path)
        before.pop("understood", None)  # said, not asked for
        config.pop("understood", None)
        before["settings"] = completed(before["settings"], config["settings"])
        refuse_other_settings(run, differences(before | whole_paths(before), config))
        tell_of_other_software(run)
        return
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "environment.json", environment())
    write_recorded(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def tell_of_other_software(run: Path) -> None:
    """Warn where an unfinished run was begun with other software than it goes on with, and add that to its record."""
    path = run / "environment.json"
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        before, now = software(record), software(environment())
    except (OSError, ValueError, TypeError) as problem:
        log.warning("%s cannot be read (%s): with what software this run was begun is not known", path, problem)
        return
    other = [name for name in now if before.get(name, now[name]) != now[name]]
    if other:
        write_json(path, {**record, "went_on_with": [f"{name} {now[name]}" for name in other]})
        log.warning(
            "%s was begun with other software (%s): what comes of it is of neither alone; --overwrite begins anew",
            run,
            "; ".join(f"{name} {before[name]}, now {now[name]}" for name in other),
        )


def whole_paths(config: dict[str, Any]) -> dict[str, str]:
    """Of what a run is made from, the whole paths of files and folders; ``phantom`` and ``--from none`` are neither."""
    places = {key: config[key] for key in ("data", "from", "init") if config.get(key) not in (None, "none")}
    return {key: str(Path(place).resolve()) for key, place in places.items() if Path(place).exists()}


def completed(settings: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that an earlier version began: what has been added since stands at its default, or, where
    the default leaves it to the data, at what is asked now.
    """
    added = {
        group: {name: asked[group][name] if value is None else value for name, value in values.items()}
        for group, values in Settings().to_dict().items()
    }
    begun = as_of_today(settings)
    return {group: added.get(group, {}) | begun.get(group, {}) for group in added | begun}


def check_same_images(run: Path, manifest: Manifest, *, seed: int, settings: Settings) -> None:
    """Check that an unfinished run goes on with the images, labels and splits it was started with.

    Raises:
        UserError: another seed, or other settings of how data is read and divided, cut other splits; or the data has
            changed since. The sentence says in what.
    """
    path = run / "manifest.csv"
    if not path.is_file():
        return
    from msmae.data.changes import describe_changes
    from msmae.data.manifest import read_manifest

    changes = describe_changes(read_manifest(path), manifest)
    if not changes:
        return
    asked = {name: value for name, value in settings.to_dict()["dataset"].items() if value is not None}
    saved = read_config(run / "config.yaml")
    begun = {name: value for name, value in saved["settings"]["dataset"].items() if name in asked}
    refuse_other_settings(
        run, differences({"seed": saved["seed"], "dataset": {**asked, **begun}}, {"seed": seed, "dataset": asked})
    )
    raise UserError(
        f"the data has changed since this run was started: {changes}",
        where=str(run),
        mend=f"put back what {path.name} in that folder says, choose another --out, or add --overwrite",
    )


def refuse_other_settings(run: Path, other: Iterable[str]) -> None:
    """Raise ``UserError`` if an unfinished run was started with others of these settings."""
    if names := sorted(other):
        raise UserError(
            f"the unfinished run in this folder was started with other settings ({', '.join(names)})",
            where=str(run),
            mend="use the same, choose another --out, or add --overwrite",
        )


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted names of the values that differ; the trainer's settings may change between sessions."""
    found: set[str] = set()
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        name = f"{prefix}{key}".removeprefix("settings.")
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new, f"{name}.")
        elif old != new and not name.startswith("trainer."):
            found.add(name)
    return found


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record."""
    import torch

    from msmae.machine import choose_precision

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "msmae": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "cpu_threads": torch.get_num_threads(),
        "gpus": gpus,
        "auto_precision": choose_precision("auto"),
        "packages": {package: installed(package) for package in PACKAGES},
    }


def precision_of(run: Path, settings: TrainerSettings) -> str:
    """Lightning's name of the precision; ``auto`` is what the run was begun with: a second measurement may differ."""
    import torch

    from msmae.machine import choose_precision

    on_cpu = settings.accelerator == "cpu"
    if settings.precision == "auto" and not (on_cpu and torch.cuda.is_available()):
        with suppress(OSError, ValueError, TypeError, LookupError):  # an unreadable record was told of
            begun = json.loads((run / "environment.json").read_text(encoding="utf-8"))["auto_precision"]
            if begun in ("32-true", "bf16-mixed"):
                return str(begun)
    return choose_precision(settings.precision, settings.accelerator)


def read_run(run: Path) -> tuple[dict[str, Any], Settings]:
    """The config.yaml of a run, and its settings. Raises ``UserError`` if there is none."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError("this is not a run's folder: it has no config.yaml", where=str(run), mend="name a run's --out")
    config = read_config(path)
    return config, merge_layers([as_of_today(config["settings"], whatever=True)])


def read_config(path: Path) -> dict[str, Any]:
    """The content of a run's config.yaml. Raises ``UserError`` where it is damaged."""
    config = read_mapping(path, what="the run's settings", mend="copy the run again")
    settings = config.get("settings")
    if not isinstance(settings, dict) or not all(isinstance(group, dict) for group in settings.values()):
        raise UserError("the run's settings cannot be read", where=str(path), mend="copy the run again")
    check_recorded(path)
    return config


def change_settings(run: Path, groups: dict[str, Any]) -> None:
    """Change groups of settings in a run's config.yaml."""
    config, _ = read_run(run)
    changes = {name: dict(values) if isinstance(values, dict) else asdict(values) for name, values in groups.items()}
    for values in changes.values():
        if "presentations" in values:
            values.setdefault("epochs", None)  # decided anew
        if values.keys() & {"presentations", "epochs", "draw"}:
            values.setdefault("refresh_every", None)  # decided anew
    config["settings"] = merge_layers([as_of_today(config["settings"], whatever=True), changes]).to_dict()
    write_recorded(run / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
