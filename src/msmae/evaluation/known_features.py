"""A probe's answers from the features of its frozen encoder, which the cache has."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from msmae.data.manifest import SPLITS
from msmae.inference.features import Frozen, features_of
from msmae.inference.model import Model
from msmae.training.prepare import Prepared


def known_tokens(model: Model, prepared: Prepared, rows: np.ndarray) -> Tensor | None:
    """Two tokens [n, 2, D] that stand for all of an image's: the class token, and the mean of the patches, which is
    also the mean of itself. None where the model does not answer by these alone."""
    plain = len(model.networks) == 1 and not model.card.mirrored and model.prepared is None
    if not plain or prepared.arm.frozen not in ("linear", "knn") or model.dtype != torch.float32:
        return None
    frozen = Frozen(model.networks[0].encoder, prepared.mean, prepared.std)
    found = np.empty((len(rows), 2, frozen.encoder.width), np.float32)
    left = np.ones(len(rows), dtype=bool)
    for ids in map(prepared.ids, SPLITS):  # as they are kept in the cache
        inside = np.flatnonzero(left & np.isin(rows, ids))
        if len(inside):
            order = np.argsort(ids)
            found[inside] = _read(frozen, prepared, ids)[order[np.searchsorted(ids, rows[inside], sorter=order)]]
            left[inside] = False
    if left.any():
        found[left] = _read(frozen, prepared, rows[left])
    return torch.from_numpy(found).to(model.device)


def _read(frozen: Frozen, prepared: Prepared, ids: np.ndarray) -> np.ndarray:
    features = features_of(frozen, prepared.store, ids)
    return np.stack([features.image, features.patches], axis=1)
