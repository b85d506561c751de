"""Ours beside Hugging Face's DINOv2 ViT-S/14 and onnxruntime, with the same weights: in turns, on this machine.

    python benchmarks/pretrained.py WEIGHTS [--size 112] [--batch 16] [--rounds 15] [--json FILE]

WEIGHTS is a folder or file that `--init` takes. A fine-tuning step is forward, cross-entropy, backward and AdamW, of a
linear head on the class token; in float32, and in bfloat16 autocast. Features are the class token and the mean of the
patches, in float32, with weights packed as `msmae embed` has them. A ratio is the median over the pairs, above 1 where
ours is faster. transformers is no dependency: install it beside msmae for this (`pip install transformers`). Without
it, or onnxruntime, its rows are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmae.bench.turns import processor_kind
from msmae.encoders.spec import build_encoder
from msmae.encoders.start import open_start
from msmae.encoders.weights import load_into
from msmae.inference.packed import packed
from msmae.machine import cpu_has_bfloat16
from msmae.method.classifier import Classifier

CLASSES = 4


class Theirs(nn.Module):
    """Hugging Face's encoder with a linear head on its class token."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        from transformers import Dinov2Config, Dinov2Model

        config = Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=518
        )
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            Path(folder, "model.safetensors").symlink_to(file.resolve())
            self.encoder = Dinov2Model.from_pretrained(folder, attn_implementation="sdpa").float()
        self.head = nn.Linear(384, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images).last_hidden_state[:, 0])

    def features(self, images: Tensor) -> Tensor:
        tokens = self.encoder(images).last_hidden_state
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


def step_of(model: nn.Module, images: Tensor, *, mixed: bool) -> Callable[[], None]:
    """One step of training."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    labels = torch.arange(len(images)) % CLASSES

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    return step


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Seconds of each, and the median ratio with the middle half of the ratios."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(rounds + 2):  # two to warm up
        for name, work in (("ours", ours), ("theirs", theirs)):
            began = time.perf_counter()
            work()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
    ratios = sorted(b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ours_s": statistics.median(seconds["ours"]), "theirs_s": statistics.median(seconds["theirs"]),
        "ratio": middle, "low": low, "high": high,
    }  # fmt: skip


def onnx_session(model: nn.Module, images: Tensor) -> Callable[[], Any]:
    """onnxruntime on the same encoder."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "encoder.onnx")
        torch.onnx.export(model, (images,), path, dynamo=True, external_data=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels = images.numpy()
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: pixels})


class Features(nn.Module):
    """What `msmae embed` computes: class token and mean of the patches, [B, 2D]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.encoder(images)
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


def main() -> None:
    """Measure what is installed here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    start = open_start(asked.weights)
    images = torch.randn(asked.batch, 3, asked.size, asked.size, generator=torch.Generator().manual_seed(0))
    encoder = build_encoder(start.spec, (asked.size, asked.size))
    load_into(encoder, start)
    ours = Classifier(encoder, classes=CLASSES)
    rows: dict[str, dict[str, float]] = {}
    try:
        theirs = Theirs(start.files.files[0])
    except ImportError:
        print("transformers is not installed: its rows are left out")
    else:
        with torch.inference_mode():
            apart = (Features(encoder)(images) - theirs.eval().features(images)).abs().max()
        print(f"features apart by at most {apart:.1e}")
        for name, mixed in (("step, float32", False), *((("step, bfloat16", True),) * cpu_has_bfloat16())):
            rows[name] = in_turns(
                step_of(ours.train(), images, mixed=mixed), step_of(theirs.train(), images, mixed=mixed), asked.rounds
            )
    try:
        with torch.inference_mode():
            features = Features(encoder.eval())
            session, quick = onnx_session(features, images), Features(packed(encoder))
            rows["features, onnxruntime"] = in_turns(lambda: quick(images), session, asked.rounds)
    except ImportError:
        print("onnxruntime is not installed: its row is left out")
    machine = processor_kind(torch.get_num_threads())
    about = {"machine": machine, "size": asked.size, "batch": asked.batch, "rows": rows}
    for name, row in rows.items():
        print(f"{name:24} {row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}) times as fast")
    if asked.json:
        asked.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
