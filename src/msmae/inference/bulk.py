"""Answers for any number of images: in parts that are written whole, so that a killed command goes on where it stopped,
memory stays flat, and several processes share the work.

OUT/parts holds what is done, and ``plan.json``: which model, which images, which options. From the same plan come the
same parts, byte for byte, whoever computes them. The first process joins them to OUT/predictions.csv; then they go.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from msmae.errors import UserError
from msmae.files import fill_csv, own_folder, whole, write_whole
from msmae.inference.items import Item
from msmae.inference.unreadable import FILE, Unreadable
from msmae.runs.lock import LOCK, take

PART = 1024
"""Images of a part, about; a whole number of batches."""
ASIDE = "\x1f"
"""Columns whose names begin so are numbers kept for the end, beside a part, and not in predictions.csv."""
AHEAD = 2
"""Batches that are read while another is computed."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is; 0 of 1 where it is alone."""

    rank: int = 0
    world: int = 1
    local: int = 0
    torchrun: bool = False

    @classmethod
    def here(cls) -> Ranks:
        """As torchrun, or srun of SLURM, started this process."""
        known = os.environ
        if "RANK" in known and "WORLD_SIZE" in known:
            return cls(int(known["RANK"]), int(known["WORLD_SIZE"]), int(known.get("LOCAL_RANK", 0)), torchrun=True)
        if "SLURM_PROCID" in known and "SLURM_STEP_NUM_TASKS" in known:  # of a step, not of the script around it
            local = int(known.get("SLURM_LOCALID", 0))
            return cls(int(known["SLURM_PROCID"]), int(known["SLURM_STEP_NUM_TASKS"]), local)
        return cls()

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def waits(self) -> bool:
        """Whether ``together`` makes them wait for each other."""
        return self.world == 1 or self.torchrun

    @contextmanager
    def together(self) -> Iterator[Callable[[], None]]:
        """What waits until all processes came so far. Under torchrun that is PyTorch's own barrier."""
        if self.world == 1 or not self.waits:
            yield lambda: None
            return
        import torch.distributed as dist

        dist.init_process_group("gloo", rank=self.rank, world_size=self.world)
        try:
            yield dist.barrier
        finally:
            dist.destroy_process_group()


def choose_device(asked: str, ranks: Ranks) -> str:
    """``auto``: CUDA (each process of a node its own), else Apple's GPU, else the CPU; any other name as it is."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return f"cuda:{ranks.local % torch.cuda.device_count()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True)
class Plan:
    """What is to be predicted, in which parts."""

    items: Sequence[Item]
    batch_size: int
    options: dict[str, Any]
    """All that the answers depend on beside the images: model, token share, columns, ..."""
    most: int | None = None
    """Images of a part, about; None: ``PART``."""

    @property
    def per_part(self) -> int:
        return self.batch_size * max(1, (self.most or PART) // self.batch_size)

    @property
    def parts(self) -> int:
        return -(-len(self.items) // self.per_part)

    def part(self, number: int) -> Sequence[Item]:
        return self.items[number * self.per_part : (number + 1) * self.per_part]

    def described(self) -> str:
        """The plan as plan.json holds it."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(repr(item).encode("utf-8", "surrogateescape") + b"\0")
        content = {"images": len(self.items), "images_sha256": digest.hexdigest(), "batch_size": self.batch_size}
        return json.dumps({**content, **self.options}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def check_plan(plan: Plan, out: Path) -> int:
    """How many parts OUT holds already.

    Raises:
        UserError: they are of another model, other images or other options.
    """
    path = out / "parts" / "plan.json"
    if not path.is_file():
        return 0
    before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(plan.described())
    other = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if other:
        raise UserError(
            f"the folder holds an unfinished prediction with another {', '.join(other)}",
            where=str(path),
            mend=f"repeat the command that began it, choose another --out, or delete {path.parent}",
        )
    return sum(part_of(out, number).is_file() for number in range(plan.parts))


@contextmanager
def alone_in(out: Path, ranks: Ranks) -> Iterator[None]:
    """Hold OUT while a lone process predicts: a second one would wait for ever for the parts that the first has joined
    and removed. The processes of one command share them.

    Raises:
        InUse: another process holds it.
    """
    if ranks.world > 1:
        yield
        return
    handle = take(own_folder(out) / LOCK)
    try:
        yield
    finally:
        if handle is not None:
            (out / LOCK).unlink(missing_ok=True)
            os.close(handle)
        with suppress(OSError):  # it holds something
            out.rmdir()


def part_of(out: Path, number: int) -> Path:
    return out / "parts" / f"{number:06d}.csv"


def predict_parts(
    plan: Plan,
    out: Path,
    *,
    read: Callable[[list[Item]], Any],
    answer: Callable[[list[Item], Any], pd.DataFrame],
    skip: bool,
    ranks: Ranks,
    progress: Callable[[int, int], None],
) -> None:
    """Compute the parts of this process that OUT does not hold yet; reading goes on beside computing.

    Args:
        read: items -> their images; ``UserError`` where one cannot be read.
        answer: items and their images -> the rows of predictions.csv.
        skip: leave out what cannot be read.

    Raises:
        UserError: an image cannot be read and may not be left out. The parts that are done stay.
    """
    mine = [number for number in range(plan.parts) if number % ranks.world == ranks.rank]
    done = sum(len(plan.part(number)) for number in mine if part_of(out, number).is_file())
    total = sum(len(plan.part(number)) for number in mine)
    for number in mine:
        if part_of(out, number).is_file():
            continue
        unreadable: Unreadable[Item] = Unreadable(skip=skip)
        frames = []
        for items, pieces in read_ahead(plan, number, read, unreadable):
            if items:
                frames.append(answer(items, torch.cat(pieces)))
            done += plan.batch_size
            if total > plan.batch_size:
                progress(min(done, total), total)
        write_part(plan, out, number, frames, unreadable)


def read_ahead(
    plan: Plan, number: int, read: Callable[[list[Item]], Any], unreadable: Unreadable[Item]
) -> Iterator[tuple[list[Any], list[Any]]]:
    """The batches of a part, in order: readable items, and their images in pieces."""
    items = plan.part(number)
    batches = [list(items[start : start + plan.batch_size]) for start in range(0, len(items), plan.batch_size)]
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(unreadable.read, batch, read) for batch in batches[:AHEAD]]
        try:
            for place in range(len(batches)):
                found = waiting.pop(0).result()
                if place + AHEAD < len(batches):
                    waiting.append(pool.submit(unreadable.read, batches[place + AHEAD], read))
                yield found
        finally:
            for future in waiting:
                future.cancel()


def write_part(plan: Plan, out: Path, number: int, frames: list[pd.DataFrame], unreadable: Unreadable[Item]) -> None:
    """Write what was left out of a part, then the part: it is done when its file is there."""
    own_folder(out)
    own_folder(out / "parts")
    if not (out / "parts" / "plan.json").is_file():
        write_whole(out / "parts" / "plan.json", plan.described())
    path = part_of(out, number)
    if unreadable.reasons:
        with whole(path.with_suffix(".left_out")) as unfinished:
            rows = [(str(item), reason) for item, reason in unreadable.reasons.items()]
            unfinished.write_bytes(text_of(rows).encode("utf-8", "surrogateescape"))
    with whole(path) as unfinished:  # without an image that can be read it stays empty
        if frames:
            table = pd.concat(frames, ignore_index=True)
            aside = [name for name in table if str(name).startswith(ASIDE)]
            if aside:
                with whole(path.with_suffix(".npy")) as beside, beside.open("wb") as stream:
                    np.save(stream, table[aside].to_numpy(dtype=np.float32))
            fill_csv(unfinished, table.drop(columns=aside))


def text_of(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def wait_for(files: Sequence[Path], *, pause: float = 2.0) -> None:
    """Until every file is there: those of other processes come through the shared folder."""
    while not all(file.is_file() for file in files):
        time.sleep(pause)


def join_parts(plan: Plan, out: Path) -> int:
    """Write OUT/predictions.csv and, where an image was left out, OUT/left_out.csv. How many images were predicted.

    Raises:
        UserError: no image could be used; OUT is then as it was before. Or parts have other columns than the first.
    """
    parts = [part_of(out, number) for number in range(plan.parts)]
    left = [path.with_suffix(".left_out") for path in parts if path.with_suffix(".left_out").is_file()]
    reasons = [row for path in left for row in csv.reader(io.StringIO(_text(path)))]
    if all(path.stat().st_size == 0 for path in parts):
        shutil.rmtree(out / "parts")
        if not any(out.iterdir()):
            out.rmdir()
        nothing: Unreadable[str] = Unreadable(skip=True)
        nothing.reasons = dict(reasons)
        nothing.check_any(0)
    if reasons:
        with whole(out / FILE) as unfinished:
            fill_csv(unfinished, pd.DataFrame(reasons, columns=["image_path", "reason"]))
    parts = [path for path in parts if path.stat().st_size]
    check_columns(parts)
    rows = 0
    with whole(out / "predictions.csv") as unfinished, unfinished.open("wb") as target:
        for path in parts:
            with path.open("rb") as stream:
                header = stream.readline()
                if not rows:
                    target.write(header)
                shutil.copyfileobj(stream, target)
            rows += len(pd.read_csv(path, usecols=["image_path"], encoding_errors="surrogateescape"))
    return rows


def check_columns(parts: Sequence[Path]) -> None:
    """Raise ``UserError`` where a part has other columns than the first: rows would not be under their names."""
    headers = {}
    for path in parts:
        with path.open("rb") as stream:
            headers[path] = stream.readline()
    if other := [path for path, header in headers.items() if header != headers[parts[0]]]:
        what = f"its columns are not those of {parts[0].name}: another version of msmae began this prediction"
        raise UserError(what, where=str(other[0]), mend=f"delete {other[0].parent} and repeat the command")


def clear_parts(out: Path) -> None:
    """Remove the parts, once all that is made of them is there."""
    shutil.rmtree(out / "parts")


def kept_aside(plan: Plan, out: Path) -> np.ndarray | None:
    """What the columns ``ASIDE`` of all parts hold, float32 [n, ...]; None where there are none."""
    files = [part_of(out, number).with_suffix(".npy") for number in range(plan.parts)]
    found = [np.load(path, allow_pickle=False) for path in files if path.is_file()]
    return np.concatenate(found) if found else None


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")
