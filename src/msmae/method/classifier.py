"""What a pre-trained encoder is for: naming the class. (``segmenter.py`` outlines it.)"""

from __future__ import annotations

from torch import Tensor, nn

from msmae.method.msmae import pooled
from msmae.method.vit import VisionTransformer


class Classifier(nn.Module):
    """A linear head over the encoder's class token (paper) or over the mean of its patch tokens (released code).

    Args:
        encoder: usually pre-trained; becomes part of this model.
        classes: number of classes.
        pool: "cls" or "mean".
    """

    def __init__(self, encoder: VisionTransformer, *, classes: int, pool: str = "cls") -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = pool
        self.head = nn.Linear(encoder.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        encoder.pos_embed.requires_grad_(True)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], seen at positions keep [B, K] or whole -> logits [B, classes]."""
        logits: Tensor = self.head(pooled(self.encoder(images, keep), self.pool))
        return logits
