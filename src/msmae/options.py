"""The options of a verb: its signature and the settings it takes, as a parser, as words a person types, and as help."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from msmae.config import GROUPS, make_settings
from msmae.config.bounds import THREE_D, example, plain_type, types_of, words_for
from msmae.config.layers import REMOVED, removed
from msmae.errors import UserError

NOT_OFFERED = {
    "regression": "regression is not offered; msmae classifies and outlines",
    "survival": "survival analysis is not offered; msmae classifies and outlines",
    "target": "targets other than classes are not offered; --label-column names the column of the classes",
    "task": "tasks other than classifying (`msmae run`) and outlining (`msmae segment`) are not offered",
    "event_column": "survival analysis is not offered; msmae classifies and outlines",
    "time_column": "survival analysis is not offered; msmae classifies and outlines",
}
"""What people look for and will not find."""
WITHOUT_EFFECT = ("ordinal",)
"""How data is read, but not by `msmae check`, which ranks no classes."""


@dataclass(frozen=True)
class Option:
    """One argument of a verb. ``name`` is what a person types, without the hyphens; ``dest`` is Python's name."""

    name: str
    dest: str
    kind: Any
    help: str
    default: Any = None
    place: bool = False
    required: bool = False
    group: str = ""

    @property
    def several(self) -> bool:
        """Whether it takes any number of words."""
        return get_origin(self.kind) is list

    @property
    def switch(self) -> bool:
        """Whether it may stand without a value."""
        return self.kind is bool or bool in get_args(self.kind)

    @property
    def sides(self) -> bool:
        """Whether it may be given two numbers; or is a size, of which a person may think that it takes more."""
        kind = plain_type(self.kind)
        return self.name == "model.patch_size" or any(get_origin(part) is tuple for part in (kind, *get_args(kind)))

    @property
    def word(self) -> str:
        """What stands for its value in the help."""
        name = self.name.rpartition(".")[2].upper()
        return "" if self.kind is bool else f"{name} ..." if self.several else name


def options_of(function: Callable[..., Any], groups: Sequence[str]) -> list[Option]:
    """The arguments of a verb's function, then the settings of the groups it takes.

    A verb whose last parameter is ``**dataset`` takes the settings of how data is read without their group's name.
    """
    hints = get_type_hints(function)
    texts = described(function)
    options, flat = [], ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            flat = parameter.name if parameter.name in GROUPS else ""
            continue
        needed = parameter.default is parameter.empty
        options.append(
            Option(
                parameter.name.rstrip("_"),
                parameter.name,
                hints[parameter.name],
                texts.get(parameter.name, ""),
                default=None if needed else parameter.default,
                place=parameter.kind is parameter.POSITIONAL_OR_KEYWORD,
                required=needed,
            )
        )
    for group in groups:
        texts = described(GROUPS[group])
        for field in dataclasses.fields(GROUPS[group]):
            if group == flat and field.name in WITHOUT_EFFECT:
                continue
            name = field.name if group == flat else f"{group}.{field.name}"
            kind = types_of(GROUPS[group])[field.name]
            options.append(Option(name, name, kind, texts.get(field.name, ""), default=field.default, group=group))
    return options


def described(thing: Any) -> dict[str, str]:
    """What the docstring of a function, or those below the fields of a settings group, say of each name."""
    from docstring_parser import parse, parse_from_object

    if isinstance(thing, type):
        found: dict[str, str] = {}
        for base in reversed(thing.__mro__[:-1]):
            if dataclasses.is_dataclass(base):
                found |= {text.arg_name: text.description or "" for text in parse_from_object(base).params}
        return found
    return {text.arg_name: text.description or "" for text in parse(inspect.getdoc(thing) or "").params}


def make_parser(options: Iterable[Option]) -> Any:
    """The parser of a verb's options; its types are those of the signature and the settings."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    for option in options:
        kind = get_args(option.kind)[0] if option.several else option.kind
        several = "*" if option.place else "+"
        nargs: dict[str, Any] = {"nargs": several if option.several else "?"} if option.several or option.place else {}
        parser.add_argument(option.name if option.place else f"--{option.name}", type=kind, default=None, **nargs)
    return parser


def plain_words(words: Sequence[str], options: Sequence[Option]) -> list[str]:
    """The words as the parser wants them.

    ``--allow-leakage`` is ``--allow_leakage true``; ``--finetune.crop_scale 0.6 1.0`` is one value of two numbers; what
    says how data is read needs no group: ``--on-error skip`` is ``--dataset.on_error skip``.

    Raises:
        UserError: there is no such option; the nearest is named.
    """
    known = {option.name: option for option in options}
    plain: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        name = name if name in known or f"dataset.{name}" not in known else f"dataset.{name}"
        name = name if name in known else name.removeprefix("dataset.")
        if name not in known:
            raise unknown_option(word[2:].partition("=")[0], known)
        if known[name].switch and not equals:
            value = rest.pop(0) if rest and rest[0] in ("true", "false", "null") else "true"
            plain += [f"--{name}", value]
        elif known[name].sides and not equals and len(numbers(rest[:3])) >= 2:
            pair = numbers(rest[:3])
            del rest[: len(pair)]
            plain.append(f"--{name}=[{', '.join(pair)}]")
        else:
            plain.append(f"--{name}{equals}{value}")
    return plain


def numbers(words: Sequence[str]) -> list[str]:
    """The words up to the first that is not a number."""
    found: list[str] = []
    for word in words:
        if not re.fullmatch(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", word):
            break
        found.append(word)
    return found


def unknown_option(name: str, known: Mapping[str, Option]) -> UserError:
    """The error for an option that a verb does not take: what is not offered, where it belongs, or what is near."""
    plain = name.replace("-", "_")
    last = plain.rpartition(".")[2]
    if plain in REMOVED:
        return removed(plain)
    if last in NOT_OFFERED:
        return UserError(NOT_OFFERED[last], where=f"--{name}")
    group = plain.partition(".")[0]
    if "." in plain and group in GROUPS and not any(option.group == group for option in known.values()):
        return UserError(f"--{name} has no effect here", mend=f"this command takes no settings of {group}")
    inside = [other for other in known if other.startswith(f"{group}.")] if "." in plain else list(known)
    near = [other for other in inside if last in other.rpartition(".")[2].split("_")][:3]
    near = near or difflib.get_close_matches(plain, inside, n=1, cutoff=0.7)
    near = near or [other for other in known if other.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(plain, known, n=1)
    hint = f"did you mean {' or '.join(f'--{other}' for other in near)}?" if near else "see --help-all"
    return UserError(f"there is no option --{name}", mend=hint)


def parse_words(words: Sequence[str], options: Sequence[Option]) -> dict[str, Any]:
    """The arguments of a verb's function that the words give; settings in their groups.

    Raises:
        UserError: an option is unknown, lacks a value, has one of another type, or is needed and missing.
    """
    from jsonargparse import ArgumentError

    by_dest = {option.name: option for option in options}
    try:
        parsed = make_parser(options).parse_args(plain_words(words, options), defaults=False).as_dict()
    except ArgumentError as error:
        raise UserError(tidy(str(error), by_dest), mend="see --help") from None
    given: dict[str, Any] = {}
    for name, value in flat(parsed).items():
        option = by_dest[name]
        if option.group:
            given.setdefault(option.group, {})[name.rpartition(".")[2]] = value
        elif value is not None or not option.place:
            given[option.dest] = value
    missing = [option for option in options if option.required and option.dest not in given]
    if missing:
        wanted = [option.name.upper() if option.place else f"--{option.name}" for option in missing]
        raise UserError(f"{' and '.join(wanted)} must be given", mend="see --help")
    return given


def flat(parsed: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in parsed.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def tidy(message: str, options: Mapping[str, Option]) -> str:
    """A parser's message on one line; a value of another type in our own words, with an option that works."""
    line = " ".join(message.split()).removesuffix(".")
    key = re.search(r'[Kk]ey "([^"]+)"', line)
    value = re.search(r".*(?:Given value|Got value): (.*)$", line)  # the last: of what may be none there are several
    if not key or not value or key.group(1) not in options:
        return line
    option = options[key.group(1)]
    shown = value.group(1).strip("[]").replace(",", "") if option.sides else value.group(1)
    if option.group == "model" and shown.count(" ") == 2:
        return THREE_D
    said = f"--{option.name} is '{shown}', not {words_for(option.kind).removesuffix(' or none')}"
    if option.group:
        said += f", for instance {example(GROUPS[option.group], option.name.rpartition('.')[2])}"
    return said


def help_text(verb: str, summary: str, options: Sequence[Option], *, shown: Sequence[str], every: bool) -> str:
    """What ``--help`` prints: the arguments and the settings in ``shown``; all of them where ``every``."""
    start, preset = make_settings("cpu"), any(option.name == "preset" for option in options)
    places = [option for option in options if option.place]
    others = [option for option in options if not option.place and not option.group]
    sections = [("arguments", places), ("options", others)]
    if every:
        sections += [
            (one_line(kind.__doc__).rstrip("."), [option for option in options if option.group == group])
            for group, kind in GROUPS.items()
        ]
    else:
        sections.append(("some of the settings", [option for option in options if option.name in shown]))
    formatter = argparse.HelpFormatter(prog="msmae", max_help_position=28)
    for title, those in sections:
        formatter.start_section(title)
        for option in those:
            setting = option.name.rpartition(".")[2]
            value = getattr(getattr(start, option.group), setting) if option.group else option.default
            formatter.add_argument(shown_as(option, value, short=not every))
        formatter.end_section()
    needed = [f"--{option.name} {option.word}" for option in others if option.required]
    usage = " ".join([*(o.word if o.required else f"[{o.word}]" for o in places), *needed, "[options]"])
    lines = [f"usage: msmae {verb} {usage}", "", f"{summary[0].upper()}{summary[1:]}.", "", formatter.format_help()]
    if every and preset:
        lines.append(
            "The defaults are those of the preset cpu. A YAML file of settings (--config) names them in groups."
        )
    elif shown:
        lines.append(f"All settings: msmae {verb} --help-all")
    return "\n".join(lines).rstrip()


def shown_as(option: Option, default: Any, *, short: bool) -> argparse.Action:
    """An option as the help shows it."""
    name = option.name.removeprefix("dataset.") if short else option.name
    return argparse.Action(
        [] if option.place else [f"--{name.replace('_', '-')}"],
        dest=option.name,
        metavar=option.word.removesuffix(" ..."),
        nargs="+" if option.several else 0 if option.kind is bool and not option.place else None,
        help=" ".join(option.help.split()).replace("%", "%%") + told(option, default),
    )


def told(option: Option, default: Any) -> str:
    """`` [default: 0]``, where that says something."""
    if option.required or default is None or default == "" or default is False:
        return ""
    if isinstance(default, bool):
        default = str(default).lower()
    words = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
    return f" [default: {words}]".replace("%", "%%")


def one_line(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().splitlines()[0] if text else ""
