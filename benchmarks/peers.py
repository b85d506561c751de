"""Ours beside facebookresearch/mae, Talented-Q/MSMAE and guijiejie/AMT: the same work, in turns, on this machine.

    python benchmarks/peers.py --facebook-mae PATH --msmae PATH --amt PATH [--data FOLDER] [--json FILE]

PATHs are checkouts; a peer that is not given is left out. Each side is a process of its own and they take turns
(A B A B), so that neither sees the other's memory, modules or settings; a ratio is the median over the pairs, above 1
where ours is faster. The peers run as released, which on a CPU means float32. Their processes use a virtual environment
that is made once in the cache folder: this one's libraries, with timm and torchvision beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from msmae.bench.turns import Row, alone, in_turns, processor_kind, ratio_row
from msmae.bench.work import Case
from msmae.data.opening import cache_folder
from msmae.verbs.bench import CASES

HERE = Path(__file__).parent
NAMES = {"facebook-mae": "facebookresearch/mae", "msmae": "Talented-Q/MSMAE", "amt": "guijiejie/AMT"}
RELEASED = (512, 8, 16)
SAME = dataclasses.replace(CASES["base"], name="ViT-B, same arrangement", decoder=RELEASED)
BASE = dataclasses.replace(CASES["base"], name="ViT-B, our default recipe")
TINY = dataclasses.replace(CASES["tiny"], name="ViT-T, our default recipe")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row: what ours does in which numbers, against which peer's."""

    stage: str
    ours: Case
    theirs: Case
    dtype: str
    peer: str

    @property
    def title(self) -> str:
        words = {"pretraining": "pre-training step", "refresh": "map refresh", "epoch": "a whole epoch from files"}
        return f"{words[self.stage]}, {self.ours.name}, ours in {self.dtype} / {NAMES[self.peer]}"


def released(case: Case) -> Case:
    """The same encoder with the peers' decoder."""
    return dataclasses.replace(case, decoder=RELEASED)


COMPARISONS = {
    "same": [Comparison("pretraining", SAME, SAME, dtype, peer) for peer in NAMES for dtype in ("fp32", "bf16")],
    "default": [
        Comparison("pretraining", case, released(case), dtype, "msmae")
        for case in (BASE, TINY)
        for dtype in ("fp32", "bf16")
    ],
    "refresh": [Comparison("refresh", SAME, SAME, d, peer) for peer in ("msmae", "amt") for d in ("fp32", "bf16")],
    "epoch": [Comparison("epoch", TINY, released(TINY), dtype, "msmae") for dtype in ("fp32", "bf16")],
}


def peers_python() -> Path:
    """Python of the peers' environment, made on the first call: this environment's libraries, timm and torchvision."""
    folder = cache_folder() / "peers-venv"
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        print(f"making the peers' environment in {folder} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = next((folder / "lib").glob("python*")) / "site-packages"
        (packages / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        minor = int(torch.__version__.split(".")[1])
        wanted = ["timm==0.4.12", f"torchvision==0.{minor + 15}.*"]  # what torch 2.minor was released with
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *wanted], check=True)
        (folder / "complete").touch()
    return python


class Side:
    """A worker process that does one piece of work whenever it is asked."""

    def __init__(self, asked: dict[str, Any]) -> None:
        python = sys.executable if asked["side"] == "ours" else str(peers_python())
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "src")])}
        self.process = subprocess.Popen(
            [python, str(HERE / "peer_worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not asked["loud"] else None, text=True, env=environment,
        )  # fmt: skip
        self.images = int(self.ask(json.dumps(asked)))

    def ask(self, line: str) -> float:
        """Send a line, and wait for the number that answers it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            reason = self.process.stderr.read() if self.process.stderr is not None else "see above"
            raise RuntimeError(f"a worker ended: {reason}")
        return float(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def side(asked: dict[str, Any]) -> Iterator[Side]:
    """A worker for as long as it is needed."""
    worker = Side(asked)
    try:
        yield worker
    finally:
        worker.close()


def compare(row: Comparison, options: argparse.Namespace, data: Path | None) -> Row:
    """One comparison in turns."""
    common = {
        "stage": row.stage, "threads": options.threads, "loud": options.loud, "dtype": row.dtype,
        "data": str(data / "train") if data else "",
    }  # fmt: skip
    with ExitStack() as stack:
        ours = stack.enter_context(side({**common, "side": "ours", "case": dataclasses.asdict(row.ours)}))
        checkout = str(checkouts(options)[row.peer].resolve())
        asked = {**common, "side": row.peer, "case": dataclasses.asdict(row.theirs), "checkout": checkout}
        theirs = stack.enter_context(side(asked))
        rounds = 2 if row.stage == "epoch" else options.rounds
        seconds = in_turns([lambda: ours.ask("run"), lambda: theirs.ask("run")], rounds=rounds)
    return ratio_row(row.title, *seconds, amount=ours.images, device=device(options))


def memory(options: argparse.Namespace, dtype: str) -> Row:
    """Peak memory of pre-training ViT-B at batch 64, same arrangement: one process after the other."""
    case = dataclasses.replace(SAME, batch=64)
    megabytes = []
    for name in ("ours", "msmae"):
        asked = {
            "stage": "pretraining", "threads": options.threads, "loud": options.loud, "dtype": dtype, "side": name,
            "case": dataclasses.asdict(case), "checkout": str(checkouts(options)["msmae"].resolve()), "data": "",
        }  # fmt: skip
        with side(asked) as worker:
            worker.ask("run")  # the optimiser's state exists from the second step on
            megabytes.append(worker.ask("peak"))
    ratio = megabytes[1] / megabytes[0]
    title = f"peak memory, {case.name}, batch 64, ours in {dtype} / {NAMES['msmae']}"
    return Row(title, *megabytes, ratio, ratio, ratio, "MB", device(options))


def checkouts(options: argparse.Namespace) -> dict[str, Path]:
    """The peers that were given."""
    given = {"facebook-mae": options.facebook_mae, "msmae": options.msmae, "amt": options.amt}
    return {name: path for name, path in given.items() if path is not None}


def device(options: argparse.Namespace) -> str:
    return processor_kind(options.threads)


@contextmanager
def small_copy(data: Path, count: int) -> Iterator[Path]:
    """A folder with ``train/<class>/``, links to ``count`` images spread over the classes, and their manifest."""
    from msmae.data.tables.layouts import open_dataset

    whole = open_dataset(data)
    rows = torch.linspace(0, len(whole) - 1, count).long().tolist()
    with tempfile.TemporaryDirectory() as folder:
        lines = ["image_path,label,split"]
        for row in rows:
            source = Path(whole.path(row)).resolve()
            target = Path(folder) / "train" / source.parent.name / f"{row}{source.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
            lines.append(f"{target.relative_to(folder)},{source.parent.name},train")
        (Path(folder) / "manifest.csv").write_text("\n".join(lines) + "\n")
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in NAMES:
        parser.add_argument(f"--{name}", type=Path, help=f"a checkout of {NAMES[name]}")
    parser.add_argument("--data", type=Path, help="images in class folders, for the rows of whole epochs")
    parser.add_argument("--images", type=int, default=256, help="how many of them make the epoch")
    parser.add_argument("--only", nargs="+", default=[*COMPARISONS, "memory"], help="groups of rows")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], help="of ours; the peers' is float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, help="images a step; default: 16 for ViT-B, 64 for ViT-T")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--loud", action="store_true", help="show what the code under test prints")
    options = parser.parse_args()
    given = checkouts(options)
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(row.line(), flush=True)
        if options.json:  # at once: a long measurement that is interrupted keeps what it has
            options.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1) + "\n", encoding="utf-8")

    with ExitStack() as stack:
        stack.enter_context(alone())
        data = stack.enter_context(small_copy(options.data, options.images)) if options.data else None
        print(f"{device(options)}, torch {torch.__version__}")
        for group in options.only:
            for row in COMPARISONS.get(group, []):
                if row.peer in given and row.dtype in options.dtypes and (row.stage != "epoch" or data is not None):
                    if options.batch:
                        cases = (dataclasses.replace(c, batch=options.batch) for c in (row.ours, row.theirs))
                        row = dataclasses.replace(row, **dict(zip(("ours", "theirs"), cases, strict=True)))
                    add(compare(row, options, data))
            if group == "memory" and "msmae" in given:
                for dtype in options.dtypes:
                    add(memory(options, dtype))


if __name__ == "__main__":
    main()
