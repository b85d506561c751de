"""Question b: what is pre-training worth for outlining lesions?  python experiments/segmentation_ham10000.py

HAM10000, four beginnings of the encoder (msmae, supmae, mae, none), three seeds, one budget. The split and the encoders
are those of a comparison (``--encoders``, made by ``experiments/arms.py ham10000``), each taken as soon as its
pre-training is finished; what is missing there is pre-trained here, with the same budget. Work goes to
runs/experiments/ham10000-segmentation, results to results/ham10000+segmentation.npz; killed, the same command goes on.
The same command may be started several times: the processes share the runs.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from arms import PUBLIC, REPOSITORY
from collect import collect, restore
from study_tables import segmentation

import msmae
from msmae.comparison.runner import Part, claimed, finished
from msmae.config import make_settings
from msmae.data.opening import divide
from msmae.errors import UserError
from msmae.runs.folder import differences, write_json
from msmae.runs.lock import InUse

ARMS = ["msmae", "supmae", "mae", "none"]
PAIRS = [["msmae", "none"], ["msmae", "mae"], ["msmae", "supmae"], ["supmae", "none"], ["mae", "none"]]
EXPERIMENTS = REPOSITORY / "runs" / "experiments"
NAME = "ham10000+segmentation"
PRETRAIN = 80_000
"""Images shown in pre-training."""


def main() -> None:
    """Segment with every encoder and seed, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=PUBLIC / "ham10000", type=Path)
    parser.add_argument("--encoders", default=EXPERIMENTS / "ham10000", type=Path)
    parser.add_argument("--work", default=EXPERIMENTS / "ham10000-segmentation", type=Path)
    parser.add_argument("--results", default=REPOSITORY / "results", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--presentations", type=int, default=12_000, help="images shown in each segmentation")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    work, results = asked.work.resolve(), asked.results.resolve()
    restore(results, NAME, work, roots=[PUBLIC, REPOSITORY])
    write_plan(work, asked)
    bench = Bench(asked, manifest=split_of(asked), work=work)
    try:
        for part in [Part(arm, seed, 0) for seed in asked.seeds for arm in asked.arms]:
            print(f"{part.name}: {'done before' if finished(work, part) else 'starts'}", flush=True)
            if finished(work, part):
                continue
            try:
                bench.make(part)
            except InUse as other:
                print(f"{part.name}: {other.what}", flush=True)
    finally:
        roots = [PUBLIC, asked.data.resolve().parent, REPOSITORY, asked.encoders.resolve().parent, work.parent]
        print(f"{collect(work, results, NAME, roots=roots)} runs in {results / NAME}.npz")
    numbers = segmentation.numbers(work)
    print(segmentation.text(work, pd.read_csv(io.StringIO(numbers))))


def write_plan(work: Path, asked: argparse.Namespace) -> None:
    """WORK/comparison.json. Raises ``UserError`` where the runs there were asked for with another budget."""
    path = work / "comparison.json"
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    plan = {
        "task": "segmentation",
        "data": asked.data.name,
        "unit": "lesions",
        "budget": f"Every segmentation is shown {asked.presentations:,} images, with a pre-trained encoder or from "
        "random weights (none).",
        "pairs": PAIRS,
    }
    other = differences({name: before[name] for name in plan}, plan) if before else set()
    if other:
        raise UserError(
            f"these runs were asked for differently ({', '.join(sorted(other))})", where=str(work), mend="ask the same"
        )
    seeds = sorted({*before.get("seeds", []), *asked.seeds})
    work.mkdir(parents=True, exist_ok=True)
    write_json(path, {**plan, "arms": ARMS, "seeds": seeds})


def split_of(asked: argparse.Namespace) -> Path:
    """The comparison's manifest; where that has none yet, the same split, cut here."""
    shared, own = asked.encoders / "manifest.csv", asked.work / "manifest.csv"
    if shared.is_file():
        return Path(shared)
    if not own.is_file():
        divide(asked.data, settings=make_settings(asked.preset), seed=0).write(own)
    return Path(own)


class Bench:
    """Where the segmentations are made: one split, and an encoder for each."""

    def __init__(self, asked: argparse.Namespace, *, manifest: Path, work: Path) -> None:
        self.asked, self.manifest, self.work = asked, str(manifest), work
        self.common: dict[str, Any] = {"preset": asked.preset}
        if asked.threads:
            self.common["trainer"] = {"threads": asked.threads}

    def make(self, part: Part) -> None:
        """Make one run, unless another process is still pre-training its encoder."""
        encoder = "none" if part.arm == "none" else self.encoder(part)
        if encoder is None:
            print(f"{part.name}: another process pre-trains its encoder", flush=True)
            return
        msmae.segment(
            self.manifest, from_=str(encoder), out=str(self.work / part.name), seed=part.seed,
            segment={"presentations": self.asked.presentations}, **self.common,
        )  # fmt: skip

    def encoder(self, part: Part) -> Path | None:
        """The run with this pre-trained encoder: the comparison's, else one made here; None while another makes it."""
        there, here = self.asked.encoders / part.name, self.work / "pretrained" / part.name
        if (there / "pretrained").is_dir():
            return Path(there)
        if not (here / "pretrained").is_dir():
            self.asked.encoders.mkdir(parents=True, exist_ok=True)
            with claimed(self.asked.encoders, part) as free:
                if not free:
                    return None
                msmae.pretrain(
                    self.manifest, out=str(here), method=part.arm, seed=part.seed,
                    pretrain={"presentations": PRETRAIN}, **self.common,
                )  # fmt: skip
        return here


if __name__ == "__main__":
    main()
