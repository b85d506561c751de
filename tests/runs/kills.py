"""Runs that are killed (kill -9) and begun again by the same command, compared with one that was not: ``python kills.py
FOLDER KILLS SEED`` prints a line of JSON a run. One process imports the library; each run is a fork of it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import msmae
from msmae.data.phantom import make_phantom

PHASES = {
    "cache write": ("msmae.data.store", "_write_arrays"),
    "step": ("msmae.training.trainer", "StageModule.guard"),
    "epoch": ("msmae.runs.last", "LastCheckpoint.on_train_epoch_end"),
    "checkpoint write": ("msmae.runs.resume", "WholeCheckpoints.save_checkpoint"),
    "rename": ("msmae.files", "to_disk"),
    "refresh": ("msmae.training.maps", "gather"),
    "model write": ("msmae.runs.checkpoint", "save_weights"),
    "evaluation": ("msmae.evaluation.evaluate", "predict_rows"),
    "evidence": ("msmae.evaluation.evaluate", "write_evidence"),
    "report": ("msmae.reporting.render", "make_page"),
}
"""What a run is doing -> the function that does it."""
SELDOM = {"cache write", "model write", "evaluation", "evidence", "report"}
"""Phases that a run enters once or twice."""
MOMENT = "any moment"
SETTINGS: dict[str, Any] = {
    "preset": "tiny", "pretrain": {"epochs": 3, "batch_size": 8}, "finetune": {"epochs": 2, "batch_size": 8},
    "evaluate": {"resamples": 100}, "trainer": {"checkpoint_minutes": 1e-6, "accelerator": "cpu"},
}  # fmt: skip


def kill_in(phase: str, call: int, wait: float) -> None:
    """Let this process kill itself so many seconds after the ``call``-th entry of a phase; 0: at once."""
    place, name = PHASES[phase]
    owner: Any = importlib.import_module(place)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    plain: Callable[..., Any] = getattr(owner, name)
    entered = 0

    def mortal(*arguments: Any, **named: Any) -> Any:
        nonlocal entered
        entered += 1
        if entered == call:
            threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()
            if not wait:
                time.sleep(9)
        return plain(*arguments, **named)

    for module in list(sys.modules.values()):  # also where it was imported by name
        if getattr(module, name, None) is plain:
            setattr(module, name, mortal)
    setattr(owner, name, mortal)


def run_once(data: Path, out: Path, *, phase: str = "", call: int = 1, wait: float = 0.0) -> int:
    """Run the command in a fork. Returns how it ended: 0, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ["MSMAE_CACHE"] = str(out.with_suffix(".cache"))
            with out.with_suffix(".log").open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if phase in PHASES:
                kill_in(phase, call, wait)
            msmae.run(str(data), out=str(out), **SETTINGS)
            out.with_suffix(".modules").write_text(" ".join(sys.modules))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if phase == MOMENT:
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(run: Path) -> dict[str, Any]:
    """All that a run came to: weights, maps, predictions and figures; not how long it took."""
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["cost"]
    bank = torch.load(run / "checkpoints" / "pretrain.ckpt", weights_only=True)["map_bank"]
    files = ("pretrained/model.safetensors", "model/model.safetensors", "predictions.csv", "manifest.csv")
    return {
        "metrics": metrics,
        "maps": hashlib.sha256(bank["maps"].numpy().tobytes()).hexdigest(),
        **{name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files},
        "page": (run / "report.html").is_file(),
    }


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill so many runs once each, phase after phase and at any moment; begin them again and print how they compare."""
    chance = random.Random(seed)
    make_phantom(folder / "data", images=60, size=32)
    data = folder / "data" / "manifest.csv"
    whole = folder / "whole"
    began = time.monotonic()
    assert run_once(data, whole) == 0, whole.with_suffix(".log").read_text()
    took, expected = 0.6 * (time.monotonic() - began), state(whole)  # later forks need not import
    for name in whole.with_suffix(".modules").read_text().split():  # once here instead of in every fork
        with suppress(Exception):
            importlib.import_module(name)
    phases = [MOMENT, *PHASES]
    chance.shuffle(phases)
    for number in range(kills):
        phase = phases[number % len(phases)]
        out = folder / f"killed-{number}"
        call = 1 if phase in SELDOM else chance.randint(1, 12 if phase in ("step", "rename") else 3)
        wait = chance.uniform(0, took) if phase == MOMENT else chance.choice([0.0, 0.001, chance.uniform(0, 0.1)])
        ended = [run_once(data, out, phase=phase, call=call, wait=wait)]
        if ended[0] == -signal.SIGKILL:
            ended.append(run_once(data, out))
        found = state(out) if ended[-1] == 0 else {}
        other = [name for name, value in expected.items() if found.get(name) != value]
        print(json.dumps({"phase": phase, "call": call, "wait": wait, "ended": ended, "other": other}), flush=True)
        if other:
            print(out.with_suffix(".log").read_text()[-3000:], file=sys.stderr)
            continue
        shutil.rmtree(out)
        shutil.rmtree(out.with_suffix(".cache"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
