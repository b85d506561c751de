"""The command line: every verb is a stage function, and its signature is the verb's options."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import keyword
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from msmae.errors import UserError

VERBS: dict[str, tuple[str, str]] = {
    "run": ("msmae.verbs.run:run", "pre-train, fine-tune and evaluate: from images to a tested model"),
    "demo": ("msmae.verbs.demo:demo", "the same on the embedded phantom, with pictures"),
    "pretrain": ("msmae.verbs.evaluate:pretrain", "pre-train an encoder only"),
    "finetune": ("msmae.verbs.evaluate:finetune", "fine-tune and evaluate a pre-trained encoder"),
    "segment": ("msmae.verbs.segment:segment", "train an encoder to outline lesions, and evaluate it"),
    "evaluate": ("msmae.verbs.evaluate:evaluate", "evaluate a run's model again, or on external data"),
    "predict": ("msmae.verbs.predict:predict", "predict files or folders with a run's model"),
    "budget": ("msmae.verbs.budget:budget", "how few patches a model may look at, measured and chosen"),
    "export": ("msmae.verbs.export:export", "a run's classifier as one ONNX file"),
    "check": ("msmae.verbs.check:check", "what a data set is, what is wrong with it, and a clean split of it"),
    "report": ("msmae.verbs.report:report", "build a run's report again from what it saved"),
    "compare": (
        "msmae.verbs.compare:compare",
        "arms x seeds on the same splits and budget, and a page that compares them",
    ),
    "bench": ("msmae.verbs.bench:bench", "how fast each stage is here, and what share of the machine that is"),
    "masks": ("msmae.verbs.masks:masks", "picture where a model looks, what is masked and what it reconstructs"),
}


def end(number: int, *_: object) -> NoReturn:
    """Answer SIGTERM or Ctrl-C: exit, after 20 s also from what a library's thread still holds up (files are written
    whole or not at all, so nothing is cut).
    """
    if number == signal.SIGINT:
        print("\nmsmae: interrupted; the same command goes on, a training from its last checkpoint", file=sys.stderr)
    late = threading.Timer(20, os._exit, (128 + number,))
    late.daemon = True
    late.start()
    sys.exit(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C are answered by :func:`end`, unless they are ignored here. An exception in their place is not
    enough: the training library turns KeyboardInterrupt into an exit code of its own.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, answer in before.items():
        if answer is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, answer in before.items():
            if answer is not None:  # set by Python, not by the program around it
                signal.signal(number, answer)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit: 0 done, 2 the input is wrong, 3 leakage, 130/143 interrupted and resumable."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with ended_by_signals():
            code = dispatch(words)
        sys.exit(code)
    except UserError as error:
        print(f"msmae: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except PermissionError as error:
        print(f"msmae: {error.strerror} ({error.filename}): ask for the right to it, or name another", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except BrokenPipeError:
        os._exit(0)


def dispatch(words: Sequence[str]) -> int:
    """Find the verb, parse its options, call it."""
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from msmae import __version__

        print(__version__)
        return 0
    verb = words[0]
    if verb not in VERBS:
        raise UserError(f"no verb '{verb}'", mend=f"choose one of {', '.join(VERBS)}")
    call_verb(verb, words[1:])
    return 0


def usage() -> str:
    """The text of ``msmae --help``."""
    lines = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in VERBS.items())
    return (
        "msmae: supervised attention-driven masked autoencoders for medical images\n\n"
        f"usage: msmae VERB ... (msmae VERB --help lists its options)\n\n{lines}\n\n"
        "  msmae run DATA --out RUN     DATA: a folder, a CSV, an .npz, or `phantom`"
    )


def find_function(verb: str) -> Callable[..., Any]:
    """The stage function behind a verb."""
    module, name = VERBS[verb][0].split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def call_verb(verb: str, words: Sequence[str]) -> None:
    """Parse a verb's words into its function's arguments and call it."""
    from jsonargparse import ArgumentError

    function = find_function(verb)
    words = plain_words(words, function)
    parser = make_parser(verb, function, words)
    try:
        parsed = parser.parse_args(words).as_dict()
    except ArgumentError as error:
        raise UserError(tidy(str(error)), mend=f"see `msmae {verb} --help`") from None
    quiet_logging()
    function(**collect(function, parsed, words))


def make_parser(verb: str, function: Callable[..., Any], words: Sequence[str] = ()) -> Any:
    """The parser of a verb: its signature, and the settings groups if it takes settings."""
    from docstring_parser import parse
    from jsonargparse import ArgumentParser, set_parsing_settings

    from msmae.config import GROUPS, make_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parameters = inspect.signature(function).parameters
    lists = {
        name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD and "list" in str(p.annotation)
    }
    several = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and "list" in str(p.annotation)]
    texts = {p.arg_name: p.description for p in parse(function.__doc__ or "").params}
    parser = ArgumentParser(
        prog=f"msmae {verb}",
        description=VERBS[verb][1],
        usage=f"msmae {verb} {synopsis(parameters)}",
        epilog="Hyphens do as well as underscores; an option of {true,false} that is given no value is true.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    optional = {name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is None}
    skipped: set[str | int] = {"settings", *lists, *several, *optional}
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=skipped)
    for name in sorted(lists):
        parser.add_argument(name, nargs="+", type=str)
    for name in sorted(optional):
        parser.add_argument(name, nargs="?", type=str)
    for name in several:
        default = [str(value) for value in parameters[name].default]
        parser.add_argument(f"--{name}", nargs="+", type=str, default=default, help=texts[name])
    if "settings" in parameters:
        for group, kind in GROUPS.items():
            parser.add_class_arguments(kind, group)
    if {"settings", "preset"} <= parameters.keys():
        preset = peek(words, "preset") or parameters["preset"].default
        if preset != "auto" or not {"-h", "--help"} & set(words):
            start = make_settings(preset, peek(words, "config"))
            parser.set_defaults(
                {f"{g}.{k}": v for g in GROUPS for k, v in dataclasses.asdict(getattr(start, g)).items()}
            )
    return parser


def synopsis(parameters: Mapping[str, inspect.Parameter]) -> str:
    """``DATA --out OUT [options]``: what is needed, in one line."""
    needed = [p for p in parameters.values() if p.default is p.empty and p.name != "settings"]
    words = [
        p.name.upper() if p.kind is p.POSITIONAL_OR_KEYWORD else f"--{p.name.rstrip('_')} {p.name.rstrip('_').upper()}"
        for p in needed
    ]
    words += [f"[{p.name.upper()}]" for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD and not p.default]
    return " ".join([*words, "[options]"])


def plain_words(words: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """The words as the parser wants them: ``--allow-leakage`` is ``--allow_leakage true``, and what says how data is
    read needs no group: ``--on-error skip`` is ``--dataset.on_error skip``, as in ``msmae check``."""
    from msmae.config import GROUPS, DatasetSettings

    parameters = inspect.signature(function).parameters
    switches = {name for name, p in parameters.items() if isinstance(p.default, bool)}
    groups = GROUPS if "settings" in parameters else {}
    switches |= {
        f"{g}.{f.name}" for g, kind in groups.items() for f in dataclasses.fields(kind) if "bool" in str(f.type)
    }
    reading = {field.name for field in dataclasses.fields(DatasetSettings)} if groups else set()
    reading -= parameters.keys()
    plain: list[str] = []
    for i, word in enumerate(words):
        if not word.startswith("--"):
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        name = "--" + name[2:].replace("-", "_")
        if name[2:] in reading:
            name = f"--dataset.{name[2:]}"
        name += "_" if keyword.iskeyword(name[2:]) else ""  # Python's name of `--from` is `from_`
        plain.append(name + equals + value)
        following = words[i + 1] if i + 1 < len(words) else ""
        if name[2:] in switches and not equals and following not in ("true", "false", "null"):
            plain.append("true")
    return plain


def peek(words: Sequence[str], option: str) -> str | None:
    """The value of ``--option`` before the real parsing: presets and files of settings come first."""
    for i, word in enumerate(words):
        if word == f"--{option}" and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"--{option}="):
            return word.split("=", 1)[1]
    return None


def collect(function: Callable[..., Any], parsed: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The function's own arguments, and the settings beside them.

    A verb with a preset gets every group whole; one that goes on with a run gets only what was given.
    """
    from msmae.config import GROUPS

    parameters = inspect.signature(function).parameters
    chosen = {name: value for name, value in parsed.items() if name in parameters}
    if "settings" not in parameters:
        return chosen
    groups: dict[str, Any] = {name: dict(parsed[name]) for name in GROUPS}
    if "preset" not in parameters:
        given = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        groups = {g: {k: v for k, v in values.items() if f"{g}.{k}" in given} for g, values in groups.items()}
        groups = {g: values for g, values in groups.items() if values}
    return chosen | groups


def tidy(message: str) -> str:
    """A parser's message on one line, types in words."""
    from msmae.config.layers import WORDS

    line = " ".join(message.split()).removesuffix(".")
    line = re.sub(r"(--\w+)_(?!\w)", r"\1", line)  # Python's name of `--from` is `from_`
    key, value = re.match(r'Parser key "([^"]+)": ', line), re.search(r"(?:Given|Got) value: (.*)$", line)
    expected = re.findall(r"Expected (?:an? )?(?:<class '(\w+)'>|typing\.Literal\[([^\]]*)\])", line)
    if not (key and value and expected):
        return line
    words = {kind.__name__: text for kind, text in WORDS.items()} | {"tuple": "two numbers"}
    kinds = [words.get(kind, kind) or literal.replace("'", "") for kind, literal in expected]
    return f"--{key.group(1)} is '{value.group(1)}', not {' or '.join(kinds)}"


class StandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is standard error at the moment: on a terminal a progress bar puts itself there, and lines above
    itself.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def quiet_logging() -> None:
    """Our own messages, on standard error, one line each."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[StandardError()])
    logging.getLogger("msmae").setLevel(logging.INFO)


if __name__ == "__main__":
    main()
