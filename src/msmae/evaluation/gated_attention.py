"""One answer for several images: gated attention over their features (Ilse et al., ABMIL, arXiv 1802.04712)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedAttention(nn.Module):
    """Bags of features -> logits of the bags, and what each image weighs.

    Args:
        inputs: features of an image.
        classes: outputs.
        hidden: width of both branches of the gate.
    """

    def __init__(self, inputs: int, *, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.content = nn.Linear(inputs, hidden)
        self.gate = nn.Linear(inputs, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.head = nn.Linear(inputs, classes)
        for part in (self.score.weight, self.head.weight, self.head.bias):  # begins as the mean, and knows nothing
            nn.init.zeros_(part)

    def terms(self, features: Tensor) -> Tensor:
        """Features [n, D] of images -> what each adds to its bag, [n, 1 + classes]: its score, and its own logits."""
        scores = self.score(self.content(features).tanh() * self.gate(features).sigmoid())  # [n, 1]
        return torch.cat([scores, self.head(features)], dim=1)

    def forward(self, features: Tensor, members: Tensor, bags: int) -> tuple[Tensor, Tensor]:
        """Features [n, D] of images of the bags members [n] (0..bags-1) -> logits [bags, classes], weights [n], which
        sum to one in each bag.
        """
        return pool_terms(self.terms(features), members, bags)


def pool_terms(terms: Tensor, members: Tensor, bags: int) -> tuple[Tensor, Tensor]:
    """Terms [n, 1 + classes] -> logits [bags, classes] and weights [n], as ``GatedAttention.forward``."""
    scores, logits = terms[:, 0], terms[:, 1:]
    highest = torch.full((bags,), -torch.inf).to(scores).scatter_reduce(0, members, scores.detach(), "amax")
    raised = (scores - highest[members]).exp()
    weights = raised / torch.zeros(bags).to(scores).index_add(0, members, raised)[members]
    return torch.zeros(bags, logits.shape[1]).to(logits).index_add(0, members, weights[:, None] * logits), weights
