"""Pretrained encoders by name: what is known of each, as a plain table.

Sizes and checksums stand here only where they were seen; the rest is pinned when a file is fetched for the first time.
Licences are those of the weights, in plain words; read them before a model leaves your desk.
"""

from __future__ import annotations

from dataclasses import dataclass

HUGGING_FACE = ("model.safetensors", "config.json", "preprocessor_config.json")
TIMM = ("model.safetensors", "config.json")
APACHE, MIT = "Apache-2.0: free to use, also commercially", "MIT: free to use, also commercially"
NON_COMMERCIAL = "CC BY-NC 4.0: not for commercial use"


@dataclass(frozen=True)
class Known:
    """One encoder. ``repository`` and ``files`` are on the Hugging Face hub; the first file holds the weights."""

    name: str
    parameters: float
    """Of the encoder, in millions."""
    patch: int
    trained_on: str
    licence: str
    repository: str
    files: tuple[str, ...]
    limited: bool = False
    """Whether the licence forbids commercial use."""
    gated: bool = False
    """Whether its owners must let you in first."""
    megabytes: float | None = None
    """Of the weights' file, where known."""
    sha256: str = ""
    """Of the weights' file, where known."""
    normalisation: str = "ImageNet's mean and deviation"
    misfit: str = ""
    """Why it cannot be used here; empty where it can."""


LVD = "142 million web images (LVD-142M), no labels"
IMAGENET, IMAGENET21 = "ImageNet-1k", "ImageNet-21k, labels"
KNOWN: tuple[Known, ...] = (
    Known("dinov2-small", 22.1, 14, LVD, APACHE, "facebook/dinov2-small", HUGGING_FACE, megabytes=88.2),
    Known("dinov2-base", 86.6, 14, LVD, APACHE, "facebook/dinov2-base", HUGGING_FACE),
    Known("dinov2-large", 304.4, 14, LVD, APACHE, "facebook/dinov2-large", HUGGING_FACE),
    Known("dinov2-small-registers", 22.1, 14, LVD, APACHE, "facebook/dinov2-with-registers-small", HUGGING_FACE),
    Known("dinov2-base-registers", 86.6, 14, LVD, APACHE, "facebook/dinov2-with-registers-base", HUGGING_FACE),
    Known("dinov2-large-registers", 304.4, 14, LVD, APACHE, "facebook/dinov2-with-registers-large", HUGGING_FACE),
    Known(
        "mae-base", 85.8, 16, f"{IMAGENET}, no labels", NON_COMMERCIAL, "timm/vit_base_patch16_224.mae", TIMM,
        limited=True,
    ),
    Known(
        "mae-large", 303.3, 16, f"{IMAGENET}, no labels", NON_COMMERCIAL, "timm/vit_large_patch16_224.mae", TIMM,
        limited=True,
    ),
    Known("deit-small", 21.7, 16, f"{IMAGENET}, labels", APACHE, "timm/deit_small_patch16_224.fb_in1k", TIMM),
    Known(
        "augreg-tiny", 5.5, 16, IMAGENET21, APACHE, "timm/vit_tiny_patch16_224.augreg_in21k", TIMM,
        normalisation="0.5 and 0.5",
    ),
    Known(
        "augreg-small", 21.7, 16, IMAGENET21, APACHE, "timm/vit_small_patch16_224.augreg_in21k", TIMM,
        normalisation="0.5 and 0.5",
    ),
    Known(
        "augreg-base", 85.8, 16, IMAGENET21, APACHE, "timm/vit_base_patch16_224.augreg_in21k", TIMM,
        normalisation="0.5 and 0.5",
    ),
    Known(
        "retfound-mae", 303.3, 16, "colour photographs of the retina, no labels", NON_COMMERCIAL,
        "YukunZhou/RETFound_mae_natureCFP", ("RETFound_mae_natureCFP.pth",), limited=True, gated=True,
    ),
    Known(
        "retfound-mae-oct", 303.3, 16, "OCT of the retina, no labels", NON_COMMERCIAL,
        "YukunZhou/RETFound_mae_natureOCT", ("RETFound_mae_natureOCT.pth",), limited=True, gated=True,
    ),
    Known(
        "retfound-dinov2", 304.4, 14, "colour photographs of the retina, no labels", NON_COMMERCIAL,
        "YukunZhou/RETFound_dinov2_meh", ("RETFound_dinov2_meh.pth",), limited=True, gated=True,
    ),
    Known(
        "rad-dino", 86.6, 14, "chest X-rays, no labels", f"{MIT} (until 2025: for research)", "microsoft/rad-dino",
        HUGGING_FACE, megabytes=346, normalisation="its own, in its files",
    ),
    Known(
        "biomedclip", 85.8, 16, "15 million figures and captions of biomedical papers", MIT,
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", ("open_clip_pytorch_model.bin",), megabytes=784,
        normalisation="CLIP's mean and deviation",
    ),
    Known(
        "eva-x-small", 22.0, 16, "chest X-rays, no labels", MIT, "MapleF/eva_x",
        ("eva_x_small_patch16_merged520k_mim.pt",), megabytes=308,
        misfit="it has rotary positions and norms inside its blocks",
    ),
)  # fmt: skip


def find_known(name: str) -> Known | None:
    """The row of this name; None where there is none."""
    return next((known for known in KNOWN if known.name == name), None)
