"""The pieces of work that are timed: the library's own steps on made-up images, each a call with a known cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from msmae.data.geometry import random_geometry
from msmae.method.attention import patch_maps
from msmae.method.classifier import Classifier
from msmae.method.cost import classifier_macs, map_macs, msmae_macs
from msmae.method.masking import plan_patches
from msmae.method.msmae import MSMAE, label_loss, msmae_loss
from msmae.method.vit import SIZES, VisionTransformer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """An encoder, the images it sees, a batch of them, and the decoder (width, depth, heads) beside it."""

    name: str
    size: str
    side: int
    patch: int
    batch: int
    decoder: tuple[int, int, int] = (128, 1, 4)
    ratios: tuple[float, float] = (0.45, 0.30)
    channels: int = 3


@dataclass(frozen=True)
class Work:
    """One piece of work. ``macs``: its multiply-accumulates in matrix products, the backward pass included."""

    run: Callable[[], object]
    images: int
    macs: float


@dataclass(frozen=True)
class Place:
    """Where and in what numbers the work is done."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> torch.autocast:
        """The precision of a training under ``trainer.precision`` (float32 weights whatever the dtype)."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def make_encoder(case: Case, *, drop_path: float = 0.0) -> VisionTransformer:
    """The case's encoder with fresh weights."""
    return VisionTransformer(
        image_size=(case.side, case.side), patch_size=case.patch, channels=case.channels, drop_path=drop_path,
        **SIZES[case.size],
    )  # fmt: skip


def made_up(case: Case, place: Place) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images [B, C, H, W] and labels [B] on the device, and maps [B, h, w]."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, case.channels, case.side, case.side, generator=generator)
    labels = torch.randint(0, 4, (case.batch,), generator=generator)
    cells = case.side // case.patch
    return images.to(place.device), labels.to(place.device), torch.rand(case.batch, cells, cells, generator=generator)


def training(model: nn.Module, loss: Callable[[], Tensor], place: Place) -> Callable[[], None]:
    """One step: loss, backward pass, clipping, AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        with place.autocast():
            value = loss()
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def augmentation(case: Case, place: Place) -> Work:
    """Crop, flip and resampling of images and maps."""
    images, _, maps = made_up(case, place)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        geometry = random_geometry(case.batch, generator=generator)
        with place.autocast():
            geometry.apply(images, (case.side, case.side))
            geometry.apply_to_maps(maps, (maps.shape[1], maps.shape[2]))

    return Work(run, case.batch, 2 * case.side**3 * case.channels * case.batch)


def pretraining(case: Case, place: Place, *, augment: bool = True, held: torch.dtype = torch.float32) -> Work:
    """One step of pre-training, from normalised images, held in these numbers, to changed weights."""
    images, labels, maps = made_up(case, place)
    images = images.to(held)
    width, depth, heads = case.decoder
    model = MSMAE(
        make_encoder(case), classes=4, decoder_width=width, decoder_depth=depth, decoder_heads=heads
    ).to(place.device)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    grid = model.encoder.grid

    def loss() -> Tensor:
        seen, weights = images, maps
        if augment:
            geometry = random_geometry(case.batch, generator=generator)
            seen = geometry.apply(images, (case.side, case.side))
            weights = geometry.apply_to_maps(maps, grid)
        plan = plan_patches(weights, *case.ratios, generator).to(place.device)
        return msmae_loss(seen, model(seen, plan), plan, labels, patch_size=case.patch).total

    plan = plan_patches(maps[:1], *case.ratios, generator)
    macs = msmae_macs(model, plan.keep.shape[1], plan.mask.shape[1]).total
    return Work(training(model, loss, place), case.batch, 3 * macs * case.batch)


def finetuning(case: Case, place: Place, *, keep: float = 1.0) -> Work:
    """One step of fine-tuning on all patches, or on the share that a plan keeps."""
    images, labels, maps = made_up(case, place)
    model = Classifier(make_encoder(case, drop_path=0.1), classes=4).to(place.device).train()
    generator = torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        geometry = random_geometry(case.batch, generator=generator)
        seen = geometry.apply(images, (case.side, case.side))
        kept = None
        if keep < 1:
            weights = geometry.apply_to_maps(maps, model.encoder.grid)
            kept = plan_patches(weights, 1 - keep, 0.0, generator).keep.to(place.device)
        return label_loss(model(seen, kept).float(), labels, smoothing=0.1)

    kept = None if keep == 1 else plan_patches(maps[:1], 1 - keep, 0.0).keep.shape[1]
    return Work(training(model, loss, place), case.batch, 3 * classifier_macs(model, kept).total * case.batch)


def refresh(case: Case, place: Place) -> Work:
    """The maps of whole images, four batches at once as training makes them."""
    case = replace(case, batch=4 * case.batch)
    images, _, _ = made_up(case, place)
    encoder = make_encoder(case).to(place.device).eval()

    def run() -> None:
        with place.autocast():
            patch_maps(encoder, images).cpu()

    return Work(run, case.batch, map_macs(encoder).total * case.batch)


def inference(case: Case, place: Place) -> Work:
    """Probabilities of a batch of whole images."""
    images, _, _ = made_up(case, place)
    model = Classifier(make_encoder(case), classes=4).to(place.device).eval()

    @torch.inference_mode()
    def run() -> None:
        with place.autocast():
            model(images).float().softmax(dim=1).cpu()

    return Work(run, case.batch, classifier_macs(model).total * case.batch)


def product(place: Place, side: int) -> Work:
    """One square matrix product: the ceiling of everything above."""
    a, b = (torch.randn(side, side, device=place.device).to(place.dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=place.dtype, device=place.device)
    return Work(lambda: torch.mm(a, b, out=out), 1, float(side) ** 3)


def copying(place: Place, megabytes: int) -> Work:
    """A copy of so many megabytes from memory to memory; its ``macs`` are the bytes read and written."""
    source = torch.zeros(megabytes * 2**20, dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    return Work(lambda: target.copy_(source), 1, 2.0 * megabytes * 2**20)
