"""The pre-trained encoder outlines: a decoder turns the tokens of four of its blocks into a mask of the image's size.

``SetrDecoder`` is the paper's. ``LightDecoder`` is the default: a thirtieth of the size, and it sees the image itself,
so that an outline can be finer than a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmae.method.vit import VisionTransformer


def tapped_blocks(depth: int) -> tuple[int, int, int, int]:
    """The four blocks, counted from 0, whose tokens a decoder reads: 3, 5, 7, 11 of twelve (paper), else evenly spread.

    The last block is always among them; an encoder of fewer than four blocks gives some twice.
    """
    if depth == 12:
        return 3, 5, 7, 11
    first, second, third, last = (-(-depth * quarter // 4) - 1 for quarter in (1, 2, 3, 4))
    return first, second, third, last


class Segmenter(nn.Module):
    """An encoder and a decoder, composed.

    Args:
        encoder: usually pre-trained; becomes part of this model.
        outputs: maps to predict: 1 for one structure, one a class and one for the background where classes exclude each
            other, one a class where they may overlap.
        decoder: "light" or "setr-pup".
        width: channels of the light decoder.
        deep_supervision: train all four heads of SETR-PUP, not the last alone.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        outputs: int,
        decoder: str = "light",
        width: int = 64,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.blocks = tapped_blocks(len(encoder.blocks))
        self.decoder: SetrDecoder | LightDecoder
        if decoder == "setr-pup":
            self.decoder = SetrDecoder(encoder.width, outputs=outputs, deep_supervision=deep_supervision)
        else:
            self.decoder = LightDecoder(
                encoder.width,
                channels=encoder.channels,
                patch_size=encoder.patch_size,
                outputs=outputs,
                width=width,
            )
        encoder.pos_embed.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, outputs, H, W]."""
        return self.heads(images)[-1]

    def heads(self, images: Tensor) -> list[Tensor]:
        """The logits of every head that is trained, each [B, outputs, H, W]; the last is the answer."""
        logits: list[Tensor] = self.decoder(self.features(images), images)
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        """Patch tokens of the four blocks on their grid, each [B, D, h, w]; those of the last block are normalised."""
        x = self.encoder.embed(images)  # [B, P+N, D]
        after: list[Tensor] = []
        for block in self.encoder.blocks:
            x = block(x)
            after.append(x)
        after[-1] = self.encoder.norm(x)
        return [
            after[block][:, self.encoder.leading :].transpose(1, 2).reshape(images.shape[0], -1, *self.encoder.grid)
            for block in self.blocks
        ]


class SetrDecoder(nn.Module):
    """Four progressive up-sampling heads (Zheng et al., "SETR", arXiv 2012.15840), one on each block.

    As in the paper's transfer experiment the last head is the answer, and it alone is trained unless all four are
    supervised; the others are there, so that the model is the one that was published.
    """

    def __init__(self, width: int, *, outputs: int, hidden: int = 256, deep_supervision: bool = False) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.heads = nn.ModuleList(PupHead(width, outputs=outputs, hidden=hidden) for _ in range(4))
        self.heads[:-1].requires_grad_(deep_supervision)

    def forward(self, features: list[Tensor], images: Tensor) -> list[Tensor]:
        """Four features [B, D, h, w] -> logits [B, outputs, H, W] of the heads that are trained."""
        size = (images.shape[2], images.shape[3])
        trained = list(zip(self.heads, features, strict=True))[0 if self.deep_supervision else 3 :]
        return [head(feature, size) for head, feature in trained]


class PupHead(nn.Module):
    """Four times a 3x3 convolution, batch norm, ReLU and an enlargement; then a 3x3 convolution to the outputs.

    The enlargements multiply to the patch size: each doubles at 16 pixels a patch.
    """

    def __init__(self, width: int, *, outputs: int, hidden: int) -> None:
        super().__init__()
        inputs = (width, hidden, hidden, hidden)
        self.convolutions = nn.ModuleList(nn.Conv2d(n, hidden, 3, padding=1) for n in inputs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in inputs)
        self.classify = nn.Conv2d(hidden, outputs, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """A feature [B, D, h, w] -> logits [B, outputs, *size]."""
        height, width = x.shape[2:]
        for step, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True), start=1):
            x = F.relu(norm(convolution(x)))
            rows, columns = (round(a * (b / a) ** (step / 4)) for a, b in ((height, size[0]), (width, size[1])))
            x = F.interpolate(x, (rows, columns), mode="bilinear", align_corners=True)  # [B, hidden, rows, columns]
        logits: Tensor = self.classify(x)
        return logits


class LightDecoder(nn.Module):
    """Block features enlarged step by step, at each step joined with convolutions of the image at that resolution.

    The features of several blocks and the U shape are UNETR's (Hatamizadeh et al., arXiv 2103.10504); the stream of
    image detail beside a plain transformer is ViTMatte's (Yao et al., arXiv 2305.15272). Group norm serves any batch.
    """

    def __init__(self, encoder_width: int, *, channels: int, patch_size: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        strides = [2**step for step in range(patch_size.bit_length()) if 2**step < patch_size]  # 1, 2, 4 at 8 px
        sizes = [min(width, width // 4 * stride) for stride in strides]
        self.join = convolve(4 * encoder_width, width, kernel=1)
        self.detail = nn.ModuleList(
            convolve(before, after, stride=min(stride, 2))
            for before, after, stride in zip([channels, *sizes], sizes, strides, strict=False)
        )
        self.fuse = nn.ModuleList(
            convolve(above + here, here) for above, here in zip([*sizes, width][1:], sizes, strict=True)
        )
        self.classify = nn.Conv2d(sizes[0] if sizes else width, outputs, 1)

    def forward(self, features: list[Tensor], images: Tensor) -> list[Tensor]:
        """Four features [B, D, h, w] and the images [B, C, H, W] -> one map of logits [B, outputs, H, W]."""
        details: list[Tensor] = []
        x = images
        for convolution in self.detail:
            x = convolution(x)
            details.append(x)  # [B, c, H / stride, W / stride]
        x = self.join(torch.cat(features, dim=1))  # [B, width, h, w]
        for fuse, detail in zip(reversed(list(self.fuse)), reversed(details), strict=True):
            x = F.interpolate(x, detail.shape[2:], mode="bilinear", align_corners=False)
            x = fuse(torch.cat([x, detail], dim=1))  # [B, c, H / stride, W / stride]
        return [self.classify(x)]


def convolve(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, group norm, GELU."""
    groups = next(n for n in (8, 4, 2, 1) if outputs % n == 0)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.GroupNorm(groups, outputs),
        nn.GELU(),
    )
