"""Adapters that let the peers' checkouts run under current libraries, and their steps as they are trained.

Nothing here is copied from them: their own modules are imported from the checkouts. What has changed since they were
written: ``np.float``, ``torch._six`` and an argument of timm's block are gone; torchvision refuses to load beside a
PyTorch without its operators; and maps are read from a timm that two of them tell the user to edit.
"""

from __future__ import annotations

import importlib
import math
import sys
import types
import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msmae.bench.work import Case, Place, Work, made_up, make_encoder
from msmae.method.cost import map_macs, msmae_macs
from msmae.method.msmae import MSMAE

MODELS = {"facebook-mae": "models_mae", "msmae": "models_msmae", "amt": "models_mae"}
GUIDED = 50
"""An epoch after their uniform warm-up of 40."""


def prepare_libraries(name: str) -> None:
    """Give torch, numpy and timm back what this peer expects of them."""
    warnings.filterwarnings("ignore")
    setattr(np, "float", float)  # noqa: B010
    six = types.ModuleType("torch._six")
    six.inf = math.inf  # type: ignore[attr-defined]
    sys.modules["torch._six"] = six
    torch.cuda.synchronize = lambda *_: None  # called after every step, on a CPU too
    import_torchvision()
    accept_scale()
    if name != "facebook-mae":
        edit_timm()


def import_torchvision() -> None:
    """Import torchvision without its compiled operators (detection; nobody here calls them)."""
    register = torch.library.register_fake

    def lenient(operator: Any, *arguments: Any, **options: Any) -> Any:
        if str(operator).startswith("torchvision::"):
            return lambda function: function
        return register(operator, *arguments, **options)

    torch.library.register_fake = lenient  # type: ignore[assignment]
    importlib.import_module("torchvision")
    torch.library.register_fake = register


def accept_scale() -> None:
    """timm's block takes ``qk_scale=None`` again, which meant the usual scale."""
    from timm.models import vision_transformer as timm_vit

    make = timm_vit.Block.__init__

    def initialise(self: Any, *arguments: Any, qk_scale: None = None, **options: Any) -> None:
        make(self, *arguments, **options)

    timm_vit.Block.__init__ = initialise


def edit_timm() -> None:
    """The edit that MSMAE's and AMT's instructions ask for: the attention matrix can be read."""
    from timm.models import vision_transformer as timm_vit

    class Readable(timm_vit.Attention):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            batch, tokens, width = x.shape
            qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            query, key, value = qkv.unbind(0)
            self.matrix = ((query @ key.transpose(-2, -1)) * self.scale).softmax(dim=-1)
            mixed = (self.matrix @ value).transpose(1, 2).reshape(batch, tokens, width)
            return self.proj_drop(self.proj(mixed))

        def return_attn(self) -> Tensor:
            return self.matrix

    plain = timm_vit.Block.forward

    def forward(self: Any, x: Tensor, return_attention: bool = False) -> Tensor:
        out = plain(self, x)
        return self.attn.matrix if return_attention else out

    timm_vit.Attention = Readable
    timm_vit.Block.forward = forward


def load_peer(name: str, checkout: Path) -> types.ModuleType:
    """The module of the peer's model."""
    folder = checkout / "mae-AMT" if name == "amt" else checkout
    sys.path.insert(0, str(folder))
    return importlib.import_module(MODELS[name])


def make_model(module: types.ModuleType, case: Case) -> nn.Module:
    """The peer's masked autoencoder with the case's encoder and decoder."""
    encoder = make_encoder(case)
    width, depth, heads = case.decoder
    return module.MaskedAutoencoderViT(
        img_size=case.side, patch_size=case.patch, in_chans=case.channels, embed_dim=encoder.width,
        depth=len(encoder.blocks), num_heads=encoder.blocks[0].attn.heads, decoder_embed_dim=width,
        decoder_depth=depth, decoder_num_heads=heads, norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip


def forward_of(name: str, model: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(images, weights [B, 1, H, W], labels) -> loss, 45 % masked and 30 % thrown (facebook-mae: 75 and 0)."""
    if name == "facebook-mae":
        return lambda images, weights, labels: model(images, mask_ratio=0.75)[0]
    if name == "amt":
        return lambda images, weights, labels: model(images, weights, 0.45, 0.30, GUIDED)[0]
    return lambda images, weights, labels: model(images, weights, labels, 0.45, 0.30, GUIDED)[0]


def pretraining(name: str, module: types.ModuleType, case: Case) -> Work:
    """One of the peer's steps as its engine takes it, with its own scaler, and AdamW as its main program makes it."""
    scaler = importlib.import_module("util.misc").NativeScalerWithGradNormCount()
    model = make_model(module, case).train()
    forward = forward_of(name, model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95))
    images, labels, _ = made_up(case, Place(torch.device("cpu")))
    weights = torch.rand(case.batch, 1, case.side, case.side)

    def run() -> None:
        loss = forward(images, weights, labels)
        if not math.isfinite(loss.item()):
            raise ArithmeticError("the peer's loss is not finite")
        scaler(loss, optimiser, parameters=model.parameters(), update_grad=True)
        optimiser.zero_grad()

    ours = MSMAE(make_encoder(case), classes=4)
    return Work(run, case.batch, 3 * msmae_macs(ours, 49, 88).total * case.batch)


def attention_maps(model: Any, images: Tensor) -> Tensor:
    """The peer's maps [B, N] of whole images: its own pass, then min-max by head and the mean over heads."""
    rows = model.forward_encoder_test(images)[:, :, 0, 1:]  # [B, H, N]
    rows = rows - rows.amin(dim=-1, keepdim=True)
    return (rows / rows.amax(dim=-1, keepdim=True)).mean(dim=1)


def refresh(name: str, module: types.ModuleType, case: Case) -> Work:
    """The peer's maps of as many images as ours are asked for."""
    case = replace(case, batch=4 * case.batch)
    model = make_model(module, case).eval()
    images, _, _ = made_up(case, Place(torch.device("cpu")))

    @torch.no_grad()
    def run() -> None:
        attention_maps(model, images)

    return Work(run, case.batch, map_macs(make_encoder(case)).total * case.batch)


def epoch(module: types.ModuleType, case: Case, data: Path) -> Work:
    """MSMAE's guided epoch from image files: the maps of all images, then training, each through its own loader."""
    import datasets
    import torchvision
    from engine_pretrain import train_one_epoch
    from torchvision import transforms

    scaler = importlib.import_module("util.misc").NativeScalerWithGradNormCount()
    scale = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    crops = [
        datasets.maskRandomResizedCrop(case.side, scale=(0.2, 1.0), interpolation=3),
        datasets.maskRandomHorizontalFlip(),
    ]
    training = datasets.MyImageFolder(str(data), transform=datasets.trainCompose([*crops, *scale]))
    whole = transforms.Compose([transforms.Resize((case.side, case.side)), *scale])
    maps_of = torchvision.datasets.ImageFolder(str(data), transform=whole)
    model = make_model(module, case)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95))
    settings = Namespace(
        accum_iter=1, lr=1e-4, min_lr=0.0, warmup_epochs=40, epochs=300, mask_ratio=0.45, throw_ratio=0.30
    )  # fmt: skip

    def run() -> None:
        loader = torch.utils.data.DataLoader(maps_of, batch_size=256, num_workers=1)
        with torch.no_grad():
            training.mask_weights = torch.cat(
                [attention_maps(model, images) for images, _ in loader]
            ).reshape(-1, 14, 14)  # fmt: skip
        loader = torch.utils.data.DataLoader(
            training, batch_size=case.batch, shuffle=True, num_workers=1, drop_last=True
        )  # fmt: skip
        train_one_epoch(model, loader, optimiser, torch.device("cpu"), GUIDED, scaler, args=settings)

    return Work(run, len(training), 0.0)
