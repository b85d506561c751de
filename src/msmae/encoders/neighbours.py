"""A head without weights: the nearest training images vote (Wu et al., arXiv 1805.01978)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""Of the cosines: a neighbour at 0.07 less has 1/e of the weight."""
LEAST = 1e-4
"""Probability of a class that no neighbour has."""


class NeighbourVote(nn.Module):
    """Features [B, D] -> logits [B, C]: a vote of the 20 nearest training images by cosine.

    Args:
        images: training images that are remembered, N.
        width: of the features, D.
        classes: C.
        several: whether an image may have several labels; then each class is a vote of its own.

    ``bank`` [N, D] holds their features at length 1, ``votes`` [N, C] what each says of the classes (nan: nothing),
    ``weights`` [C] how much a vote for each class counts (of several labels: a yes against a no).
    """

    bank: Tensor
    votes: Tensor
    weights: Tensor

    def __init__(self, images: int, width: int, classes: int, *, several: bool) -> None:
        super().__init__()
        self.several = several
        self.register_buffer("bank", torch.zeros(images, width))
        self.register_buffer("votes", torch.zeros(images, classes))
        self.register_buffer("weights", torch.ones(classes))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: every remembered feature."""
        return self.bank.numel()

    def remember(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Take the training images: features [N, D], labels [N] (-1: none) or [N, C] (nan: unknown), and what a vote
        for each class weighs [C]."""
        self.bank.copy_(F.normalize(features.float()))
        self.weights.copy_(weights)
        if labels.is_floating_point():
            self.votes.copy_(labels)
            return
        votes = F.one_hot(labels.clamp(min=0), len(weights)).float()
        self.votes.copy_(votes.masked_fill((labels < 0).unsqueeze(1), torch.nan))

    def forward(self, features: Tensor) -> Tensor:
        cosines = F.normalize(features.float()) @ self.bank.float().T  # [B, N]
        near = cosines.topk(min(NEIGHBOURS, len(self.bank)), dim=1)
        votes = self.votes[near.indices].float()  # [B, k, C]
        share = (near.values / TEMPERATURE).softmax(dim=1).unsqueeze(2) * ~votes.isnan()  # [B, k, C]
        found = (share * votes.nan_to_num()).sum(dim=1) / share.sum(dim=1).clamp(min=LEAST)  # [B, C]
        logits = found.clamp(LEAST, 1 - LEAST).logit() if self.several else found.clamp(min=LEAST).log()
        return logits + self.weights.float().log()  # a class that counts twice has twice the odds
