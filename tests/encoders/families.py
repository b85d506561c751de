"""State dicts with the exact names and shapes of other projects' encoders, random values, and what they compute.

``features`` is written from the papers, tensor by tensor by the file's own names, in plain functions: it shares no code
with the library. Values are float64 where features are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, DEPTH, HEADS, PATCH, SIDE, HIDDEN = 24, 3, 3, 4, 5, 40


@dataclass(frozen=True)
class Layout:
    """How one project names the parts of a block, and what its encoder is like."""

    block: str
    names: dict[str, str]
    """Our word for a part -> its name under the block; "q", "k", "v" where they are apart, else "qkv"."""
    top: dict[str, str]
    prefix: str = ""
    others: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Further tensors, whole names, that are no part of the encoder."""
    scale: bool = False
    registers: int = 0
    swiglu: bool = False
    class_token: bool = True
    class_position: bool = True
    eps: float = 1e-6
    reads: str = "class"
    resize: Callable[[Tensor, tuple[int, int]], Tensor] | None = None
    config: tuple[tuple[str, object], ...] = ()


def plain(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(grid, size=size, mode="bicubic", align_corners=False)


def smooth(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(grid, size=size, mode="bicubic", align_corners=False, antialias=True)


def offset(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """DINOv2's own: a tenth of a patch is added before the scale is computed."""
    scale = [(new + 0.1) / old for new, old in zip(size, grid.shape[2:], strict=True)]
    return F.interpolate(grid, scale_factor=scale, mode="bicubic")


TIMM = {
    "norm1": "norm1", "qkv": "attn.qkv", "proj": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2",
    "ls1": "ls1.gamma", "ls2": "ls2.gamma",
}  # fmt: skip
TIMM_TOP = {
    "cls": "cls_token", "registers": "reg_token", "positions": "pos_embed", "patches": "patch_embed.proj",
    "norm": "norm",
}  # fmt: skip
VIT = {
    "norm1": "layernorm_before", "q": "attention.attention.query", "k": "attention.attention.key",
    "v": "attention.attention.value", "proj": "attention.output.dense", "norm2": "layernorm_after",
    "fc1": "intermediate.dense", "fc2": "output.dense",
}  # fmt: skip
VIT_TOP = {
    "cls": "embeddings.cls_token", "registers": "embeddings.register_tokens", "norm": "layernorm",
    "positions": "embeddings.position_embeddings", "patches": "embeddings.patch_embeddings.projection",
}  # fmt: skip
DINO = VIT | {
    "norm1": "norm1", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2", "ls1": "layer_scale1.lambda1",
    "ls2": "layer_scale2.lambda1",
}  # fmt: skip
HEAD = (("head.weight", (7, WIDTH)), ("head.bias", (7,)))
DECODER = (
    ("mask_token", (1, 1, 8)), ("decoder_pos_embed", (1, SIDE * SIDE + 1, 8)), ("decoder_embed.weight", (8, WIDTH)),
    ("decoder_blocks.0.norm1.weight", (8,)), ("decoder_norm.bias", (8,)), ("decoder_pred.weight", (48, 8)),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {
    "facebookresearch/mae": Layout("blocks.{}.", TIMM, TIMM_TOP, others=DECODER, resize=plain),
    "fine-tuned MAE or RETFound": Layout(
        "blocks.{}.", TIMM, TIMM_TOP | {"norm": "fc_norm"}, others=HEAD, reads="norm-of-mean", resize=smooth
    ),
    "timm ViT": Layout("blocks.{}.", TIMM, TIMM_TOP, others=(*HEAD, ("fc_norm.weight", (WIDTH,))), resize=smooth),
    "timm DINOv2 with registers": Layout(
        "blocks.{}.", TIMM, TIMM_TOP, scale=True, registers=4, class_position=False, resize=smooth
    ),
    "timm without a class token": Layout(
        "blocks.{}.", TIMM, TIMM_TOP, class_token=False, class_position=False, registers=4, scale=True, reads="mean",
        resize=smooth,
    ),
    "DINOv2's repository": Layout(
        "blocks.{}.", TIMM, TIMM_TOP, others=(("mask_token", (1, WIDTH)),), scale=True, resize=offset
    ),
    "DINOv2's repository, registers": Layout(
        "blocks.{}.", TIMM, TIMM_TOP | {"registers": "register_tokens"}, others=(("mask_token", (1, WIDTH)),),
        scale=True, registers=4, resize=smooth,
    ),
    "DINOv2's repository, SwiGLU": Layout(
        "blocks.{}.", TIMM | {"fc1": "mlp.w12", "fc2": "mlp.w3"}, TIMM_TOP, others=(("mask_token", (1, WIDTH)),),
        scale=True, swiglu=True, resize=offset,
    ),
    "RETFound DINOv2's teacher": Layout(
        "blocks.0.{}.", TIMM, TIMM_TOP, prefix="backbone.", scale=True, resize=offset,
        others=(("backbone.mask_token", (1, WIDTH)), ("dino_head.mlp.0.weight", (8, WIDTH))),
    ),
    "BiomedCLIP": Layout(
        "blocks.{}.", TIMM, TIMM_TOP, prefix="visual.trunk.", resize=smooth,
        others=(
            ("visual.head.proj.weight", (8, WIDTH)), ("logit_scale", (1,)),
            ("text.transformer.embeddings.word_embeddings.weight", (9, 8)),
        ),
    ),
    "Hugging Face ViT": Layout(
        "encoder.layer.{}.", VIT, VIT_TOP, prefix="vit.", others=(("classifier.weight", (7, WIDTH)),), eps=1e-12,
        resize=plain,
    ),
    "Hugging Face ViT-MAE": Layout(
        "encoder.layer.{}.", VIT, VIT_TOP, prefix="vit.", others=(("decoder.mask_token", (1, 1, 8)),), eps=1e-12,
        resize=plain,
    ),
    "Hugging Face DINOv2": Layout(
        "encoder.layer.{}.", DINO, VIT_TOP, others=(("embeddings.mask_token", (1, WIDTH)),), scale=True, resize=plain
    ),
    "Hugging Face DINOv2 with registers": Layout(
        "encoder.layer.{}.", DINO, VIT_TOP, others=(("embeddings.mask_token", (1, WIDTH)),), scale=True, registers=4,
        resize=smooth,
    ),
    "Hugging Face DINOv2, SwiGLU": Layout(
        "encoder.layer.{}.", DINO | {"fc1": "mlp.weights_in", "fc2": "mlp.weights_out"}, VIT_TOP, prefix="dinov2.",
        scale=True, swiglu=True, resize=plain,
    ),
}  # fmt: skip


def state_of(layout: Layout, *, side: int = SIDE, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A state dict of this layout with random values."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (WIDTH,)

    top = {part: layout.prefix + name for part, name in layout.top.items()}
    if layout.class_token:
        shapes[top["cls"]] = (1, 1, WIDTH)
    if layout.registers:
        shapes[top["registers"]] = (1, layout.registers, WIDTH)
    shapes[top["positions"]] = (1, side * side + layout.class_position, WIDTH)
    shapes[f"{top['patches']}.weight"], shapes[f"{top['patches']}.bias"] = (WIDTH, 3, PATCH, PATCH), (WIDTH,)
    norm(top["norm"])
    for i in range(DEPTH):
        at = {part: layout.prefix + layout.block.format(i) + name for part, name in layout.names.items()}
        norm(at["norm1"])
        norm(at["norm2"])
        for part in ("q", "k", "v"):
            if part in at:
                linear(at[part], WIDTH, WIDTH)
        if "qkv" in at:
            linear(at["qkv"], 3 * WIDTH, WIDTH)
        linear(at["proj"], WIDTH, WIDTH)
        linear(at["fc1"], HIDDEN * (2 if layout.swiglu else 1), WIDTH)
        linear(at["fc2"], WIDTH, HIDDEN)
        if layout.scale:
            shapes[at["ls1"]] = shapes[at["ls2"]] = (WIDTH,)
    generator = torch.Generator().manual_seed(0)
    shapes |= dict(layout.others)
    return {name: 0.3 * torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def features(layout: Layout, state: dict[str, Tensor], images: Tensor) -> Tensor:
    """What stands for the image, then the normalised patches, [B, 1+N, D], of images [B, 3, H, W]."""
    top = {part: layout.prefix + name for part, name in layout.top.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], layout.eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = F.conv2d(images, state[f"{top['patches']}.weight"], state[f"{top['patches']}.bias"], stride=PATCH)
    size = (x.shape[2], x.shape[3])
    positions = state[top["positions"]]
    first = int(layout.class_position)
    side = math.isqrt(positions.shape[1] - first)
    grid = positions[:, first:].reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
    if size != (side, side):
        assert layout.resize is not None
        grid = layout.resize(grid, size)
    x = (x + grid).flatten(2).transpose(1, 2)  # [B, N, D]
    patches = x.shape[1]
    if layout.registers:
        x = torch.cat([state[top["registers"]].expand(len(x), -1, -1), x], dim=1)
    if layout.class_token:
        token = state[top["cls"]] + (positions[:, :1] if first else 0)
        x = torch.cat([token.expand(len(x), -1, -1), x], dim=1)
    for i in range(DEPTH):
        at = {part: layout.prefix + layout.block.format(i) + name for part, name in layout.names.items()}
        y = norm(x, at["norm1"])
        query, key, value = (
            linear(y, at["qkv"]).chunk(3, dim=-1) if "qkv" in at else [linear(y, at[part]) for part in ("q", "k", "v")]
        )
        heads = []
        for h in range(HEADS):
            part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / (WIDTH / HEADS) ** 0.5
            heads.append(scores.softmax(dim=-1) @ value[..., part])
        y = linear(torch.cat(heads, dim=-1), at["proj"])
        x = x + (y * state[at["ls1"]] if layout.scale else y)
        y = linear(norm(x, at["norm2"]), at["fc1"])
        if layout.swiglu:
            gate, up = y.chunk(2, dim=-1)
            y = gate * gate.sigmoid() * up
        else:
            y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        y = linear(y, at["fc2"])
        x = x + (y * state[at["ls2"]] if layout.scale else y)
    tokens = norm(x, top["norm"])
    seen = tokens[:, -patches:]
    if layout.reads == "class":
        first_token = tokens[:, :1]
    elif layout.reads == "mean":
        first_token = seen.mean(dim=1, keepdim=True)
    else:
        first_token = norm(x[:, -patches:].mean(dim=1, keepdim=True), top["norm"])
    return torch.cat([first_token, seen], dim=1)
