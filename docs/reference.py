"""Write the pages of docs/reference: commands, settings, recipes and Python names, from the code itself.

Nothing here is typed twice: a command's options are its function's signature and docstring, a setting's text is the
docstring under it, a recipe's is the comment at its head.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

from docstring_parser import Docstring, parse

import msmae
from msmae.cli import VERBS, find_function
from msmae.config import GROUPS
from msmae.options import described, options_of

REPOSITORY = Path(__file__).resolve().parents[1]


def write_pages(folder: Path) -> None:
    """Write every page; a file that has not changed is left as it is, so that Sphinx builds only what is new."""
    folder.mkdir(exist_ok=True)
    pages = {"commands": commands(), "settings": settings(), "recipes": recipes(), "python": python()}
    pages |= {"results": include("RESULTS.md"), "changelog": include("CHANGELOG.md")}
    for name, text in pages.items():
        file = folder / f"{name}.md"
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def include(name: str) -> str:
    """A page of the repository's root, as a page of the site."""
    return f"```{{include}} ../../{name}\n:relative-docs: docs/\n:relative-images:\n```\n"


def commands() -> str:
    """A section a verb: what it does, how it is called, its own options."""
    parts = [
        "# Commands\n\nHyphens do as well as underscores. An option of true or false that is given no value is true. "
        "Exit codes: 0 done, 2 the input is wrong, 3 leakage between splits, 130, 138 or 143 "
        "interrupted (the same command continues).\n\nCommands that train also take the [settings](settings.md).\n"
    ]
    for name, verb in VERBS.items():
        function = find_function(name)
        rows = []
        for option in options_of(function, ()):
            shown = option.name.upper() if option.place else f"--{option.name.replace('_', '-')}"
            rows.append((f"`{shown}`", "needed" if option.required else shown_value(option.default), option.help))
        text = text_of(parse(function.__doc__ or ""))
        parts.append(f"## msmae {name}\n\n{text}\n")
        parts.append(table(("option", "default", "what it does"), rows))
        if verb.groups:
            parts.append(f"Settings: {', '.join(f'[{group}](settings.md#{group})' for group in verb.groups)}.\n")
    return "\n".join(parts)


def settings() -> str:
    """A section a group of settings, from its dataclass."""
    parts = [
        "# Settings\n\nA setting is an option of every command that trains (`--pretrain.epochs 5`) or a line of YAML "
        "(`--config FILE`). `None` and `auto` are decided from the data and the machine; what was decided is in "
        "`RUN/config.yaml`.\n"
    ]
    for group, kind in GROUPS.items():
        texts = described(kind)
        rows = [
            (f"`--{group}.{field.name}`", shown_value(default_of(field)), texts.get(field.name, ""))
            for field in dataclasses.fields(kind)
        ]
        parts.append(f"## {group}\n\n{parse(kind.__doc__ or '').short_description}\n\n")
        parts.append(table(("setting", "default", "what it does"), rows))
    return "\n".join(parts)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default, made where it has to be made."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def recipes() -> str:
    """Every shipped recipe: its name, and the comment at its head."""
    parts = ["# Recipes\n\n`--preset NAME` starts from one of these; your own file may begin with `extends: NAME`.\n"]
    for file in sorted((REPOSITORY / "src" / "msmae" / "recipes").glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        head = [line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines)]
        parts.append(f"## {file.stem}\n\n{' '.join(head)}\n")
    return "\n".join(parts)


def python() -> str:
    """The public names of `import msmae`."""
    parts = ["# Python\n\nThese names are the library: `import msmae`. Each is loaded when it is first used.\n"]
    for name in msmae.__all__:
        thing = getattr(msmae, name)
        if callable(thing):
            parts.append(f"## {name}\n\n```python\n{signature(name, thing)}\n```\n\n{documented(thing)}\n")
    return "\n".join(parts)


def documented(thing: Any) -> str:
    """A function's or a class's docstring, and those of the class's public methods."""
    doc = parse(thing.__doc__ or "")
    parts = [text_of(doc), arguments(doc)]
    for name, method in vars(thing).items() if isinstance(thing, type) else ():
        if not name.startswith("_") and inspect.isfunction(method):
            inner = parse(method.__doc__ or "")
            parts.append(f"### {thing.__name__}.{name}\n\n```python\n{signature(name, method)}\n```\n")
            parts += [text_of(inner), arguments(inner)]
    return "\n\n".join(part for part in parts if part)


def signature(name: str, thing: Any) -> str:
    """The call, without the module names that types carry."""
    try:
        text = str(inspect.signature(thing))
    except ValueError:
        return name
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", f"{name}{text}").replace("'", "")


def arguments(doc: Docstring) -> str:
    """What goes in, what comes out, what is raised."""
    rows = [(f"`{p.arg_name}`", p.description or "") for p in doc.params]
    text = table(("argument", "what it is"), rows) if rows else ""
    if doc.returns:
        text += f"\nReturns: {plain(doc.returns.description or '')}\n"
    for raised in doc.raises:
        text += f"\nRaises `{raised.type_name}`: {plain(raised.description or '')}\n"
    return text


def text_of(doc: Docstring) -> str:
    """The running text of a docstring, as Markdown."""
    return plain("\n\n".join(part for part in (doc.short_description, doc.long_description) if part))


def plain(text: str) -> str:
    """reStructuredText's literals and roles, as Markdown's."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def shown_value(value: Any) -> str:
    """A default as it is typed on the command line."""
    if value is None:
        return "`None`"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value}`" if value != "" else "empty"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join(plain(" ".join(cell.split())).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"
