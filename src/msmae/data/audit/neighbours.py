"""Which of many hashes lie near each other, without comparing each with each."""

from __future__ import annotations

import numpy as np

from msmae.data.audit.hashing import WORDS

FARTHEST = WORDS - 1
"""The largest distance the search is exact for."""

CROWD = 256
"""Hashes that share a word are compared with this many followers at most; only masses of near-equal images reach it."""

PARTNER = np.arange(WORDS) ^ 1
"""Words go in pairs: 0 and 1, 2 and 3, ..."""


def near_pairs(hashes: np.ndarray, *, within: int) -> tuple[np.ndarray, bool]:
    """Pairs of hashes uint16 [n, 16] at most ``within`` bits apart, 0 <= ``within`` <= 15.

    Returns int64 [m, 3], each row (i, j, distance) with i < j, sorted; and whether there was a crowd: more than
    ``CROWD`` hashes with one word in common, of which not all were compared.

    Two hashes at most 15 bits apart differ in at most one bit in one of the 8 pairs of their 16 words, by the
    pigeonhole principle: they share a word, and its partner but for one bit (multi-index hashing: Norouzi, Punjani and
    Fleet, CVPR 2012). So the hashes are sorted by each word in turn, those that share it are looked at by its partner,
    and the few that remain are compared. The work is the sorting, n log n, and a glance at what shares a word of 16
    bits by chance.
    """
    if not 0 <= within <= FARTHEST:
        raise ValueError(f"the search is exact from 0 to {FARTHEST} bits, not for {within}")
    found = [np.empty((0, 3), np.int64)]
    crowded = False
    for word in range(WORDS):
        # In a crowd the partner puts the likeliest neighbours side by side.
        key = hashes[:, word].astype(np.uint32) << 16 | hashes[:, PARTNER[word]]
        order = np.argsort(key, kind="stable")
        shared, partner = hashes[order, word], hashes[order, PARTNER[word]]
        at = np.arange(len(order))
        for step in range(1, CROWD + 2):
            at = at[: np.searchsorted(at, len(order) - step)]
            at = at[shared[at + step] == shared[at]]
            if len(at) == 0 or step > CROWD:
                break
            likely = at[np.bitwise_count(partner[at + step] ^ partner[at]) <= 1]
            found.append(_near(hashes, order[likely], order[likely + step], within=within, word=word))
        crowded |= len(at) > 0
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))], crowded


def _near(hashes: np.ndarray, first: np.ndarray, second: np.ndarray, *, within: int, word: int) -> np.ndarray:
    """Of the candidates ``first`` and ``second`` [k], which ``word`` brought together, the near ones: int64 [m, 3]."""
    apart = np.bitwise_count(hashes[first] ^ hashes[second])  # [k, 16]
    distance = apart.sum(axis=1, dtype=np.int64)
    finds = (apart == 0) & (apart[:, PARTNER] <= 1)  # the words that bring this pair together
    kept = (distance <= within) & (finds.argmax(axis=1) == word)  # by the first of them only
    ends = np.sort(np.stack([first[kept], second[kept]], axis=1))
    return np.column_stack([ends, distance[kept]])
