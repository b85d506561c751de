"""Has a ratio fallen? ``make bench-check``: measures what is recorded for this kind of machine, and compares.

    python benchmarks/check.py [--record]

Ratios only, never times: shares of the machine's matrix products, and what one way of working gains over another. One
that is more than 10 % below what is recorded is measured once more, and fails if it is low again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from msmae.bench.turns import Row
from msmae.verbs.bench import bench

RECORDED = Path(__file__).parent / "recorded" / "ratios.json"
ALLOWED = 0.9
NAMES = ("step", "refresh", "inference", "fine-tuning at", "pre-training in")


def measure() -> dict[str, Row]:
    """The rows with ratios, by name."""
    rows = bench(cases=["cpu"], device="cpu", rounds=7)
    steady = (row for row in rows if row.ratio is not None and "loading" not in row.name)
    return {row.name: row for row in steady if any(word in row.name for word in NAMES)}


def fallen(rows: dict[str, Row], recorded: dict[str, float]) -> list[str]:
    """Names of the ratios that are more than 10 % below the recorded ones."""
    return [name for name, row in rows.items() if (row.ratio or 0.0) < ALLOWED * recorded.get(name, 0.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write what is measured as this machine's record")
    options = parser.parse_args()
    records = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {}
    rows = measure()
    device = next(iter(rows.values())).device
    if options.record:
        records[device] = {name: float(f"{row.ratio:.3g}") for name, row in rows.items()}
        RECORDED.write_text(json.dumps(records, indent=1) + "\n")
        return
    if device not in records:
        sys.exit(f"nothing is recorded for {device}; record it with: python benchmarks/check.py --record")
    low = fallen(rows, records[device])
    if low:
        print("\nlow; once more:")
        low = [name for name in fallen(measure(), records[device]) if name in low]
    for name in low:
        print(f"fallen by more than 10 %: {name} (recorded {records[device][name]})")
    sys.exit(1 if low else 0)


if __name__ == "__main__":
    main()
