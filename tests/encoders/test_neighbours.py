"""The vote of the nearest training images, against a vote counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msmae.encoders.neighbours import NEIGHBOURS, TEMPERATURE, NeighbourVote

WEIGHTS = [1.0, 2.0, 0.5]


def counted(bank: np.ndarray, votes: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Shares of the classes [C]: one neighbour after the other; a yes counts its class's weight, a nan nothing."""
    cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
    total, sums = np.zeros(votes.shape[1]), np.zeros(votes.shape[1])
    for place in np.argsort(-cosines)[:NEIGHBOURS]:
        weight = np.exp(cosines[place] / TEMPERATURE)
        for c, vote in enumerate(votes[place]):
            if not np.isnan(vote):
                sums[c] += weight * WEIGHTS[c] * vote
                total[c] += weight * (WEIGHTS[c] * vote + 1 - vote)
    return sums / total


def vote_of_one(bank: np.ndarray, labels: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Weighted votes for the classes [C] where each neighbour has one."""
    cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
    sums = np.zeros(len(WEIGHTS))
    for place in np.argsort(-cosines)[:NEIGHBOURS]:
        sums[labels[place]] += np.exp(cosines[place] / TEMPERATURE) * WEIGHTS[labels[place]]
    return sums


@pytest.mark.parametrize("several", [False, True])
def test_the_vote_is_the_one_counted_by_hand(several: bool) -> None:
    generator = np.random.default_rng(0)
    bank, queries = generator.normal(size=(60, 5)), generator.normal(size=(7, 5))
    if several:
        labels = (generator.random((60, 3)) < 0.4).astype(np.float32)
        labels[::3, 1] = np.nan
        votes = labels
    else:
        labels = generator.integers(0, 3, 60)
        votes = np.eye(3)[labels]
    head = NeighbourVote(60, 5, 3, several=several)
    head.remember(torch.from_numpy(bank), torch.from_numpy(labels), torch.tensor(WEIGHTS))
    logits = head(torch.from_numpy(queries))
    found = (logits.sigmoid() if several else logits.softmax(dim=1)).numpy()
    expected = np.stack([counted(bank, votes, query) for query in queries])
    if not several:  # of one label, a no is a yes to another class
        ones = np.stack([vote_of_one(bank, labels, query) for query in queries])
        expected = ones / ones.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected.clip(1e-4, 1 - 1e-4 if several else 1), atol=1e-3)


def test_an_image_without_a_label_has_no_vote() -> None:
    head = NeighbourVote(2, 2, 2, several=False)
    head.remember(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([-1, 1]), torch.ones(2))
    assert head(torch.tensor([[1.0, 0.0]])).argmax() == 1
