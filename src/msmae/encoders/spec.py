"""What an encoder is built like, as its weights say, and the encoder built so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from msmae.errors import UserError
from msmae.method.vit import VisionTransformer

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

Triple = tuple[float, ...]


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's architecture, how its positions are resampled, and how images reach it."""

    family: str
    """Whose names the weights have, in words."""
    width: int
    depth: int
    heads: int
    patch_size: int
    channels: int
    grid: tuple[int, int]
    """(rows, columns) of patches that the positions are for."""
    mlp_ratio: float = 4.0
    mlp: Literal["gelu", "swiglu"] = "gelu"
    qkv_bias: bool = True
    layer_scale: bool = False
    registers: int = 0
    class_token: bool = True
    reads: Literal["class", "mean", "norm-of-mean"] = "class"
    norm_eps: float = 1e-6
    antialias: bool = False
    """How positions are resampled, as the source project does it (``resize_position_embedding``)."""
    offset: float = 0.0
    mean: Triple | None = None
    """Of each channel, on images in 0..1; None: not known."""
    std: Triple | None = None
    heads_from: str = ""
    """Where the number of heads comes from, in words."""
    normalisation_from: str = ""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the positions are for."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    @property
    def parts(self) -> dict[str, Any]:
        """What of the architecture a plain vision transformer does not have; empty for a plain one."""
        plain = EncoderSpec("", 0, 0, 0, 0, 0, (0, 0))
        names = ("mlp_ratio", "mlp", "qkv_bias", "layer_scale", "registers", "class_token", "reads", "norm_eps")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(plain, name)}

    def describe(self) -> str:
        """One line: ``384 wide, 12 blocks, 6 heads, patch 14, 37 x 37 patches, 4 registers``."""
        rows, columns = self.grid
        said = [
            f"{self.width} wide, {self.depth} blocks, {self.heads} heads ({self.heads_from})",
            f"patch {self.patch_size}, positions for {rows} x {columns} patches",
            "LayerScale" if self.layer_scale else "",
            f"{self.registers} registers" if self.registers else "",
            "SwiGLU" if self.mlp == "swiglu" else "",
            "" if self.qkv_bias else "no biases in qkv",
            "" if self.class_token else "no class token",
            "" if self.reads == "class" else "the mean of the patches stands for the image",
        ]
        return ", ".join(part for part in said if part)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def build_encoder(
    spec: EncoderSpec,
    image_size: tuple[int, int] | None = None,
    *,
    channels: int | None = None,
    drop_path: float = 0.0,
) -> VisionTransformer:
    """An encoder of this architecture with fresh weights.

    Args:
        image_size: (height, width) in pixels; None: the one that the positions are for.
        channels: image channels; None: the weights' own.

    Raises:
        UserError: the image size is no multiple of the patch size.
    """
    size = image_size or spec.image_size
    if any(side % spec.patch_size or side < spec.patch_size for side in size):
        raise UserError(
            f"image size {size[0]} x {size[1]} is no multiple of the encoder's patch size {spec.patch_size}",
            where="model.image_size",
            mend=f"choose a multiple of {spec.patch_size}",
        )
    return VisionTransformer(
        image_size=size,
        patch_size=spec.patch_size,
        channels=channels or spec.channels,
        width=spec.width,
        depth=spec.depth,
        heads=spec.heads,
        drop_path=drop_path,
        **spec.parts,
    )
