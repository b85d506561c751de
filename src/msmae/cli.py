"""The command line: every verb is a function, and its signature is the verb's options (options.py)."""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from msmae.errors import UserError, visible


class Verb(NamedTuple):
    """Where a verb's function is, what it does, the groups of settings it takes, and those that --help shows."""

    function: str
    summary: str
    groups: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


SECONDS_TO_END = 20.0
"""After which a signal ends the process, whatever a library's thread still waits for."""
TRAINING = ("dataset", "model", "pretrain", "finetune", "evaluate", "trainer")
SHOWN = ("dataset.label_column", "dataset.patients", "model.image_size", "pretrain.epochs", "finetune.epochs")
VERBS = {
    "run": Verb("run:run", "pre-train, fine-tune and test: from images to a tested model", TRAINING, SHOWN),
    "demo": Verb("demo:demo", "run all of it in minutes on phantom images, which msmae generates"),
    "check": Verb(
        "check:check", "find what is wrong with a data set before anything is trained", ("dataset",),
        ("label_column", "patient_column", "patients", "layout"),
    ),
    "predict": Verb("predict:command", "predict new images with the model of a run"),
    "serve": Verb("serve:serve", "open a page to try the model of a run in, and an HTTP API"),
    "evaluate": Verb(
        "evaluate:evaluate", "test the model of a run again, or on images of another origin (external test)",
        ("dataset", "model", "evaluate"), ("dataset.label_column", "dataset.patients", "model.channels"),
    ),
    "report": Verb("report:report", "write the report of a run or a comparison again"),
    "compare": Verb(
        "compare:compare", "train several arms with several seeds on the same splits, and compare them", TRAINING,
        SHOWN,
    ),
    "segment": Verb(
        "segment:segment", "train a model that outlines lesions, and test it",
        ("dataset", "model", "segment", "evaluate", "trainer"),
        ("dataset.mask_column", "dataset.patients", "model.image_size", "segment.classes", "segment.epochs"),
    ),
    "pretrain": Verb("pretrain:pretrain", "pre-train an encoder only", TRAINING, SHOWN),
    "finetune": Verb(
        "finetune:finetune", "fine-tune and test a pre-trained encoder", ("finetune", "evaluate", "trainer"),
        ("finetune.epochs", "finetune.base_lr", "finetune.batch_size"),
    ),
    "encoders": Verb("encoders:encoders", "list pretrained encoders to start from, or fetch one"),
    "budget": Verb("budget:budget", "measure how few patches a model needs, and choose the token share"),
    "export": Verb("export:export", "write the model of a run as an ONNX, PyTorch, timm or hub file"),
    "masks": Verb("masks:masks", "draw the attention, the masked patches and their reconstruction"),
    "embed": Verb("embed:embed", "write the features of images from a frozen encoder, as arrays"),
    "bench": Verb("bench:bench", "measure how fast training and prediction are on this machine"),
}  # fmt: skip


def end(number: int, *_: object) -> NoReturn:
    """Answer SIGTERM or Ctrl-C: exit, after a while also from what a library's thread still holds up (files are written
    whole or not at all, so nothing is cut). At SIGUSR1 the SLURM job goes back into the queue first.
    """
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"\nmsmae: {what}; the same command goes on, a training from its last checkpoint", file=sys.stderr)
    if number not in (signal.SIGINT, signal.SIGTERM) and os.environ.get("SLURM_PROCID", "0") == "0":
        array = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}" if "SLURM_ARRAY_JOB_ID" in os.environ else "{SLURM_JOB_ID}"
        subprocess.run(["scontrol", "requeue", array.format(**os.environ)], check=False)
    late = threading.Timer(SECONDS_TO_END, os._exit, (128 + number,))
    late.daemon = True
    late.start()
    sys.exit(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C are answered by :func:`end`, unless they are ignored here. An exception in their place is not
    enough: the training library turns KeyboardInterrupt into an exit code of its own.
    """
    asked = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else [])]
    before = {number: signal.getsignal(number) for number in asked}
    for number, answer in before.items():
        if answer is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, answer in before.items():
            if answer is not None:  # set by Python, not by the program around it
                signal.signal(number, answer)


OF_THE_MACHINE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "ask for the right to it, or name another"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, and repeat the command"),
    errno.EROFS: "name another place",
}
"""What a person can mend of what the system refuses."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit: 0 done, 2 the input is wrong, 3 leakage, 130/138/143 interrupted and resumable."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with ended_by_signals():
            code = dispatch(words)
        sys.exit(code)
    except UserError as error:
        print(f"msmae: {visible(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(visible(f"msmae: {error.strerror}{where}: {OF_THE_MACHINE[error.errno]}"), file=sys.stderr)
        sys.exit(UserError.exit_code)


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
        near = difflib.get_close_matches(verb, VERBS, n=1)
        raise UserError(
            f"there is no command '{verb}'",
            mend=f"did you mean `msmae {near[0]}`?" if near else f"choose one of {', '.join(VERBS)}",
        )
    call_verb(verb, words[1:])
    return 0


def usage() -> str:
    """The text of ``msmae --help``."""
    lines = "\n".join(f"  {name:10} {verb.summary}" for name, verb in VERBS.items())
    return (
        "msmae: train a classifier or a segmenter on your own medical images, and get a test report\n\n"
        f"usage: msmae COMMAND ... (msmae COMMAND --help lists its options)\n\n{lines}\n\n"
        "  msmae run DATA --out RUN     DATA: a folder, a CSV, an .npz, or `phantom`"
    )


def find_function(verb: str) -> Callable[..., Any]:
    """The function behind a verb."""
    module, name = VERBS[verb].function.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f"msmae.verbs.{module}"), name)
    return function


def call_verb(verb: str, words: Sequence[str]) -> None:
    """Parse a verb's words into its function's arguments and call it; or print its help."""
    from msmae.options import help_text, options_of, parse_words

    function = find_function(verb)
    options = options_of(function, VERBS[verb].groups)
    if {"-h", "--help", "--help-all"} & set(words):
        _, summary, _, shown = VERBS[verb]
        print(help_text(verb, summary, options, shown=shown, every="--help-all" in words))
        return
    given = parse_words(words, options)
    quiet_logging()
    function(**given)


class StandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is standard error at the moment: on a terminal a progress bar puts itself there, and lines above
    itself.
    """

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def quiet_logging() -> None:
    """Our own messages, on standard error, one line each."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[StandardError()])
    logging.getLogger("msmae").setLevel(logging.INFO)


if __name__ == "__main__":
    main()
