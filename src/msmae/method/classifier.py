"""What a pre-trained encoder is for: to classify. (``segmenter.py`` outlines lesions.)"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msmae.method.msmae import pooled
from msmae.method.vit import VisionTransformer


class AttentivePool(nn.Module):
    """One learned query attends to all tokens: [B, T, D] -> [B, D] (the attentive probe of AIM, arXiv 2401.08541)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        """There is one query, so it goes through the keys' weights once instead of each token; and a mean of values is
        the value of a mean. The keys' bias, the same for all tokens, changes nothing."""
        tokens = self.norm(tokens)  # [B, T, D]
        key, value = self.key_value.weight.reshape(2, self.heads, -1, tokens.shape[2])  # each [H, D/H, D]
        query = self.query.reshape(self.heads, -1) * key.shape[1] ** -0.5  # [H, D/H]
        asked = torch.einsum("hk,hkd->dh", query, key)  # [D, H]
        weights = (tokens @ asked).softmax(dim=1)  # [B, T, H]
        means = weights.transpose(1, 2) @ tokens  # [B, H, D]
        read = torch.einsum("bhd,hkd->bhk", means, value).flatten(1)  # [B, D]
        return read + self.key_value.bias.chunk(2)[1].to(read.dtype)


class Classifier(nn.Module):
    """A head over what stands for the image.

    Args:
        encoder: usually pre-trained; becomes part of this model.
        classes: number of classes.
        pool: "cls", the class token (paper); "mean", the mean of the patch tokens (released code); "both", one after
            the other; "attentive", what a learned query takes from all tokens.
        head: what takes the place of the linear head; its ``macs`` are what it multiplies for one image.
    """

    def __init__(
        self, encoder: VisionTransformer, *, classes: int, pool: str = "cls", head: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = pool
        self.attentive = AttentivePool(encoder.width, heads_of(encoder)) if pool == "attentive" else None
        self.head = head or linear_head(encoder.width * (2 if pool == "both" else 1), classes)
        encoder.pos_embed.requires_grad_(True)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], seen at positions keep [B, K] or whole -> logits [B, classes]."""
        return self.answer(images, keep)[0]

    def answer(self, images: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logits [B, classes], and the encoder's normalised tokens [B, 1+K, D] that they come from."""
        tokens = self.encoder(images, keep)
        return self.classify(tokens), tokens

    def classify(self, tokens: Tensor) -> Tensor:
        """The encoder's normalised tokens [B, 1+K, D] -> logits [B, classes]."""
        if self.attentive is not None:
            read = self.attentive(tokens)  # [B, D]
        elif self.pool == "both":
            read = torch.cat([pooled(tokens, "cls"), pooled(tokens, "mean")], dim=1)  # [B, 2D]
        else:
            read = pooled(tokens, self.pool)  # [B, D]
        logits: Tensor = self.head(read)
        return logits


def linear_head(width: int, classes: int) -> nn.Linear:
    """A linear layer that begins near zero."""
    head = nn.Linear(width, classes)
    nn.init.trunc_normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def heads_of(encoder: VisionTransformer) -> int:
    """The encoder's attention heads."""
    heads: int = encoder.blocks[0].attn.heads  # type: ignore[union-attr, assignment]
    return heads
