"""Other projects' names for the parts of a vision transformer, brought to ours (timm's).

Read: facebookresearch/mae and RETFound, timm, DINOv2's own repository (its trainer's checkpoints too), Hugging Face's
``vit``, ``deit``, ``vit_mae``, ``dinov2`` and ``dinov2_with_registers``, BiomedCLIP, and what this library saves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ANCHORS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")
"""The one tensor that every vision transformer has: ours and timm's name, Hugging Face's."""

WRAPPERS = {
    "module", "model", "encoder", "backbone", "teacher", "student", "visual", "trunk", "image_encoder",
    "vision_encoder", "vit", "deit", "dinov2", "dinov2_with_registers", "_orig_mod", "_fsdp_wrapped_module", "ema",
}  # fmt: skip
"""What trainers and larger models put before an encoder's names."""

NOT_ENCODER = (
    "decoder_", "decoder.", "mask_token", "head.", "heads.", "head_dist.", "fc.", "pre_logits.", "pooler.",
    "classifier.", "embeddings.mask_token", "dino_head.", "ibot_head.", "projector.",
)  # fmt: skip
"""Parts of other models that an encoder has no place for: decoders, class heads, mask tokens."""

HUGGING_FACE = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"layernorm\.", "norm."),
)
HUGGING_FACE_BLOCK = (
    (r"attention\.(?:attention\.query|q_proj)\.(\w+)", r"attn.qkv.\1#0"),
    (r"attention\.(?:attention\.key|k_proj)\.(\w+)", r"attn.qkv.\1#1"),
    (r"attention\.(?:attention\.value|v_proj)\.(\w+)", r"attn.qkv.\1#2"),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"(?:intermediate\.dense|mlp\.weights_in)\.", "mlp.fc1."),
    (r"(?:output\.dense|mlp\.weights_out|mlp\.down_proj)\.", "mlp.fc2."),
    (r"mlp\.gate_proj\.(\w+)", r"mlp.fc1.\1#0"),
    (r"mlp\.up_proj\.(\w+)", r"mlp.fc1.\1#1"),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
)
REPOSITORIES = (
    (r"blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # DINOv2's trainer keeps its blocks in chunks
    (r"register_tokens", "reg_token"),
)
REPOSITORIES_BLOCK = (
    (r"mlp\.w12\.", "mlp.fc1."),
    (r"mlp\.w3\.", "mlp.fc2."),
    (r"mlp\.fc1_g\.(\w+)", r"mlp.fc1.\1#0"),
    (r"mlp\.fc1_x\.(\w+)", r"mlp.fc1.\1#1"),
)


@dataclass(frozen=True)
class Named:
    """An encoder's tensors under our names, and the file's names of what is no part of it."""

    family: str
    """huggingface-vit, huggingface-mae, huggingface-dinov2, huggingface-registers, dinov2, mae or timm."""
    prefix: str
    tensors: dict[str, Tensor]
    left_out: list[str]


def named(tensors: dict[str, Tensor]) -> Named:
    """An encoder's tensors under our names. ``ValueError`` where there is no vision transformer among them."""
    prefix, anchor = find_prefix(tensors)
    outside = [name for name in tensors if not name.startswith(prefix)]
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    other = {name for name in inside if name.startswith(NOT_ENCODER)}
    if "norm.weight" in inside:  # else it is the norm that the features pass
        other |= {name for name in inside if name.startswith("fc_norm.")}
    kept = {name: value for name, value in inside.items() if name not in other}
    family = family_of(set(inside), outside, hugging_face=anchor == ANCHORS[1])
    whole, block = (HUGGING_FACE, HUGGING_FACE_BLOCK) if anchor == ANCHORS[1] else (REPOSITORIES, REPOSITORIES_BLOCK)
    ours = joined({renamed(name, whole, block): value for name, value in kept.items()})
    return Named(family, prefix, ours, sorted([*outside, *(prefix + name for name in other)]))


def find_prefix(names: Any) -> tuple[str, str]:
    """What stands before an encoder's names, and the anchor it was found by; a teacher is taken before a student."""
    found = []
    for name in names:
        for anchor in ANCHORS:
            prefix = name.removesuffix(anchor)
            if name.endswith(anchor) and set(prefix.split(".")) - {""} <= WRAPPERS:
                found.append(("student" in prefix, len(prefix), prefix, anchor))
    if not found:
        raise ValueError("no patch embedding of a vision transformer")
    return min(found)[2:]


def family_of(inside: set[str], outside: list[str], *, hugging_face: bool) -> str:
    """Whose names these are, of those that are told apart."""
    if hugging_face:
        if "embeddings.register_tokens" in inside:
            return "huggingface-registers"
        if any(".norm1." in name for name in inside):
            return "huggingface-dinov2"
        return "huggingface-mae" if any(name.startswith("decoder.") for name in outside) else "huggingface-vit"
    if {"register_tokens", "mask_token"} & inside and any(name.endswith("ls1.gamma") for name in inside):
        return "dinov2"
    if any(name.startswith("decoder_") for name in (*inside, *outside)):
        return "mae"
    return "timm"


def renamed(name: str, whole: tuple[tuple[str, str], ...], block: tuple[tuple[str, str], ...]) -> str:
    """Our name for one of another project's."""
    for pattern, ours in whole:
        if re.match(pattern, name):
            name = re.sub(f"^{pattern}", ours, name)
            break
    start = re.match(r"blocks\.\d+\.", name)
    if start is None:
        return name
    rest = name[start.end() :]
    for pattern, ours in block:
        if re.match(pattern, rest):
            rest = re.sub(f"^{pattern}", ours, rest)
            break
    return start.group() + rest


def joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the pieces ``name#0``, ``name#1``, ... put one above the other under ``name``; pieces of which one
    is missing keep their names, so that they are reported.
    """
    pieces: dict[str, list[str]] = {}
    for name in sorted(tensors):
        if "#" in name:
            pieces.setdefault(name.split("#")[0], []).append(name)
    whole = {name: value for name, value in tensors.items() if "#" not in name}
    for name, parts in pieces.items():
        if len(parts) == (3 if ".qkv." in name else 2):
            whole[name] = torch.cat([tensors[part] for part in parts])
        else:
            whole |= {part: tensors[part] for part in parts}
    return whole


KINDS: tuple[tuple[str, str], ...] = (
    (r"storage_tokens|rope_embed|\brope\.periods", "a DINOv3 encoder, which has rotary positions"),
    (r"(^|\.)rope\b|inner_attn_ln|attn\.q_proj\.|mlp\.w1\.", "an EVA encoder, which has rotary positions"),
    (r"(^|\.)layers\.\d+\.(blocks|downsample)\.|(^|\.)swin(v2)?\.", "a Swin transformer, which has windows"),
    (r"relative_position_bias_table|rel_pos_bias|attn\.q_bias", "a BEiT or another encoder with relative positions"),
    (r"downsample_layers|convnext|(^|\.)stages\.\d+\.|dwconv", "a ConvNeXt or another convolutional network"),
    (r"vision_model\.embeddings|visual\.transformer\.resblocks|visual\.conv1|norm_pre\.", "a CLIP image encoder"),
    (r"wte\.weight|embed_tokens\.|word_embeddings\.|lm_head\.|(^|\.)shared\.weight", "a language model"),
    (r"(^|\.)layer1\.0\.|conv_stem\.|(^|\.)features\.0\.|(^|\.)conv1\.weight", "a convolutional network"),
)
"""Signs in the names of what is read nowhere here -> what that is."""

MODEL_TYPES = (
    ("dinov3", KINDS[0][1]), ("swin", KINDS[2][1]), ("beit", KINDS[3][1]), ("convnext", KINDS[4][1]),
    ("clip", KINDS[5][1]), ("siglip", "a SigLIP image encoder"),
)  # fmt: skip


def other_kind(names: Any, model_type: str = "") -> str | None:
    """What a file holds that no encoder of ours fits, in words; None where its names are a plain vision transformer's.

    Only names are needed, not a tensor.
    """
    for start, what in MODEL_TYPES:
        if model_type.startswith(start):
            return what
    names = list(names)
    try:
        prefix, anchor = find_prefix(names)
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        hugging_face = anchor == ANCHORS[1]
    except ValueError:
        inside, hugging_face = names, False
        anchor = ""
    kinds = KINDS if not anchor else [k for k in KINDS if not (hugging_face and k is KINDS[1])]
    for pattern, what in kinds[:6] if anchor else kinds:
        if any(re.search(pattern, name) for name in inside):
            return what
    if not anchor:
        return "no vision transformer that is known here"
    if not {"pos_embed", "embeddings.position_embeddings"} & set(inside):
        registers = any(name.endswith(("register_tokens", "reg_token")) for name in inside)
        return KINDS[0][1] if registers else "a vision transformer without learned positions"
    if any("dist_token" in name or "distillation_token" in name for name in inside):
        return "a distilled DeiT, which has a second class token"
    return None
