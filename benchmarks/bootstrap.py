"""Time and memory of the evidence: 2,000 resamples of 10,000 images x 7 classes, every metric with its interval.

    python benchmarks/bootstrap.py

Target: at most 20 s on 2 cores and under 1 GiB.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import pandas as pd

from msmae.statistics.summary import summarise

CLASSES = tuple(f"class {c}" for c in range(7))


def main() -> None:
    for patients in (10_000, 5_000, 1_000):
        frame = simulate(patients, images=10_000)
        began = time.perf_counter()
        summarise(frame, classes=CLASSES, resamples=2000)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"10,000 images of {patients:6,} patients: {seconds:5.1f} s, peak of the process {peak:,.0f} MiB")


def simulate(patients: int, *, images: int) -> pd.DataFrame:
    """Predictions of a fair model; the images of a patient share their class."""
    generator = np.random.default_rng(0)
    who = np.sort(generator.integers(patients, size=images))
    truth = generator.integers(len(CLASSES), size=patients)[who]
    odds = np.exp(generator.normal(size=(images, len(CLASSES))) + 1.5 * np.eye(len(CLASSES))[truth])
    shares = odds / odds.sum(axis=1, keepdims=True)
    names = np.array(CLASSES, dtype=object)
    return pd.DataFrame(
        {
            "image_path": [f"{i:05}.png" for i in range(images)],
            "patient_id": [f"p{p:05}" for p in who],
            "split": "test",
            "label": names[truth],
            "predicted": names[shares.argmax(axis=1)],
            **{f"prob_{name}": shares[:, c] for c, name in enumerate(CLASSES)},
        }
    )


if __name__ == "__main__":
    main()
