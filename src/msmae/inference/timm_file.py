"""A classifier's weights by timm's names, with the arguments of ``timm.create_model`` that they fit."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from msmae.encoders.spec import build_encoder
from msmae.encoders.weights import load_into, open_weights
from msmae.errors import UserError
from msmae.method.classifier import Classifier
from msmae.method.msmae import MSMAE
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import load_model, write_tensors

BASES = {(384, 14): "vit_small_patch14_dinov2", (768, 14): "vit_base_patch14_dinov2"}
"""(width, patch size) -> the model whose other settings fit, where it is not the plain one."""


def timm_state(network: Classifier) -> dict[str, Tensor]:
    """The weights of a classifier, float32, by timm's names.

    Ours are timm's but for two: an encoder with registers has no position for its class token there (it is added to
    the token), and a norm that the mean of the patches passes is called ``fc_norm``.
    """
    state = {name: tensor.detach().float() for name, tensor in network.encoder.state_dict().items()}
    if "reg_token" in state and "cls_token" in state:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    if network.encoder.reads == "norm-of-mean":
        state = {f"fc_{name}" if name.startswith("norm.") else name: tensor for name, tensor in state.items()}
    head = {f"head.{name}": tensor.detach().float() for name, tensor in network.head.state_dict().items()}
    return {name: tensor.cpu().contiguous().clone() for name, tensor in (state | head).items()}


def timm_arguments(network: Classifier, card: ModelCard) -> tuple[str, dict[str, Any]]:
    """The model of timm that the weights fit, and what of it is other than usual, for ``timm.create_model``.

    Raises:
        UserError: the head reads what timm's cannot.
    """
    encoder = network.encoder
    if network.pool not in ("cls", "mean") or not isinstance(network.head, (nn.Linear, nn.Identity)):
        head = f"that reads '{network.pool}'" if isinstance(network.head, nn.Linear) else "of nearest neighbours"
        raise UserError(f"timm has no head {head}", where="--format timm", mend="export as onnx, torch or hub")
    extra: dict[str, Any] = {
        "mlp_ratio": 4.0,
        "mlp": "gelu",
        "qkv_bias": True,
        "layer_scale": False,
        "registers": 0,
    } | card.encoder
    averaged = network.pool == "mean" or encoder.reads != "class"
    arguments: dict[str, Any] = {
        "img_size": list(card.image_size),
        "patch_size": card.patch_size,
        "in_chans": card.channels,
        "num_classes": len(card.classes) if isinstance(network.head, nn.Linear) else 0,
        "embed_dim": card.width,
        "depth": card.depth,
        "num_heads": card.heads,
        "mlp_ratio": extra["mlp_ratio"],
        "qkv_bias": extra["qkv_bias"],
        "init_values": 1.0 if extra["layer_scale"] else None,
        "class_token": encoder.cls_token is not None,
        "reg_tokens": extra["registers"],
        "no_embed_class": encoder.cls_token is None or encoder.reg_token is not None,
        "global_pool": "avg" if averaged else "token",
        "fc_norm": encoder.reads == "norm-of-mean",
    }
    if extra["mlp"] == "swiglu":
        arguments["mlp_ratio"] = 2 * extra["mlp_ratio"]  # timm counts both halves
    base = "vit_giant_patch14_dinov2" if extra["mlp"] == "swiglu" else BASES.get((card.width, card.patch_size))
    return base or {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224"}.get(
        card.width, "vit_base_patch16_224"
    ), arguments


def write_timm(path: Path, network: Classifier, card: ModelCard, *, metadata: dict[str, Any]) -> None:
    """Write the weights as safetensors; the architecture, its arguments, mean and standard deviation (in the files' own
    units) and ``metadata`` are in the file's header, as JSON.

    Raises:
        UserError: timm has no such head.
    """
    architecture, arguments = timm_arguments(network, card)
    header = {"architecture": architecture, "model_args": arguments, "mean": card.mean, "std": card.std, **metadata}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in header.items()}
    write_tensors(path, timm_state(network), texts)


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder that was only pre-trained: what a head would read of it."""

    network: Classifier
    card: ModelCard

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in the files' own units -> the class token, normalised [B, D]."""
        mean, std = (torch.tensor(part).reshape(1, -1, 1, 1) for part in (self.card.mean, self.card.std))
        features: Tensor = self.network((images - mean) / std)
        return features


def pretrained_encoder(folder: Path) -> PretrainedEncoder | None:
    """The encoder of a pre-training's folder ``model``, without its decoder; None where it holds another model."""
    network, card = load_model(folder)
    if not isinstance(network, MSMAE):
        return None
    headless = Classifier(network.encoder, classes=0, pool="cls", head=nn.Identity())
    return PretrainedEncoder(headless.eval().requires_grad_(False), card)


class TimmFile(nn.Module):
    """A written file, read back: by timm where it is installed, else by what reads timm's published weights here."""

    def __init__(self, path: Path, card: ModelCard, network: Classifier) -> None:
        super().__init__()
        self.multilabel, self.headless = card.multilabel, isinstance(network.head, nn.Identity)
        self.register_buffer("mean", torch.tensor(card.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).reshape(1, -1, 1, 1))
        try:
            import timm
        except (ImportError, RuntimeError):  # RuntimeError: a torchvision that does not fit torch
            self.by, self.network = "msmae's reader of timm's weights", reread(path, card, network)
        else:
            architecture, arguments = timm_arguments(network, card)
            made = timm.create_model(architecture, pretrained=False, **arguments)
            made.load_state_dict(load_file(path), strict=True)
            self.by, self.network = f"timm {timm.__version__}", made
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in the files' own units -> the network's own probabilities [B, classes]; without a head
        the class token [B, D].
        """
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        logits: Tensor = self.network((images - self.mean) / self.std)
        if self.headless:
            return logits
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=1)


def reread(path: Path, card: ModelCard, network: Classifier) -> Classifier:
    """A classifier of the file's tensors; its architecture is read from them."""
    weights = open_weights(path, heads=card.heads, image_size=card.image_size)
    norm_eps = card.encoder.get("norm_eps", weights.spec.norm_eps)
    encoder = build_encoder(replace(weights.spec, norm_eps=norm_eps))
    load_into(encoder, weights)
    if isinstance(network.head, nn.Identity):
        return Classifier(encoder, classes=0, pool=network.pool, head=nn.Identity())
    read = Classifier(encoder, classes=len(card.classes), pool=network.pool)
    tensors = load_file(path)
    read.head.load_state_dict({name: tensors[f"head.{name}"] for name in ("weight", "bias")})
    return read
