"""MSMAE: a masked autoencoder whose masks follow an attention that the labels have taught.

Paper: Mao et al., "Medical supervised masked autoencoders", arXiv 2305.05871, section 3; the autoencoder is MAE's
(arXiv 2111.06377).

A plan (`method.masking`) says which patches of an image are kept, masked or dropped. It is drawn from an attention map,
which the encoder gives (`method.attention`). Training (`training.pretrain`) decides when the maps are refreshed, and
from which epoch on they guide the plans. The label is learned from the kept patches alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmae.method.masking import PatchPlan
from msmae.method.vit import Block, VisionTransformer, gather_tokens, initialise, patchify, position_embedding


class Reconstruction(NamedTuple):
    """What the model says of a batch: pixels [B, M, C*p*p] of the masked patches, and class logits [B, classes]."""

    pixels: Tensor
    logits: Tensor


class Losses(NamedTuple):
    """Scalars: ``total`` = ``reconstruction`` + weight x ``label``."""

    total: Tensor
    reconstruction: Tensor
    label: Tensor


class MSMAE(nn.Module):
    """Encoder over the kept patches, light decoder over kept and masked ones, linear head on the class token.

    Args:
        encoder: sees [CLS] and the kept patches; its position embedding is fixed from here on, as in MAE.
        classes: number of classes of the linear head.
        decoder_width, decoder_depth, decoder_heads: the decoder's size (paper: 512, 8, 16).
        pool: what the head reads: the class token ("cls", the paper) or the mean of the patch tokens ("mean").
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        classes: int,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        pool: str = "cls",
    ) -> None:
        super().__init__()
        self.pool = pool
        self.decoder_embed = nn.Linear(encoder.width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_pos_embed = nn.Parameter(position_embedding(decoder_width, encoder.grid), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(Block(decoder_width, decoder_heads) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_width, encoder.channels * encoder.patch_size**2)
        self.head = nn.Linear(encoder.width, classes)
        initialise(self)
        self.encoder = encoder
        self.encoder.pos_embed.requires_grad_(False)  # positions are fixed in pre-training, as in MAE

    def forward(self, images: Tensor, plan: PatchPlan) -> Reconstruction:
        """Images [B, C, H, W] under a plan: encode the kept patches, reconstruct the masked ones, classify."""
        latent = self.encoder(images, plan.keep)  # [B, 1+K, D]
        pixels = self.decode(latent, plan)  # [B, M, C*p*p]
        logits = self.head(pooled(latent, self.pool))  # [B, classes]
        return Reconstruction(pixels, logits)

    def decode(self, latent: Tensor, plan: PatchPlan) -> Tensor:
        """Latent tokens [B, 1+K, D] -> pixels of the masked patches [B, M, C*p*p]. Dropped patches are absent."""
        seen = self.decoder_embed(latent)  # [B, 1+K, d]
        hidden = self.mask_token.to(seen.dtype).expand(len(seen), plan.mask.shape[1], -1)  # [B, M, d]
        cls_position = self.decoder_pos_embed[:, :1].expand(len(seen), -1, -1)
        patch_positions = self.decoder_pos_embed[:, 1:].expand(len(seen), -1, -1)
        drawn = gather_tokens(patch_positions, torch.cat([plan.keep, plan.mask], dim=1))
        x = torch.cat([seen, hidden], dim=1) + torch.cat([cls_position, drawn], dim=1)  # [B, 1+K+M, d]
        for block in self.decoder_blocks:
            x = block(x)
        pixels: Tensor = self.decoder_pred(self.decoder_norm(x[:, seen.shape[1] :]))
        return pixels


def pooled(tokens: Tensor, pool: str) -> Tensor:
    """One vector an image, [B, 1+K, D] -> [B, D]: the class token, or the mean of the patch tokens."""
    return tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(dim=1)


def normalise_patches(patches: Tensor) -> Tensor:
    """Give every patch [..., P] mean 0 and variance 1 (MAE's normalised-pixel target)."""
    mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def msmae_loss(
    images: Tensor,
    output: Reconstruction,
    plan: PatchPlan,
    labels: Tensor,
    *,
    patch_size: int,
    label_weight: float = 0.1,
    normalise_pixels: bool = False,
    softmax_twice: bool = False,
) -> Losses:
    """Mean squared error over the masked patches' pixels + weight x cross-entropy of the class head (paper, eq. 5-7).

    Args:
        labels: int64 [B], -1 where unknown, or float [B, classes] for multi-label (nan is unknown). Unknown
            labels add nothing to the label term; the image still takes part in the reconstruction.
        normalise_pixels: reconstruct per-patch normalised pixels.
        softmax_twice: the released code's defect (softmax before a cross-entropy that applies it again), for the arm
            that reproduces it.
    """
    target = gather_tokens(patchify(images, patch_size), plan.mask).float()  # [B, M, C*p*p]
    if normalise_pixels:
        target = normalise_patches(target)
    error = (output.pixels.float() - target) ** 2  # [B, M, C*p*p]
    reconstruction = error.sum() / max(1, error.numel())  # a plan that masks nothing costs nothing
    label = label_loss(output.logits.float(), labels, softmax_twice=softmax_twice)
    return Losses(reconstruction + label_weight * label, reconstruction, label)


def label_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    softmax_twice: bool = False,
) -> Tensor:
    """Cross-entropy over the labelled samples (binary cross-entropy for float labels); 0 if none is labelled.

    ``weights`` [classes] weigh the classes: a weighted mean over the samples; for float labels the positive terms.
    """
    if labels.is_floating_point():
        known = ~labels.isnan()  # [B, classes]: of an image some may be known, and others not
        target = labels * (1 - smoothing) + 0.5 * smoothing
        terms = F.binary_cross_entropy_with_logits(logits, target.nan_to_num(), pos_weight=weights, reduction="none")
        weight = known.float()
    else:
        known = labels >= 0
        scores = logits.softmax(dim=1) if softmax_twice else logits
        classes = labels.clamp(min=0)
        terms = F.cross_entropy(scores, classes, weights, reduction="none", label_smoothing=smoothing)
        weight = known * (1.0 if weights is None else weights[classes])
    return (terms * known).sum() / weight.sum().clamp(min=1e-12)
