"""One side of a comparison, in a process of its own: makes the work it is told to, and does it whenever it is asked.

Started by ``peers.py``: one line of JSON on standard input says what to make; every further line asks for one turn and
is answered with its seconds, or with its megabytes where ``peak`` is asked for.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from msmae.bench import work as bench_work
from msmae.bench.memory import most_resident
from msmae.bench.turns import clock
from msmae.bench.work import DTYPES, Case, Place, Work
from msmae.machine import keep_freed_memory


def make(asked: dict[str, Any]) -> Work:
    """The work of one side."""
    case = Case(**{k: tuple(v) if isinstance(v, list) else v for k, v in asked["case"].items()})
    if asked["side"] == "ours":
        keep_freed_memory()  # as every training does
        place = Place(torch.device("cpu"), DTYPES[asked["dtype"]])
        if asked["stage"] == "epoch":
            return our_epoch(case, asked)
        if asked["stage"] == "refresh":
            return bench_work.refresh(case, place)
        return bench_work.pretraining(case, place, augment=False)
    import peer_code

    peer_code.prepare_libraries(asked["side"])
    module = peer_code.load_peer(asked["side"], Path(asked["checkout"]))
    if asked["stage"] == "epoch":
        return peer_code.epoch(module, case, Path(asked["data"]))
    if asked["stage"] == "refresh":
        return peer_code.refresh(asked["side"], module, case)
    return peer_code.pretraining(asked["side"], module, case)


def our_epoch(case: Case, asked: dict[str, Any]) -> Work:
    """A guided epoch from image files, with nothing decoded before: reading, maps, training, saving the model."""
    from msmae.config import make_settings
    from msmae.data.manifest import read_manifest
    from msmae.training.prepare import prepare
    from msmae.training.pretrain import pretrain_model

    manifest = read_manifest(Path(asked["data"]).parent / "manifest.csv")
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[asked["dtype"]]
    settings = make_settings("cpu", None, {
        "model": {"image_size": case.side, "patch_size": case.patch, "channels": 3, **bench_work.SIZES[case.size]},
        "pretrain": {"epochs": 1, "uniform_epochs": 0, "refresh_every": 1, "batch_size": case.batch},
        "trainer": {"precision": precision, "threads": torch.get_num_threads()},
    })  # fmt: skip

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MSMAE_CACHE"] = folder
            prepared = prepare(manifest, settings=settings, method="msmae", seed=0, pretrain_only=True)
            pretrain_model(prepared, Path(folder) / "run")

    return Work(run, len(manifest), 0.0)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code under test prints does not get between the answers
    asked = json.loads(sys.stdin.readline())
    torch.set_num_threads(asked["threads"])
    before = most_resident()
    work = make(asked)
    print(work.images, file=answers, flush=True)
    for line in sys.stdin:
        seconds = clock(work.run, torch.device("cpu"))
        print(most_resident() - before if line.strip() == "peak" else seconds, file=answers, flush=True)


if __name__ == "__main__":
    main()
