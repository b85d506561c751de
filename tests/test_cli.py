"""The command line: signatures are options, errors are one sentence, start-up is light."""

from __future__ import annotations

import inspect
import io
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from msmae.cli import VERBS, StandardError, find_function, main
from msmae.options import Option, options_of, parse_words, plain_words


def exit_code(words: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(caught.value.code or 0)


def options(verb: str) -> list[Option]:
    return options_of(find_function(verb), VERBS[verb].groups)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_signature_is_its_command_line(verb: str) -> None:
    parameters = inspect.signature(find_function(verb)).parameters
    own = {option.dest for option in options(verb) if not option.group}
    assert own == {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    assert {option.group for option in options(verb)} - {""} == set(VERBS[verb].groups)
    assert bool(VERBS[verb].groups) == (parameters.keys() & {"settings", "dataset"} != set())
    assert set(VERBS[verb].shown) <= {option.name for option in options(verb)}


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_one_screen_and_help_all_is_whole(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([verb, "--help"]) == 0
    short = capsys.readouterr().out
    assert short.count("\n") <= 60
    assert exit_code([verb, "--help-all"]) == 0
    whole = capsys.readouterr().out
    for option in options(verb):
        word = option.name.upper() if option.place else f"--{option.name}".replace("_", "-")
        assert word in whole
        assert option.group or word in short
    assert "--from_" not in short + whole


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_argument(verb: str) -> None:
    function = find_function(verb)
    text = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert f"{name}: " in text, f"`{verb}` does not say what {name} is"


def test_help_needs_no_heavy_import() -> None:
    heavy = "[m for m in ('torch', 'pandas', 'numpy') if m in sys.modules]"
    code = f"import sys; from msmae.cli import usage; usage(); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)
    assert exit_code(["--version"]) == 0


def test_words_as_a_person_types_them() -> None:
    run = options("run")
    assert plain_words(["d", "--overwrite", "--pretrain.crop-scale=1"], run) == [
        "d", "--overwrite", "true", "--pretrain.crop_scale=1",
    ]  # fmt: skip
    assert plain_words(["--pretrain.normalise-pixels", "--ordinal", "--trainer.compile", "false"], run) == [
        "--pretrain.normalise_pixels", "true", "--dataset.ordinal", "true", "--trainer.compile", "false",
    ]  # fmt: skip
    assert plain_words(["d", "--seed", "0"], run) == ["d", "--seed", "0"]


def test_two_numbers_are_given_as_people_give_them() -> None:
    words = ["d", "--out", "r", "--finetune.crop-scale", "0.6", "1.0", "--model.image_size", "64", "96"]
    given = parse_words(words, options("run"))
    assert given == {
        "data": "d", "out": "r", "finetune": {"crop_scale": (0.6, 1.0)}, "model": {"image_size": (64, 96)},
    }  # fmt: skip
    assert parse_words(["d", "--out", "r", "--model.image_size", "64"], options("run"))["model"] == {"image_size": 64}


def test_only_what_was_given_reaches_the_verb() -> None:
    assert parse_words(["d", "--from", "none", "--out=r"], options("segment")) == {
        "data": "d", "from_": "none", "out": "r",
    }  # fmt: skip
    given = parse_words(["x", "--layout", "busi", "--near-bits", "3", "--allow-leakage"], options("check"))
    assert given == {"data": "x", "near_bits": 3, "allow_leakage": True, "dataset": {"layout": "busi"}}
    assert parse_words(["r", "a.png", "b.png", "--out", "o"], options("predict"))["paths"] == ["a.png", "b.png"]
    assert parse_words(["d", "--out", "o", "--seeds", "0", "1"], options("compare"))["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rum"], "did you mean `msmae run`?"),
        (["run", "phantom", "--out", "{tmp}/r", "--methd", "mae"], "did you mean --method?"),
        (["run", "phantom", "--out", "{tmp}/r", "--finetune.lr", "1"], "did you mean --finetune.base_lr"),
        (["run", "phantom", "--out", "{tmp}/r", "--segment.epochs", "1"], "no effect"),
        (["check", "phantom", "--method", "vit"], "there is no option --method"),
        (["run", "phantom", "--out", "{tmp}/r", "--task", "regression"], "not offered"),
        (["run", "phantom", "--out", "{tmp}/r", "--model.patch_size", "4", "4", "4"], "3-D patches are not offered"),
        (["run", "phantom", "--out", "{tmp}/r", "--finetune.crop_scale", "0.6"], "--finetune.crop_scale 0.5 1.0"),
        (["run", "nowhere", "--out", "{tmp}/r"], "nowhere"),
        (["run", "phantom"], "out"),
        (["run", "phantom", "--out", "{tmp}/r", "--pretrain.epocs", "3"], "epocs"),
        (
            ["run", "phantom", "--out", "{tmp}/r", "--pretrain.epochs", "many"],
            "--pretrain.epochs is 'many', not a whole number",
        ),
        (["run", "phantom", "--out", "{tmp}/r", "--seed", "1.5"], "--seed is '1.5', not a whole number"),
        (["evaluate", "{tmp}", "--mirror", "yes"], "--mirror is 'yes', not one of on, off: "),
        (["evaluate", "{tmp}", "--neighbours", "-1"], "give 0 or more"),
        (["run", "{data}", "--out", "{tmp}/r", "--config", "{data}"], "a YAML file of settings"),
        (["check", "{data}", "--layout", "folder"], "the layout folder is of folders"),
        (["predict", "{tmp}", "{tmp}", "--out", "{tmp}/p", "--keep", "nan"], "--keep is 'nan', not a number or auto"),
        (
            ["run", "phantom", "--out", "{tmp}/r", "--pretrain.mask_ratio", "0.8", "--pretrain.throw_ratio", "0.3"],
            "0.8",
        ),
        (["run", "phantom", "--out", "{tmp}/r", "--model.image_size", "60", "--model.patch_size", "8"], "60"),
        (["run", "{data}", "--out", "{tmp}/r", "--preset", "tiny", "--pretrain.mask_ratio", "0.75"], "0.75"),
        (["run", "phantom", "--out", "{tmp}/r", "--method", "msma"], "no method 'msma'"),
        (["run", "phantom", "--out", "{tmp}/r", "--preset", "huge"], "no preset 'huge'"),
        (["run", "{data}", "--out", "{tmp}/r", "--init", "none.pth"], "none.pth"),
        (["predict", "{tmp}/none", "{tmp}", "--out", "{tmp}/p"], "no images"),
        (["masks", "{tmp}/none"], "no pre-trained model"),
        (["evaluate", "{tmp}/none"], "no saved model here"),
        (["finetune", "{tmp}/none"], "no pre-trained encoder"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(
    words: list[str], said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code([word.replace("{tmp}", str(tmp_path)).replace("{data}", str(data)) for word in words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert error.startswith("msmae: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists(), "nothing is half-written"


def test_messages_stand_above_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the bar takes standard error over while it is drawn, and prints above itself what comes there."""
    shown, bar = io.StringIO(), io.StringIO()
    handler = StandardError()
    monkeypatch.setattr(sys, "stderr", shown)
    with Progress(console=Console(file=bar, force_terminal=True, width=60)) as progress:
        progress.add_task("pretrain", total=2)
        progress.refresh()
        handler.emit(logging.makeLogRecord({"msg": "epoch 3 begins"}))
    handler.emit(logging.makeLogRecord({"msg": "done"}))
    assert "epoch 3 begins" in [line.split("\x1b[2K")[-1].strip() for line in bar.getvalue().splitlines()]
    assert shown.getvalue() == "done\n"


@pytest.mark.slow
def test_messages_go_to_a_file_where_standard_error_is_one() -> None:
    """Standard output a terminal with a bar on it, standard error a file."""
    code = """
import logging
from msmae.cli import quiet_logging
from msmae.runs.progress_lines import StageProgress
quiet_logging()
with StageProgress("pretrain").progress as progress:
    assert progress.console.is_terminal
    logging.getLogger("msmae").info("epoch 3 begins")
"""
    ours, terminal = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdout=terminal, stderr=subprocess.PIPE, text=True, check=True)
    os.close(terminal)
    os.close(ours)
    assert done.stderr == "epoch 3 begins\n"
