"""From how many bits on two hashes are no longer the same picture: decided by the data at hand, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmae.data.audit.hashing import bits_apart
from msmae.data.audit.neighbours import FARTHEST
from msmae.errors import count

BITS = 256
USUAL = 6
"""Bits allowed at least: what JPEG alone moves in any kind of image."""
COVERED = 0.99
"""Share of re-saved pictures that should still be recognised."""
EXPECTED_BY_CHANCE = 0.01
"""Pairs of different pictures, in the whole data set, that chance may bring within the threshold."""
SAMPLED_PAIRS = 100_000
ENOUGH_PAIRS = 100


@dataclass(frozen=True)
class Threshold:
    """Pictures at most ``bits`` of 256 bits apart are near-duplicates; ``reason`` says why, in a sentence."""

    bits: int
    reason: str
    resaved: int | None
    """Bits that 99 % of re-saved pictures stay within; None where none could be tried."""
    typical: int | None
    """Median distance of two different pictures; None where there are too few."""
    chance: int | None
    """The most bits at which chance alone should bring no two pictures of this data set together; -1 for none."""
    widest: int
    """What a repair keeps together, so that no later audit, with fewer images to decide from, counts a pair as near."""


def choose_threshold(hashes: np.ndarray, resaved: np.ndarray) -> Threshold:
    """Choose from the data's own distances: hashes uint16 [n, 16] of different pictures, ``resaved`` [k] distances.

    Far enough to recognise 99 % of this data set's pictures when they are saved again; but not so far that two
    different pictures come together by chance, and no farther than the search is exact. The chance is taken from the
    distances of pairs drawn at random, as if each were the heads of as many tosses of a coin as give this median and
    spread (after Daugman, Pattern Recognition 36, 2003, on codes of the iris). Images with few independent bits lie
    nearer each other by nature, and so get a stricter threshold.
    """
    limit, typical = _chance_limit(hashes)
    known = resaved[resaved >= 0]
    moved = int(np.ceil(np.quantile(known, COVERED))) if len(known) else None
    bits = min(FARTHEST, max(USUAL, moved or 0))
    bits = bits if limit is None else min(bits, limit)
    widest = FARTHEST if limit is None else min(FARTHEST, limit + 1)
    return Threshold(bits, _reason(bits, moved, known, limit, typical), moved, typical, limit, widest)


def given_threshold(bits: int) -> Threshold:
    """The threshold a person asked for."""
    return Threshold(bits, f"{_same(bits)}, as asked", None, None, None, bits)


def _chance_limit(hashes: np.ndarray) -> tuple[int | None, int | None]:
    """The largest distance at which chance should bring no pair together (-1: not even 0), and the median distance."""
    from scipy.special import betainc

    n = len(hashes)
    pairs = n * (n - 1) // 2
    if pairs < ENOUGH_PAIRS:
        return None, None
    generator = np.random.default_rng(0)
    first = generator.integers(0, n, SAMPLED_PAIRS)
    second = (first + generator.integers(1, n, SAMPLED_PAIRS)) % n
    apart = bits_apart(hashes[first], hashes[second])
    quarter, median = np.quantile(apart, [0.25, 0.5])
    if median <= FARTHEST:
        return -1, int(median)
    spread = max(float(median - quarter) / 0.6745, 1.0)  # of a normal distribution, from its lower half
    tosses = (median / spread) ** 2  # of a fair coin: mean tosses / 2, standard deviation sqrt(tosses) / 2
    heads = np.arange(FARTHEST + 1) * tosses / (2 * median)
    by_chance = pairs * betainc(tosses - heads, heads + 1, 0.5)  # the binomial distribution function
    return int((by_chance <= EXPECTED_BY_CHANCE).sum()) - 1, int(median)


def _reason(bits: int, moved: int | None, known: np.ndarray, limit: int | None, typical: int | None) -> str:
    pieces = []
    if moved is not None:
        pieces.append(
            f"Of {count(len(known), 'image')} saved again (as JPEG, smaller, brighter), {100 * COVERED:.0f} % changed "
            f"in at most {count(moved, 'bit')}"
        )
    if limit is not None:
        by_chance = f". By chance, no two are expected to differ in {limit} or fewer" if limit >= 0 else ""
        pieces.append(f"Two different images usually differ in {count(typical or 0, 'bit')}{by_chance}")
    if moved is not None and 0 <= bits < moved:
        pieces.append(f"{100 * float((known > bits).mean()):.0f} % of the images saved again changed more: not found")
    if bits < 0:
        return ". ".join(["none, because different images are as alike here as copies are", *pieces])
    return ". ".join([_same(bits), *(pieces or ["This is the usual limit, for want of images"])])


def _same(bits: int) -> str:
    return f"two images whose {BITS}-bit hashes differ in at most {count(bits, 'bit')}"
