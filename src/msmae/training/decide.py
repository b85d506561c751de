"""What the images decide of the settings: the order of the classes, and the size and the patches they are seen at."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from msmae.config import Settings, check_patch_size
from msmae.data.manifest import Manifest
from msmae.data.opening import reading_of
from msmae.data.reading.checks import by
from msmae.data.reading.decoding import image_sources
from msmae.data.reading.images import Reading, read_source
from msmae.encoders.weights import Weights
from msmae.errors import UserError
from msmae.training.start import size_from

LOSES_DETAIL = 1.5
"""How many times smaller than in the files an image must be seen for the start to say so."""


def decide_order(settings: Settings, manifest: Manifest) -> Settings:
    """Whether the classes are grades, where that is open: those of Messidor-2 and RetinaMNIST are."""
    if settings.dataset.ordinal is not None:
        return settings
    retina = manifest.layout == "medmnist" and str(manifest.table["image_path"].iloc[0]).startswith("retinamnist")
    graded = (manifest.layout == "messidor2" or retina) and not manifest.multilabel
    return dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, ordinal=graded))


def decide_model(settings: Settings, manifest: Manifest, *, start: Weights | None = None) -> Settings:
    """Fill in image size and patch size where they are open."""
    model = settings.model
    sizes = sampled_sizes(manifest, reading_of(settings))
    size = (model.image_size, model.image_size) if isinstance(model.image_size, int) else model.image_size
    if size is None and start is not None:
        size = size_from(sizes, limit=model.image_limit, patch=start.spec.patch_size)
    elif size is None:
        alike = len(set(sizes)) == 1 and max(sizes[0]) <= model.image_limit
        size = sizes[0] if alike else (model.image_limit, model.image_limit)
    patch = model.patch_size or (4 if max(size) <= 40 else 8 if max(size) <= 128 else 16)
    largest = max(min(s) for s in sizes)
    if largest < patch:  # a single small image is for the store to name, or to leave out
        raise UserError(
            f"the images are at most {largest} px small, less than one patch of {patch} px",
            where=manifest.where,
            mend="set a smaller model.patch_size",
        )
    if model.image_size is None:
        whole = (max(1, size[0] // patch) * patch, max(1, size[1] // patch) * patch)
        if whole != size == sizes[0]:
            print(f"- images of {by(size)} px are resized to {by(whole)}, a multiple of the patch ({patch} px)")
        own = int(np.median([max(one) for one in sizes]))
        if own >= LOSES_DETAIL * max(whole):
            print(f"- images of about {own} px are resized to {by(whole)}: --model.image_size sets another size")
        size = whole
    check_patch_size(size, patch)
    patches = (size[0] // patch) * (size[1] // patch)
    if patches < 4:  # a quarter kept, and something to reconstruct
        raise UserError(
            f"images of {size[0]} x {size[1]} px make only {patches} patches of {patch} px",
            where="model.patch_size",
            mend="set a smaller patch size or a larger image size",
        )
    return dataclasses.replace(settings, model=dataclasses.replace(model, image_size=size, patch_size=patch))


def sampled_sizes(manifest: Manifest, reading: Reading) -> list[tuple[int, int]]:
    """(height, width) of some images, evenly taken from the table; those that cannot be read are passed over here."""
    return sampled(manifest, reading)[0]


def sampled(manifest: Manifest, reading: Reading, count: int = 24) -> tuple[list[tuple[int, int]], float]:
    """``sampled_sizes``, and the seconds that reading one of these images takes."""
    sources = image_sources(manifest)
    sizes = []
    problem = ""
    began = time.perf_counter()
    for i in np.unique(np.linspace(0, len(sources) - 1, count).astype(int)):
        try:
            array = read_source(sources[i], reading=reading)
        except UserError as error:
            problem = problem or str(error)
            continue  # the store names every unreadable file
        sizes.append((array.shape[-2], array.shape[-1]))
    if not sizes:
        raise UserError(
            f"none of the images that were tried can be read; the first: {problem}",
            where=manifest.where,
            mend="`msmae check` names them all",
        )
    return sizes, (time.perf_counter() - began) / len(sizes)
