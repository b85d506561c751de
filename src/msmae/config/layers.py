"""Settings layered as preset < file < command line, later ones winning; a file may extend a shipped recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from msmae.config.bounds import THREE_D, example, may_be_none, types_of, words_for
from msmae.config.settings import Settings
from msmae.errors import UserError, nearest
from msmae.files import read_mapping

RECIPES = Path(__file__).parents[1] / "recipes"
SETTINGS_FILE = "give a YAML file of settings: groups of `name: value`"
GROUPS: dict[str, Any] = get_type_hints(Settings)


REMOVED: dict[str, tuple[Any, str]] = {
    "pretrain.temperature": (1.0, "--pretrain.hints 0.5 lets the map draw half of the kept patches"),
    "pretrain.uniform_share": (0.0, "--pretrain.hints 0.5 lets the map draw half of the kept patches"),
    "segment.decoder_width": (64, "the light decoder has 64 channels"),
    "trainer.strategy": ("auto", "leave it out: several processes train by DDP"),
    "trainer.num_nodes": (1, "leave it out: torchrun or srun says how many machines there are"),
    "segment.deep_supervision": (False, "the last head of setr-pup is trained, as in the paper"),
}
"""Settings that are gone: what they were unless given, and what to do without them."""


def as_of_today(settings: Mapping[str, Mapping[str, Any]], *, whatever: bool = False) -> dict[str, dict[str, Any]]:
    """Groups of settings without the removed ones that say nothing; without all of them where ``whatever``."""
    return {
        group: {
            name: value
            for name, value in values.items()
            if (key := f"{group}.{name}") not in REMOVED or not (whatever or value == REMOVED[key][0])
        }
        for group, values in settings.items()
    }


def removed(name: str) -> UserError:
    """The error for a removed setting, with what takes its place."""
    return UserError(f"the setting {name} was removed", mend=REMOVED[name][1])


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
    if not path.is_file():
        own = path / "config.yaml"
        mend = f"give {own}" if own.is_file() else "check the path"
        raise UserError("no such settings file", where=str(path), mend=mend)
    content = read_mapping(path, mend=SETTINGS_FILE) if path.read_bytes().strip() else {}
    if isinstance(content.get("settings"), dict):
        content = content["settings"]  # a run's config.yaml
    base = content.pop("extends", None)
    if not all(isinstance(group, dict) for group in content.values()):
        raise UserError("settings must be groups of `name: value`", where=str(path), mend="see the shipped recipes")
    return content if base is None else over(extended(base, (*below, path)), content)


def extended(base: Any, files: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """The settings of the shipped recipe that the last of these files extends; ``UserError`` where there is none."""
    if base not in presets():
        raise UserError(
            f"it extends '{base}', and there is no such recipe",
            where=str(files[-1]),
            mend=nearest(base, presets()),
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
        raise UserError(f"no preset '{preset}'", where="--preset", mend=nearest(preset, presets()))
    return read_settings(RECIPES / f"{preset}.yaml")


def make_settings(
    preset: str = "auto",
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    start: Mapping[str, dict[str, Any]] | None = None,
) -> Settings:
    """Settings from a preset, then what a pretrained start decides, then a YAML file, then overrides (later wins).

    Args:
        overrides: groups by name, each a mapping of the values to change or a whole settings object, for instance
            ``{"pretrain": {"epochs": 5}}``.

    Raises:
        UserError: an unknown group or name (the nearest known one is named), or a value out of range.
    """
    layers = [preset_layer(preset), dict(start or {})]
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
        for group, values in as_of_today(layer).items():
            if group not in GROUPS:
                raise UserError(f"unknown group of settings '{group}'", mend=nearest(group, sorted(GROUPS)))
            for name, value in values.items():
                if f"{group}.{name}" in REMOVED:
                    raise removed(f"{group}.{name}")
                if name not in types_of(GROUPS[group]):
                    raise UserError(
                        f"unknown setting '{name}'", where=group, mend=nearest(name, sorted(types_of(GROUPS[group])))
                    )
                merged[group][name] = value
    return Settings(**{group: GROUPS[group](**typed(group, values)) for group, values in merged.items()})


@cache
def parser_of(group: str) -> Any:
    """The parser library's checker of a group's types."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    for field in dataclasses.fields(GROUPS[group]):
        parser.add_argument(f"--{field.name}", type=types_of(GROUPS[group])[field.name], default=field.default)
    return parser


def typed(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the types of their settings: a list as two numbers, a whole number as a fraction.

    Raises:
        UserError: a value of another type.
    """
    from jsonargparse import ArgumentError

    found = {}
    for name, value in values.items():
        plain = list(value) if isinstance(value, tuple) else value
        if value is None and not may_be_none(types_of(GROUPS[group])[name]):
            raise wrong_type(group, name, value)  # the parser lets it pass
        try:
            found[name] = parser_of(group).parse_object({name: plain}, defaults=False)[name]
        except (ArgumentError, TypeError, ValueError) as error:
            raise wrong_type(group, name, value) from error
    return found


def wrong_type(group: str, name: str, value: Any) -> UserError:
    """The error for a value of another type than its setting's: what it must be, and an option that works."""
    kind = GROUPS[group]
    if name in ("image_size", "patch_size") and isinstance(value, (list, tuple)) and len(value) == 3:
        return UserError(THREE_D)
    shown = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return UserError(
        f"'{shown}' is not {words_for(types_of(kind)[name])}",
        where=f"{group}.{name}",
        mend=f"for instance {example(kind, name)}",
    )
