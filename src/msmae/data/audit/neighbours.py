"""Every pair of hashes that lie near each other, without comparing all with all."""

from __future__ import annotations

import numpy as np

from msmae.data.audit.hashing import WORDS, bits_apart

FARTHEST = WORDS - 1
"""The largest distance the search is exact for: hashes that differ in 15 of 256 bits agree in one of 16 words."""

CROWD = 256
"""Hashes that share a word are compared with this many followers at most; only masses of near-equal images reach it."""


def near_pairs(hashes: np.ndarray, *, within: int) -> tuple[np.ndarray, bool]:
    """Pairs of hashes uint16 [n, 16] at most ``within`` bits apart, 0 <= ``within`` <= 15.

    Returns int64 [m, 3], each row (i, j, distance) with i < j, sorted; and whether there was a crowd: more than
    ``CROWD`` hashes with one word in common, of which not all were compared.

    Two hashes at most 15 bits apart have one of their 16 words in common (the pigeonhole principle; multi-index
    hashing: Norouzi, Punjani and Fleet, CVPR 2012). So the hashes are sorted by each word in turn, and only those that
    share it are compared: the work is the sorting, n log n, and the few that share a word of 16 bits by chance.
    """
    if not 0 <= within <= FARTHEST:
        raise ValueError(f"the search is exact from 0 to {FARTHEST} bits, not for {within}")
    found = [np.empty((0, 3), np.int64)]
    crowded = False
    for word in range(WORDS):
        # By this word, and by the next, so that in a crowd the likeliest neighbours stand side by side.
        key = hashes[:, word].astype(np.uint32) << 16 | hashes[:, (word + 1) % WORDS]
        order = np.argsort(key, kind="stable")
        shared = hashes[order, word]
        at = np.arange(len(order))
        for step in range(1, CROWD + 1):
            at = at[: np.searchsorted(at, len(order) - step)]
            at = at[shared[at + step] == shared[at]]
            if len(at) == 0:
                break
            found.append(_near(hashes, order[at], order[at + step], within=within, word=word))
        crowded |= len(at) > 0
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))], crowded


def _near(hashes: np.ndarray, first: np.ndarray, second: np.ndarray, *, within: int, word: int) -> np.ndarray:
    """Of the candidates ``first`` and ``second`` [k], which share ``word``, the near ones: int64 [m, 3]."""
    apart = bits_apart(hashes[first], hashes[second])
    near = apart <= within
    first, second, apart = first[near], second[near], apart[near]
    new = ~(hashes[first, :word] == hashes[second, :word]).any(axis=1)  # no earlier word found them
    ends = np.sort(np.stack([first[new], second[new]], axis=1), axis=1)
    return np.column_stack([ends, apart[new]])
