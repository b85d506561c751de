"""Answers that are averaged: those of several classifiers, and those to an image and to its mirror image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msmae.method.classifier import Classifier

SMALLEST = 1e-7
"""Least probability that a mean is cut to where labels are independent, so that its logit is finite in float32."""


class Ensemble(Classifier):
    """One or several classifiers of one architecture. It answers with the mean of their probabilities; its encoder, and
    so its features, are the first one's.

    Args:
        members: the classifiers.
        several: an image may have several labels, so that each class is a question of its own.
        mirrored: each answers for the image and for its left-right mirror image.
    """

    def __init__(self, members: Sequence[Classifier], *, several: bool, mirrored: bool = False) -> None:
        first = members[0]
        super().__init__(first.encoder, classes=1, pool=first.pool, head=first.head)
        self.attentive = first.attentive
        self.others = nn.ModuleList(members[1:])
        self.several, self.mirrored = several, mirrored

    def members(self) -> list[Classifier]:
        """The classifiers, each alone, on the same weights."""
        first = Classifier(self.encoder, classes=1, pool=self.pool, head=self.head)
        first.attentive = self.attentive
        return [first.train(self.training), *self.others]

    @property
    def passes(self) -> int:
        """Passes through an encoder that one answer takes."""
        return (1 + len(self.others)) * (1 + self.mirrored)

    def answer(self, images: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logits [B, classes] whose probabilities are the mean of all answers; the tokens of the first.

        Raises:
            ValueError: some of the patches only, where the mirror image would show others.
        """
        if self.mirrored and keep is not None:
            raise ValueError("mirrored answers are of whole images")
        logits, tokens = super().answer(images, keep)
        answers = [logits, *(member(images, keep) for member in self.others)]
        if self.mirrored:
            flipped = images.flip(3)
            answers += [super().answer(flipped)[0], *(member(flipped) for member in self.others)]
        each = torch.stack(answers).float()  # [passes, B, classes]
        if self.several:
            return each.sigmoid().mean(dim=0).clamp(SMALLEST, 1 - SMALLEST).logit(), tokens
        return each.log_softmax(dim=2).exp().mean(dim=0).log(), tokens
