"""How the audit's search for near-duplicates grows with the number of images: never all pairs.

    python benchmarks/audit_growth.py [--sizes 1000 10000 100000] [--out FILE.json]

Synthetic hashes of 256 bits, a tenth of them copies of others with up to 15 bits turned. Two kinds: *even* ones, whose
bits are independent and fair, and *uneven* ones, whose bits are correlated and unfair as those of real images are (each
hash mixes 40 hidden properties), so that words are shared more often. For every size the search's CPU time, the pairs
it found, whether it found every planted copy, and the time as a multiple of n log n, which should stay level; beside
it the time that comparing all pairs would take, from a measured sample of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from msmae.data.audit.hashing import FARTHEST, bits_apart, near_pairs

HIDDEN = 40
SAMPLE = 2_000_000  # pairs compared to tell what comparing all would cost


def make_hashes(number: int, *, even: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hashes uint16 [n, 16], and the pairs planted among them: int64 [n // 10, 2]."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(HIDDEN, 256))
    shift = generator.normal(scale=0.4 * HIDDEN**0.5, size=256)
    bits = np.empty((number, 256), dtype=np.uint8)
    for start in range(0, number, 10_000):
        rows = slice(start, min(start + 10_000, number))
        size = rows.stop - rows.start
        if even:
            bits[rows] = generator.integers(0, 2, (size, 256))
        else:
            noise = generator.normal(scale=0.5 * HIDDEN**0.5, size=(size, 256))
            bits[rows] = generator.normal(size=(size, HIDDEN)) @ mixing + noise > shift
    order = generator.permutation(number)
    sources, copies = np.sort(order[: number // 10]), np.sort(order[-(number // 10) :])
    bits[copies] = bits[sources]
    for copy in copies:
        bits[copy, generator.choice(256, generator.integers(FARTHEST + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint16), np.sort(np.stack([sources, copies], axis=1), axis=1)


def measure(number: int, *, even: bool) -> dict[str, float | int | bool]:
    """Search once, and time a sample of the comparisons that looking at all pairs would need."""
    hashes, planted = make_hashes(number, even=even)
    start = time.process_time()
    pairs, crowded = near_pairs(hashes, within=FARTHEST)
    seconds = time.process_time() - start
    found = set(map(tuple, pairs[:, :2].tolist()))
    ends = np.random.default_rng(1).integers(0, number, (2, SAMPLE))
    start = time.process_time()
    bits_apart(hashes[ends[0]], hashes[ends[1]])
    each = (time.process_time() - start) / SAMPLE
    return {
        "hashes": number,
        "seconds": round(seconds, 4),
        "ns_per_n_log2_n": round(seconds / (number * np.log2(number)) * 1e9, 1),
        "pairs": len(pairs),
        "planted": len(planted),
        "planted_found": sum(tuple(pair) in found for pair in planted.tolist()),
        "crowded": crowded,
        "all_pairs_seconds": round(each * number * (number - 1) / 2, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    measure(1000, even=True)  # the first call pays for what every later one finds ready
    results = {}
    for kind in ("even", "uneven"):
        results[kind] = [measure(number, even=kind == "even") for number in options.sizes]
        print(f"{kind} bits")
        print(
            f"{'hashes':>9} {'CPU s':>8} {'ns / n log2 n':>14} {'pairs':>8} {'planted found':>16} {'all pairs s':>12}"
        )
        for row in results[kind]:
            found = f"{row['planted_found']}/{row['planted']}"
            print(
                f"{row['hashes']:>9,} {row['seconds']:>8.3f} {row['ns_per_n_log2_n']:>14} {row['pairs']:>8,} "
                f"{found:>16} {row['all_pairs_seconds']:>12,.1f}"
            )
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
