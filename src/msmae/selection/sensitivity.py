"""On which patches an answer hangs: what the locator learns to foresee.

Where the class token looks in the last block is not where the answer comes from: of the lesion patches of the phantom,
the most attended quarter holds a third, the most sensitive quarter 70 %, and 96 % once the map is widened by the
neighbours of each patch (docs/keep.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.method.classifier import Classifier
from msmae.method.msmae import MSMAE, pooled


def sensitivity(model: Classifier | MSMAE, images: Tensor) -> Tensor:
    """Images [B, C, H, W] -> maps [B, h, w], non-negative, each with sum 1: how fast the answer changes with a patch.

    The length of the gradient, over the patch's embedded token, of the strongest logit above the mean of all
    (Simonyan et al., arXiv 1312.6034, in tokens instead of pixels). No label is needed.
    """
    encoder = model.encoder
    with torch.enable_grad():
        tokens = encoder.embed(images).detach().requires_grad_()
        read = encoder.encode(tokens)  # [B, 1+N, D]
        logits = model.classify(read) if isinstance(model, Classifier) else model.head(pooled(read, model.pool))
        lengths = token_lengths(logits, tokens, encoder.leading)  # [B, N]
    share: Tensor = lengths / lengths.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return share.reshape(-1, *encoder.grid)


def token_lengths(logits: Tensor, tokens: Tensor, leading: int = 1) -> Tensor:
    """How fast answers [B, classes] change with the embedded patches of tokens [B, P+K, D] they come from: [B, K].

    The graph of the answers is kept, for a loss to be propagated through it as well.
    """
    logits = logits.float()
    margin = (logits.amax(dim=1) - logits.mean(dim=1)).sum() if logits.shape[1] > 1 else logits.abs().sum()
    (gradient,) = torch.autograd.grad(margin, tokens, retain_graph=True)
    lengths: Tensor = gradient[:, leading:].float().norm(dim=-1)
    return lengths


def widened(maps: Tensor) -> Tensor:
    """Maps [B, h, w], each place the mean of itself and its neighbours (eight, at the border fewer): a lesion is wider
    than its most telling patch."""
    return F.avg_pool2d(maps.unsqueeze(1), 3, stride=1, padding=1, count_include_pad=False).squeeze(1)
