"""What a frozen encoder says of images: computed once for an encoder and its images, and kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msmae.data.opening import cache_folder
from msmae.data.store import ImageStore
from msmae.files import whole
from msmae.inference.bulk import Ranks, wait_for
from msmae.inference.packed import packed
from msmae.method.classifier import heads_of
from msmae.method.vit import VisionTransformer
from msmae.progress import ProgressBar

BATCH = 64
FORMAT = 2
"""Of what is kept in the cache."""


@dataclass(frozen=True)
class Features:
    """Two vectors an image, float32 [n, D] each."""

    image: np.ndarray
    """What stands for the image: the class token, or the mean of the patches where the encoder has none."""
    patches: np.ndarray
    """The mean of the patch tokens."""

    @property
    def both(self) -> np.ndarray:
        """One after the other, [n, 2D]."""
        return np.concatenate([self.image, self.patches], axis=1)

    def take(self, rows: np.ndarray) -> Features:
        """The features of some rows."""
        return Features(self.image[rows], self.patches[rows])


@dataclass(frozen=True)
class Frozen:
    """An encoder that does not learn, and how images in the files' own units reach it."""

    encoder: VisionTransformer
    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        self.encoder.eval()

    @property
    def key(self) -> str:
        """A hash of all that its answers depend on but the images."""
        shape = (self.encoder.grid, self.encoder.reads, heads_of(self.encoder), self.encoder.norm.eps)
        digest = hashlib.sha256(repr((FORMAT, self.mean, self.std, *shape)).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:24]

    @cached_property
    def quick(self) -> VisionTransformer:
        """The encoder with its weights packed for prediction."""
        return packed(self.encoder)

    @torch.inference_mode()
    def tokens(self, images: np.ndarray) -> Tensor:
        """Images [B, C, H, W] in the files' own units -> normalised tokens [B, 1+N, D]."""
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        tokens: Tensor = self.quick((torch.from_numpy(images).float() - mean) / std)
        return tokens


def features_of(frozen: Frozen, store: ImageStore, ids: np.ndarray) -> Features:
    """The features of these images of a store, from the cache where it has them."""

    def compute() -> np.ndarray:
        parts = []
        with ProgressBar("computing features") as bar:
            for start in range(0, len(ids), BATCH):
                tokens = frozen.tokens(store.fetch(ids[start : start + BATCH]))
                parts.append(torch.stack([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1).numpy())
                bar(min(len(ids), start + BATCH), len(ids))
        return np.concatenate(parts).astype(np.float32)  # [n, 2, D]

    known = cached(f"{frozen.key}-{images_key(store, ids)}.npy", compute)
    return Features(known[:, 0], known[:, 1])


def shared_features(frozen: Frozen, store: ImageStore, ids: np.ndarray, ranks: Ranks, out: Path) -> Features | None:
    """``features_of``, shared out over processes, whose shares lie beside ``out`` until the first has joined them; None
    in the others.
    """
    if ranks.world == 1:
        return features_of(frozen, store, ids)
    shares = np.array_split(ids, ranks.world)
    keys = [f"{frozen.key[:12]}{images_key(store, share)[:12]}" for share in shares]
    files = [out.with_name(f".{out.name}.{number}-{key}.npy") for number, key in enumerate(keys)]
    with ranks.together() as together:
        mine = features_of(frozen, store, shares[ranks.rank])
        with whole(files[ranks.rank]) as unfinished, unfinished.open("wb") as stream:
            np.save(stream, np.stack([mine.image, mine.patches], axis=1))
        together()
        if not ranks.first:
            return None
        wait_for(files)
        found = np.concatenate([np.load(file, allow_pickle=False) for file in files])  # [n, 2, D]
        for file in files:
            file.unlink()
    return Features(found[:, 0], found[:, 1])


def tokens_of(frozen: Frozen, store: ImageStore, ids: np.ndarray) -> np.ndarray:
    """All tokens of these images, float16 [n, 1+N, D], mapped from a file of the cache, which is made where missing."""
    shape = (len(ids), 1 + frozen.encoder.patches, frozen.encoder.width)

    def fill(path: Path) -> None:
        written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        with ProgressBar("computing tokens") as bar:
            for start in range(0, len(ids), BATCH):
                rows = ids[start : start + BATCH]
                written[start : start + len(rows)] = frozen.tokens(store.fetch(rows)).half().numpy()
                bar(start + len(rows), len(ids))
        written.flush()

    path = folder() / f"{frozen.key}-{images_key(store, ids)}.tokens.npy"
    if not path.is_file():
        with whole(path) as unfinished:
            fill(unfinished)
    kept: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return kept


def cached(
    name: str, compute: Callable[[], np.ndarray], *, lasts: Callable[[np.ndarray], bool] = lambda made: True
) -> np.ndarray:
    """An array from the cache; where it is missing or damaged it is computed, and kept where it ``lasts``."""
    path = folder() / name
    try:
        known: np.ndarray = np.load(path, allow_pickle=False)
        return known
    except (OSError, ValueError, EOFError):
        made = compute()
    if not lasts(made):
        return made
    with whole(path) as unfinished, unfinished.open("wb") as stream:
        np.save(stream, made)
    return made


def folder() -> Path:
    """Where features are kept."""
    place = cache_folder() / "features"
    place.mkdir(parents=True, exist_ok=True)
    return place


def images_key(store: ImageStore, ids: np.ndarray) -> str:
    """A hash of the pixels of these images."""
    digest = hashlib.sha256(repr((store.images.shape[1:], str(store.images.dtype))).encode())
    for start in range(0, len(ids), 1024):
        digest.update(store.fetch(ids[start : start + 1024]).tobytes())
    return digest.hexdigest()[:24]
