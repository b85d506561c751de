"""The patient-clustered bootstrap: whole patients are drawn, because images of one patient are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from msmae.evidence.metrics import Metrics, Values

WORKING_SET = 2**22  # weights held at a time; a chunk's temporaries are a small multiple of 32 MB
JACKKNIFE_GROUPS = 200


def bootstrap(metrics: Metrics, *, resamples: int, seed: int) -> Values:
    """Metrics of ``resamples`` draws of all patients with replacement; the same seed gives the same draws, to the
    bit.
    """
    draws = draw_patients(metrics.patients, width=metrics.width, resamples=resamples, seed=seed)
    return join([metrics(weights) for weights in draws])


def jackknife(metrics: Metrics, *, seed: int) -> Values:
    """Metrics with groups of patients left out: see `leave_out`."""
    return join([metrics(weights) for weights in leave_out(metrics.patients, width=metrics.width, seed=seed)])


def draw_patients(patients: int, *, width: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each patient was drawn, float64 [r, P], in chunks that add up to ``resamples`` rows of sum P.

    ``width`` is how many numbers one row touches at a time (images x classes); it only bounds the memory.
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, WORKING_SET // max(patients, width)))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = generator.integers(patients, size=(rows, patients)) + np.arange(rows)[:, None] * patients
        yield np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients).astype(np.float64)


def leave_out(patients: int, *, width: int, seed: int) -> Iterator[np.ndarray]:
    """Weights 0 for a patient left out and 1 for the others, [g, P]: each patient in turn, or each of 200 random
    groups.

    Used for the acceleration of the BCa interval only, which estimates the same number from groups as from single
    patients.
    """
    groups = min(patients, JACKKNIFE_GROUPS)
    group = np.random.default_rng(seed).permutation(np.arange(patients) % groups)
    chunk = max(1, WORKING_SET // max(patients, width))
    for start in range(0, groups, chunk):
        left_out = np.arange(start, min(start + chunk, groups))
        yield (group[None, :] != left_out[:, None]).astype(np.float64)


def join(parts: Sequence[Values]) -> Values:
    """Chunks of weightings, one after the other."""
    return Values(
        overall={name: np.concatenate([part.overall[name] for part in parts]) for name in parts[0].overall},
        per_class={name: np.concatenate([part.per_class[name] for part in parts]) for name in parts[0].per_class},
    )
