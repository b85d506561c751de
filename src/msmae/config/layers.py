"""Settings layered as preset < file < command line, later ones winning; a file may extend a shipped recipe."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from msmae.config.settings import Settings
from msmae.errors import UserError

RECIPES = Path(__file__).parents[1] / "recipes"
GROUPS: dict[str, Any] = get_type_hints(Settings)
WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none",
}  # fmt: skip
"""What a setting of a plain type must be, in words."""
T = TypeVar("T")


def presets() -> list[str]:
    """The names of the shipped presets and recipes."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def read_settings(path: Path, *, below: tuple[Path, ...] = ()) -> dict[str, dict[str, Any]]:
    """A YAML file of settings as nested values, over those of the shipped recipe that it names as ``extends``.

    Args:
        below: the files that extend this one, the nearest last.

    Raises:
        UserError: a missing or malformed file, no such recipe, or one that extends itself in the end.
    """
    import yaml

    if not path.is_file():
        raise UserError("no such settings file", where=str(path), mend="check the path")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not readable as YAML: {error}", where=str(path), mend="mend the file") from error
    if isinstance(content, dict) and isinstance(content.get("settings"), dict):
        content = content["settings"]  # a run's config.yaml
    base = content.pop("extends", None) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not all(isinstance(group, dict) for group in content.values()):
        raise UserError("settings must be groups of `name: value`", where=str(path), mend="see the shipped recipes")
    return content if base is None else over(extended(base, (*below, path)), content)


def extended(base: Any, files: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """The settings of the shipped recipe that the last of these files extends; ``UserError`` where there is none."""
    if base not in presets():
        raise UserError(
            f"it extends '{base}', and there is no such recipe",
            where=str(files[-1]),
            mend=f"extend one of {', '.join(presets())}",
        )
    path = RECIPES / f"{base}.yaml"
    if path in files:
        circle = " -> ".join(file.stem for file in (*files[files.index(path) :], path))
        raise UserError(
            f"recipes extend each other in a circle ({circle})", where=str(files[-1]), mend="take `extends` out of one"
        )
    return read_settings(path, below=files)


def over(base: dict[str, dict[str, Any]], values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Groups of values with others laid over them."""
    return {group: {**base.get(group, {}), **values.get(group, {})} for group in (*base, *values)}


def preset_layer(preset: str) -> dict[str, dict[str, Any]]:
    """The settings of a shipped preset; ``auto`` is ``gpu`` where a GPU is visible, else ``cpu``."""
    if preset == "auto":
        import torch

        preset = "gpu" if torch.cuda.is_available() else "cpu"
    if preset not in presets():
        raise UserError(f"no preset '{preset}'", where="--preset", mend=f"choose one of {', '.join(presets())}")
    return read_settings(RECIPES / f"{preset}.yaml")


def make_settings(
    preset: str = "auto", config: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from a preset, then a YAML file, then overrides (later wins).

    Args:
        overrides: groups by name, each a mapping of the values to change or a whole settings object, for instance
            ``{"pretrain": {"epochs": 5}}``.

    Raises:
        UserError: an unknown group or name (the nearest known one is named), or a value out of range.
    """
    layers = [preset_layer(preset)]
    if config is not None:
        layers.append(read_settings(Path(config)))
    layers.append(
        {k: dict(v) if isinstance(v, Mapping) else dataclasses.asdict(v) for k, v in (overrides or {}).items()}
    )
    return merge_layers(layers)


def merge_layers(layers: list[dict[str, dict[str, Any]]]) -> Settings:
    """Settings from layers of nested values, later ones winning; ``UserError`` for an unknown name or a bad value."""
    merged: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    for layer in layers:
        for group, values in layer.items():
            if group not in GROUPS:
                raise unknown_name(group, GROUPS, where="settings group")
            known = {f.name for f in dataclasses.fields(GROUPS[group])}
            for name, value in values.items():
                if name not in known:
                    raise unknown_name(name, known, where=f"settings group {group}")
                merged[group][name] = tuple(value) if isinstance(value, list) else value
    return Settings(**{group: build(GROUPS[group], group, values) for group, values in merged.items()})


def build(kind: type[T], group: str, values: dict[str, Any]) -> T:
    """Make a settings group; a value of the wrong kind is a ``UserError`` that names it."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not fits(value, hints[name]):
            choices = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
            raise UserError(
                f"{value!r} is not {one_of(choices) if choices else words_for(hints[name])}",
                where=f"{group}.{name}",
                mend="give another value",
            )
        if hints[name] is float:
            values[name] = float(value)
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"wrong kind of value: {error}", where=group, mend="see `msmae run --help`") from error


def fits(value: Any, expected: Any) -> bool:
    """Whether a value is of the type that a setting declares; a whole number will do for a fraction."""
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is tuple:
        same = isinstance(value, tuple) and len(value) == len(arguments)
        return same and all(fits(v, a) for v, a in zip(value, arguments, strict=True))
    if expected is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def one_of(choices: tuple[Any, ...]) -> str:
    """``one of a, b, c``."""
    return f"one of {', '.join(str(choice) for choice in choices if choice is not None)}"


def words_for(expected: Any) -> str:
    """A type in words: a whole number, a number, two numbers, text."""
    if expected in WORDS:
        return WORDS[expected]
    if get_origin(expected) is tuple:
        return f"{len(get_args(expected))} numbers"
    return " or ".join(words_for(argument) for argument in get_args(expected))


def unknown_name(name: str, known: Any, *, where: str) -> UserError:
    """An error that suggests the nearest known names."""
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(map(str, known)))}"
    return UserError(f"unknown setting '{name}'", where=where, mend=hint)
