"""The architecture of an encoder, read from its tensors; what contradicts it is told in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from msmae.encoders.files import Files
from msmae.encoders.fitting import misfits
from msmae.encoders.names import Named, other_kind
from msmae.encoders.spec import CLIP, HALF, IMAGENET, EncoderSpec, build_encoder
from msmae.errors import UserError

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1536: 24}
"""Width of a published ViT (Ti, S, B, L, H, g) -> its heads."""


def refuse_other_kinds(names: Iterable[str], model_type: str, files: Files) -> None:
    """Raise ``UserError`` for whatever is no plain vision transformer, saying what it is."""
    if what := other_kind(names, model_type):
        raise UserError(
            f"the file holds {what}",
            where=str(files.path),
            mend="give a plain vision transformer (`msmae encoders` lists some)",
        )


def read_spec(
    found: Named, state: dict[str, Tensor], files: Files, heads: int | None
) -> tuple[EncoderSpec, dict[str, Tensor]]:
    """The architecture that tensors by our names say; and the tensors, positions and norm in our layout."""
    state = dict(state)
    embedding = state["patch_embed.proj.weight"]
    if embedding.ndim != 4 or embedding.shape[2] != embedding.shape[3]:
        raise bad(f"patch_embed.proj.weight is {tuple(embedding.shape)}: patches are no squares", files)
    width, channels, patch = embedding.shape[:3]
    depth = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    config = files.config
    family = "msmae" if {"format_version", "kind"} <= config.keys() else found.family
    reads, state = read_norm(state)
    class_token = "cls_token" in state
    if reads == "class" and not class_token:
        reads = "mean"
    said = config.get("encoder") or {}
    reads = said.get("reads", reads)
    state, grid = read_positions(state, patch, files)
    inner = state.get("blocks.0.mlp.fc2.weight", torch.empty(width, 4 * width)).shape[1]
    outer = state.get("blocks.0.mlp.fc1.weight", torch.empty(inner, width)).shape[0]
    mean, std, normalisation_from = read_normalisation(family, found, files, channels)
    count, heads_from = read_heads(family, found, files, width, heads)
    epsilon = 1e-12 if family in ("huggingface-vit", "huggingface-mae") else 1e-6
    spec = EncoderSpec(
        family=family,
        width=width,
        depth=depth,
        heads=count,
        patch_size=patch,
        channels=channels,
        grid=grid,
        mlp_ratio=inner / width,
        mlp="swiglu" if outer == 2 * inner else "gelu",
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        layer_scale="blocks.0.ls1.gamma" in state,
        registers=state["reg_token"].shape[1] if "reg_token" in state else 0,
        class_token=class_token,
        reads=reads,
        norm_eps=float(config.get("layer_norm_eps", said.get("norm_eps", epsilon))),
        antialias=family in ("timm", "huggingface-registers") or (family == "dinov2" and "reg_token" in state),
        offset=0.1 if family == "dinov2" and "reg_token" not in state else 0.0,
        mean=mean,
        std=std,
        heads_from=heads_from,
        normalisation_from=normalisation_from,
    )
    check_config(spec, files)
    return spec, state


def read_norm(state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """What is read, and the last norm under our name: fine-tuned MAE models have ``fc_norm`` alone, after the mean."""
    if "norm.weight" in state or "fc_norm.weight" not in state:
        return "class", state
    return "norm-of-mean", {name.replace("fc_norm.", "norm."): value for name, value in state.items()}


def read_positions(state: dict[str, Tensor], patch: int, files: Files) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """The tensors with positions [1, 1+N, D] as ours are (no first one without a class token), and the patch grid.

    timm's models with registers have none for the class token, or some for the registers as well, which are added.
    """
    positions = state.get("pos_embed")
    first = int("cls_token" in state)
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    if positions is None or positions.ndim != 3:
        raise bad("there are no positions of a patch grid (pos_embed)", files)
    count, known = positions.shape[1], known_grid(files.config, patch)
    for leading in dict.fromkeys((first, 0, first + registers)):
        side = math.isqrt(max(0, count - leading))
        square = (side, side) if side and side * side == count - leading else None
        grid = known if known and known[0] * known[1] == count - leading else square
        if grid is None:
            continue
        before, patches = positions[:, :leading], positions[:, leading:]
        if leading > first:
            state = {**state, "reg_token": state["reg_token"] + before[:, first:]}
        elif leading < first:
            before = torch.zeros_like(positions[:, :1])
        return {**state, "pos_embed": torch.cat([before[:, :first], patches], dim=1)}, grid
    raise bad(f"pos_embed {tuple(positions.shape)} is not a class token and a square grid", files)


def known_grid(config: dict[str, Any], patch: int) -> tuple[int, int] | None:
    """The patch grid by a config's image size, which need not be square."""
    size = config.get("image_size")
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        return None
    return pair[0] // patch, pair[1] // patch


def read_heads(family: str, found: Named, files: Files, width: int, given: int | None) -> tuple[int, str]:
    """The attention heads and where the number comes from: the file's config, else the family's rule, else as given."""
    config = files.config
    told = config.get("num_attention_heads", config.get("num_heads", config.get("heads")))
    if isinstance(told, int):
        count, source = told, "its config.json says so"
    elif given is not None:
        count, source = given, "as given"
    elif width in HEADS and not found.prefix.startswith("encoder."):  # this library's own may have any number
        count, source = HEADS[width], f"as every published ViT of width {width}"
    else:
        raise UserError(
            f"the file does not say how many attention heads its {width} channels are divided into",
            where=str(files.path),
            mend="put the model's config.json beside it, or give --model.heads",
        )
    if count < 1 or width % count:
        raise bad(f"{count} heads do not divide a width of {width}", files)
    return count, source


def read_normalisation(
    family: str, found: Named, files: Files, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, str]:
    """Mean and deviation of each channel on images in 0..1, and where they come from; None where nothing is known."""
    config = files.config
    if family == "msmae":
        if config.get("numbers") != "uint8":  # in units of its own
            return None, None, "the images' own"
        return tuple(m / 255 for m in config["mean"]), tuple(s / 255 for s in config["std"]), "its run's"
    says = files.preprocessing | config.get("pretrained_cfg", {}) | config.get("preprocess_cfg", {})
    mean, std = says.get("image_mean", says.get("mean")), says.get("image_std", says.get("std"))
    if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == channels:
        return tuple(map(float, mean)), tuple(map(float, std)), "the file beside the weights says so"
    if channels != 3:
        return None, None, "the images' own"
    if "trunk." in found.prefix:
        return *CLIP, "CLIP's, as BiomedCLIP's"
    if family == "huggingface-vit":
        return *HALF, "0.5, as of Google's ViT: the file does not say"
    return *IMAGENET, "ImageNet's" + (": the file does not say" if family == "timm" else "")


def check_config(spec: EncoderSpec, files: Files) -> None:
    """Raise ``UserError`` where the config beside the weights contradicts them."""
    says = {"hidden_size": spec.width, "num_hidden_layers": spec.depth, "patch_size": spec.patch_size}
    says |= {"width": spec.width, "depth": spec.depth, "num_channels": spec.channels}
    for name, value in says.items():
        told = files.config.get(name, value)
        if told != value and not isinstance(told, (list, dict)):
            raise bad(f"its config.json says {name} {told}, and the weights say {value}", files)
    activation = files.config.get("hidden_act", "gelu")
    if activation != "gelu":
        raise bad(f"its perceptrons use {activation}, not gelu", files)


def check_complete(spec: EncoderSpec, state: dict[str, Tensor], files: Files) -> None:
    """Raise ``UserError`` naming tensors that the architecture has and the file has not, or the other way round."""
    try:
        with torch.device("meta"):
            expected = build_encoder(spec).state_dict()
    except ValueError as error:
        raise bad(str(error), files) from error
    if problems := misfits(state, expected):
        raise bad(problems, files)


def check_finite(state: dict[str, Tensor], files: Files) -> None:
    """Raise ``UserError`` naming the first tensor that holds NaN or infinity."""
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise bad(f"{name} holds values that are not finite", files, mend="copy or convert the file again")


def bad(what: str, files: Files, *, mend: str = "give the file as its project published it") -> UserError:
    return UserError(f"the weights do not make an encoder: {what}", where=str(files.path), mend=mend)
