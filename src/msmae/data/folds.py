"""Cross-validation as files: a manifest a fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msmae.data.manifest import SPLITS, Manifest
from msmae.data.splits import make_folds
from msmae.errors import UserError, count


def name_folds(out: str | None, *, folds: int, repeats: int) -> list[Path]:
    """``OUT/fold-1.csv``, ... or, repeated, ``OUT/repeat-1-fold-1.csv``, ...

    Raises ``UserError`` without a folder, and for fewer than two folds or no repeat.
    """
    if out is None:
        raise UserError("the folds need a folder to be written to", where="--folds", mend="add --out DIR")
    if folds < 2 or repeats < 1:
        raise UserError(
            f"{count(folds, 'fold')}, {count(repeats, 'repeat')}",
            where="--folds, --repeats",
            mend="at least 2 folds and 1 repeat",
        )
    starts = [f"repeat-{repeat + 1}-" if repeats > 1 else "" for repeat in range(repeats)]
    return [Path(out) / f"{start}fold-{fold + 1}.csv" for start in starts for fold in range(folds)]


def write_folds(
    manifest: Manifest,
    paths: Sequence[Path],
    *,
    folds: int,
    repeats: int,
    val_fraction: float,
    seed: int,
    groups: Sequence[str],
) -> list[dict[str, Any]]:
    """Write the folds, and return for each its file and its images by split.

    ``groups`` [n] names what no fold parts (see ``keep_together``); the splits that the manifest has are set aside.
    """
    manifests = make_folds(manifest, folds=folds, repeats=repeats, val_fraction=val_fraction, seed=seed, groups=groups)
    for path, fold in zip(paths, manifests, strict=True):
        fold.write(path)
    return [
        {"manifest": str(path), **{split: len(fold.ids(split)) for split in SPLITS}}
        for path, fold in zip(paths, manifests, strict=True)
    ]
