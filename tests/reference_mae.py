"""A masked autoencoder written a second time, from the paper (He et al., arXiv 2111.06377) and from nothing in `msmae`.

It does everything the other way round, so that a mistake is unlikely to be made twice: blocks are PyTorch's own,
patches are embedded by a convolution over the whole image, the mask is a boolean picture rather than lists of
positions, the decoder runs over every patch in grid order, and a pixel head speaks in the order (y, x, channel).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def positions(width: int, rows: int, columns: int) -> Tensor:
    """Sine-cosine positions [1, 1+N, D], entry by entry: first half for the column, second half for the row, each first
    sines, then cosines; nothing for the class token."""
    quarter = width // 4
    table = [[0.0] * width]
    for row in range(rows):
        for column in range(columns):
            waves = []
            for place in (column, row):
                angles = [place / 10000 ** (k / quarter) for k in range(quarter)]
                waves += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            table.append(waves)
    return torch.tensor([table], dtype=torch.float64)


def blocks(width: int, heads: int, depth: int) -> nn.ModuleList:
    """Pre-norm transformer blocks with a GELU perceptron four times as wide."""
    return nn.ModuleList(
        nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True,
            norm_first=True,
        )
        for _ in range(depth)
    )  # fmt: skip


class ReferenceMAE(nn.Module):
    """Images [B, C, H, W] and a picture of what is masked, bool [B, rows, columns] -> the reconstruction loss."""

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        patch: int,
        channels: int,
        width: int,
        depth: int,
        heads: int,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.patch, self.channels, self.normalise = patch, channels, normalise
        self.register_buffer("encoder_positions", positions(width, *grid))
        self.register_buffer("decoder_positions", positions(decoder_width, *grid))
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(width))
        self.encoder = blocks(width, heads, depth)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.bridge = nn.Linear(width, decoder_width)
        self.hidden = nn.Parameter(torch.zeros(decoder_width))
        self.decoder = blocks(decoder_width, decoder_heads, decoder_depth)
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.pixels = nn.Linear(decoder_width, patch * patch * channels)

    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        hidden = masked.flatten(1)  # [B, N]
        error = (self.reconstruct(images, hidden) - self.targets(images)).square().mean(dim=-1)  # [B, N]
        return (error * hidden).sum() / hidden.sum()

    def reconstruct(self, images: Tensor, hidden: Tensor) -> Tensor:
        """All patches [B, N, p*p*C], the visible ones too (MAE predicts them and looks away)."""
        batch = len(images)
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.encoder_positions[:, 1:]  # [B, N, D]
        visible = tokens[~hidden].reshape(batch, -1, tokens.shape[-1])  # in grid order
        x = torch.cat([self.cls.expand(batch, 1, -1), visible], dim=1)
        for block in self.encoder:
            x = block(x)
        latent = self.bridge(self.encoder_norm(x))
        full = self.hidden.expand(batch, hidden.shape[1], -1).clone()  # [B, N, d]
        full[~hidden] = latent[:, 1:].reshape(-1, full.shape[-1])
        x = torch.cat([latent[:, :1], full], dim=1) + self.decoder_positions
        for block in self.decoder:
            x = block(x)
        return self.pixels(self.decoder_norm(x[:, 1:]))

    def targets(self, images: Tensor) -> Tensor:
        """The images' patches [B, N, p*p*C], each in the order (y, x, channel)."""
        windows = images.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)  # [B, C, h, w, p, p]
        patches = windows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        if self.normalise:
            middle, spread = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True, unbiased=True)
            patches = (patches - middle) / (spread + 1e-6) ** 0.5
        return patches

    def partners(self) -> dict[str, nn.Parameter]:
        """Our parameter's name in `msmae.method.msmae.MSMAE` -> the parameter here that plays its part."""
        pairs: dict[str, nn.Parameter] = {"encoder.cls_token": self.cls, "mask_token": self.hidden}
        modules: dict[str, nn.Module] = {
            "encoder.patch_embed.proj": self.embed, "encoder.norm": self.encoder_norm, "decoder_embed": self.bridge,
            "decoder_norm": self.decoder_norm, "decoder_pred": self.pixels,
        }  # fmt: skip
        for prefix, layers in (("encoder.blocks", self.encoder), ("decoder_blocks", self.decoder)):
            for i, layer in enumerate(layers):
                assert isinstance(layer, nn.TransformerEncoderLayer)
                pairs[f"{prefix}.{i}.attn.qkv.weight"] = layer.self_attn.in_proj_weight
                pairs[f"{prefix}.{i}.attn.qkv.bias"] = layer.self_attn.in_proj_bias
                modules |= {
                    f"{prefix}.{i}.attn.proj": layer.self_attn.out_proj, f"{prefix}.{i}.norm1": layer.norm1,
                    f"{prefix}.{i}.norm2": layer.norm2, f"{prefix}.{i}.mlp.fc1": layer.linear1,
                    f"{prefix}.{i}.mlp.fc2": layer.linear2,
                }  # fmt: skip
        for name, module in modules.items():
            pairs |= {f"{name}.{part}": parameter for part, parameter in module.named_parameters()}
        return pairs

    def arrange(self, name: str, theirs: Tensor) -> Tensor:
        """A tensor of `MSMAE` in the shape and order it has here: its pixel head speaks (channel, y, x)."""
        if name.startswith("decoder_pred."):
            side, channels = self.patch, self.channels
            theirs = theirs.unflatten(0, (channels, side, side)).movedim(0, 2).flatten(0, 2)
        return theirs.reshape(self.partners()[name].shape)

    @torch.no_grad()
    def copy_weights(self, state: dict[str, Tensor]) -> None:
        """Take over the weights of an `MSMAE` state dict."""
        for name, parameter in self.partners().items():
            parameter.copy_(self.arrange(name, state[name]))
