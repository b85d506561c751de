"""How much faster looking at a quarter is, end to end: ViT-S/16 and ViT-B/16 at 224 px, random weights (speed does not
depend on them), everything but decoding included.

    python benchmarks/keep.py [--threads 2] [--onnx] [--sizes small base] [--batches 1 8 64] [--out FILE.json]

All ways are timed in turn, round after round, so that a machine that slows down slows all of them; the figure is the
median round. With one thread the processor's time is taken, in which what others compute meanwhile is not counted.
``given``: the patches are handed over, none is chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msmae.bench.turns import alone
from msmae.inference.packed import packed
from msmae.method.classifier import Classifier
from msmae.method.vit import SIZES, VisionTransformer
from msmae.selection.cost import selection_macs
from msmae.selection.locator import Glance
from msmae.selection.selectors import Selection
from msmae.training.selecting.adapt import glances, new_locator

KEPT = 49
WAYS = ("all", "locator", "given", "early", "merge", "self")


def selection_of(way: str, classifier: Classifier) -> Selection:
    """The way of choosing patches, as the predictor builds it."""
    if way == "locator":
        encoder = classifier.encoder
        glance = Glance(encoder, glances(encoder)[0])
        return Selection(classifier, selector="locator", locator=new_locator(encoder), glance=glance).eval()
    return Selection(classifier, selector="grid" if way == "given" else way).eval()


def time_in_turn(ways: dict[str, Callable[[], object]], *, seconds: float, least: int = 2) -> dict[str, float]:
    """Median seconds of each way; rounds go on until the time is over, at least two after a first to warm up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    began = time.perf_counter()
    while len(taken["all"]) < least or time.perf_counter() - began < seconds:
        for name, way in ways.items():
            start = clock()
            way()
            taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


@torch.no_grad()
def executed_gmacs(selection: Selection, kept: int) -> float:
    """GMACs of one image by PyTorch's own counter of executed products, attention unfused so that it is seen."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    images = torch.zeros(1, 3, 224, 224)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        selection(images, kept)
    return counter.get_total_flops() / 2e9


def measure(size: str, *, precisions: list[str], batches: list[int], seconds: float) -> list[dict[str, object]]:
    """Rows of one encoder in PyTorch."""
    classifier = Classifier(VisionTransformer(**SIZES[size]), classes=7).eval().requires_grad_(False)
    selections = {way: selection_of(way, classifier) for way in WAYS}
    kept = {way: 196 if way == "all" else KEPT for way in WAYS}
    macs = {way: executed_gmacs(selections[way], kept[way]) for way in WAYS}
    rows: list[dict[str, object]] = []
    for precision in precisions:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        quick = {way: packed(selection.to(kind)) for way, selection in selections.items()}  # as the predictor does
        for batch in batches:
            images = torch.randn(batch, 3, 224, 224).to(kind)
            found = time_in_turn({way: partial(quick[way], images, kept[way]) for way in WAYS}, seconds=seconds)
            for way in WAYS:
                rows.append(
                    {
                        "size": size, "engine": "pytorch", "precision": precision, "batch": batch, "way": way,
                        "gmacs_executed": macs[way],
                        "gmacs_counted": selection_macs(selections[way], kept[way]).total / 1e9,
                        "images_per_s": batch / found[way], "speedup": found["all"] / found[way],
                    }
                )  # fmt: skip
            report(rows[-len(WAYS) :])
    return rows


def measure_onnx(size: str, *, batches: list[int], seconds: float, threads: int) -> list[dict[str, object]]:
    """Rows of one encoder in onnxruntime, float32."""
    import onnxruntime

    from msmae.inference.exported import ExportedClassifier
    from msmae.inference.onnx_file import write_onnx
    from msmae.runs.checkpoint import ModelCard

    classifier = Classifier(VisionTransformer(**SIZES[size]), classes=7).eval()
    card = ModelCard(
        kind="classifier", method="msmae", classes=list("abcdefg"), multilabel=False, image_size=(224, 224),
        patch_size=16, channels=3, pool="cls", mean=[0.0] * 3, std=[1.0] * 3, **SIZES[size],
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ("all", "locator"):
            model: nn.Module = ExportedClassifier(
                selection_of(way, classifier), kept=196 if way == "all" else KEPT, card=card, calibration={}
            )
            path = Path(folder) / f"{way}.onnx"
            write_onnx(path, model, image_shape=(3, 224, 224), metadata={})
            sessions[way] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rows: list[dict[str, object]] = []
    for batch in batches:
        images = torch.randn(batch, 3, 224, 224).numpy()
        found = time_in_turn(
            {way: partial(session.run, None, {"images": images}) for way, session in sessions.items()},
            seconds=seconds,
        )
        for way in sessions:
            rows.append(
                {
                    "size": size, "engine": "onnxruntime", "precision": "fp32", "batch": batch, "way": way,
                    "images_per_s": batch / found[way], "speedup": found["all"] / found[way],
                }
            )  # fmt: skip
        report(rows[-2:])
    return rows


def report(rows: list[dict[str, object]]) -> None:
    first = rows[0]
    figures = "  ".join(f"{row['way']} {row['speedup']:.2f}x ({row['images_per_s']:.1f}/s)" for row in rows)
    print(f"{first['size']} {first['engine']} {first['precision']} batch {first['batch']}: {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--seconds", type=float, default=6.0, help="rounds of one setting go on for this long")
    parser.add_argument("--onnx", action="store_true", help="onnxruntime instead of PyTorch")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    rows: list[dict[str, object]] = []
    with alone(), torch.inference_mode(not asked.onnx):
        for size in asked.sizes:
            if asked.onnx:
                rows += measure_onnx(size, batches=asked.batches, seconds=asked.seconds, threads=asked.threads)
            else:
                rows += measure(size, precisions=asked.precisions, batches=asked.batches, seconds=asked.seconds)
            if asked.out:
                content = {"cores": os.cpu_count(), "threads": asked.threads, "torch": torch.__version__, "rows": rows}
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
