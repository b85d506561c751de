"""Tensors by name, from a file or a folder. No code of a file is run; nothing here knows what the names mean."""

from __future__ import annotations

import argparse
import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from msmae.errors import UserError
from msmae.files import read_mapping

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
INSIDE = ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
"""The file of a folder that is taken, where several could be; after an index of shards."""
WRAPPED = ("model", "state_dict", "teacher", "student", "module")
"""What trainers call the weights among the other things that they save; the teacher comes before the student."""


@dataclass(frozen=True)
class Files:
    """Where weights lie: one or several ``files`` of tensors, and what the ``config`` beside them says."""

    path: Path
    files: tuple[Path, ...]
    config: dict[str, Any] = field(default_factory=dict)
    """config.json, as it is; empty where there is none."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """preprocessor_config.json, as it is."""
    run: Path | None = None
    """The run in whose folder the weights lie."""


def find_files(path: Path) -> Files:
    """The files of weights at a path: a file, a folder that holds one or an index of shards, or a run's folder.

    Raises:
        UserError: there is none, or a shard of the index is missing.
    """
    if not path.exists():
        raise UserError("no such file or folder of weights", where=str(path), mend="check --init")
    if path.is_file():
        return _with_notes(path, path.parent, [path])
    ours = [folder for folder in (path / "model", path / "pretrained") if (folder / "config.json").is_file()]
    if ours:
        return _with_notes(path, ours[0], [ours[0] / "model.safetensors"])
    index = sorted(path.glob("*.index.json"))
    if index:
        return _with_notes(path, path, _shards(index[-1]))  # of .bin and .safetensors the latter
    found = next((path / name for name in INSIDE if (path / name).is_file()), None)
    candidates = [found] if found else sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(candidates) == 1:
        return _with_notes(path, path, candidates)
    if (path / "config.yaml").is_file():
        raise UserError("the run holds no model yet", where=str(path), mend="finish it first")
    what = "several files of weights in the folder" if candidates else "no file of weights in the folder"
    raise UserError(what, where=str(path), mend=f"name a file ({', '.join(SUFFIXES)})")


def _with_notes(path: Path, folder: Path, files: Iterable[Path]) -> Files:
    near = [place for place in (folder, folder.parent) if (place / "config.yaml").is_file()]
    run = next((place for place in near if (place / "manifest.csv").is_file()), None)
    config, preprocessing = (_read_json(folder / name) for name in ("config.json", "preprocessor_config.json"))
    return Files(path, tuple(files), config, preprocessing, run)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return read_mapping(path, what="the file beside the weights", mend="mend or remove it")


def _shards(index: Path) -> list[Path]:
    weight_map = _read_json(index).get("weight_map")
    names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError("the index names no shards", where=str(index), mend="copy the folder again")
    for name in names:
        if not (index.parent / name).is_file():
            raise UserError("a shard of the weights is missing", where=str(index.parent / name), mend="copy it too")
    return [index.parent / name for name in names]


def tensor_names(files: Files) -> list[str] | None:
    """The names of all tensors where headers tell them (``.safetensors``); None where the whole file must be read."""
    if any(file.suffix != ".safetensors" for file in files.files):
        return None
    names: list[str] = []
    for file in files.files:
        with _opened(file) as content:
            names += content.keys()
    return names


def read_tensors(files: Files) -> dict[str, Tensor]:
    """Every tensor by its name, all shards together.

    Raises:
        UserError: a file is damaged, holds code (which is not run), or no tensors by name.
    """
    tensors: dict[str, Tensor] = {}
    for file in files.files:
        tensors |= _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    if not tensors:
        raise UserError("the file holds no tensors by name", where=str(files.files[0]), mend="save a state_dict")
    return tensors


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _unreadable(file) from error


def _unreadable(file: Path) -> UserError:
    return UserError(
        "the weights cannot be read: cut short, damaged, no file of tensors, or one with code in it, which is not run",
        where=str(file),
        mend="copy it again, or give a .safetensors or a .pth that holds tensors only",
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    with _opened(file) as content:
        try:
            return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise _unreadable(file) from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():  # MAE's arguments
            warnings.simplefilter("ignore")
            content = torch.load(file, "cpu", weights_only=True)
    except Exception:  # PyTorch raises every kind for a damaged file
        raise _unreadable(file) from None
    for _ in range(2):  # {"teacher": {"model": ...}} occurs
        key = next((k for k in WRAPPED if isinstance(content, dict) and isinstance(content.get(k), dict)), None)
        content = content if key is None else content[key]
    named = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in named if isinstance(value, Tensor) and isinstance(name, str)}


def sha256_of(files: Iterable[Path]) -> str:
    """SHA-256 of a file in hexadecimal; of several shards that of their bytes one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
