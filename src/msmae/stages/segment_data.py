"""Images with masks, ready for segmentation: what the masks mean, who may lack one, and how long to train."""

from __future__ import annotations

import dataclasses

import numpy as np

from msmae.config import Settings
from msmae.data.manifest import SPLITS, Manifest
from msmae.data.masks import MaskRule
from msmae.errors import UserError
from msmae.stages.prepare import Prepared, decode


def prepare_masks(manifest: Manifest, *, settings: Settings, arm: str, seed: int) -> Prepared:
    """Decode images and masks once, check the masks, and decide the schedule.

    Raises:
        UserError: an image cannot be read, has no mask, or one with unexpected values (all are named, or left out under
            ``dataset.on_error=skip``); a class has no pixel in the training masks; a split is empty.
    """
    wanted = settings.segment
    rule = MaskRule(
        classes=len(wanted.class_names), any_value=wanted.mask_values == "any", healthy=healthy_rows(manifest, settings)
    )
    if rule.healthy:
        print(f"- {len(rule.healthy)} images without a mask are of a class where there is nothing to outline")
    prepared = decode(manifest, settings=settings, method=arm, seed=seed, rule=rule)
    if prepared.store.masks is None:
        raise UserError("the data has no masks", where=str(manifest.root), mend="add a mask_path column")
    for split in SPLITS:
        if not len(prepared.ids(split, labelled=False)):
            raise UserError(f"no image of the {split} split can be used", where=str(manifest.root), mend="add some")
    check_values(prepared)
    epochs = wanted.epochs or max(1, round(wanted.presentations / len(prepared.ids("train", labelled=False))))
    chosen = dataclasses.replace(prepared.settings, segment=dataclasses.replace(wanted, epochs=epochs))
    return dataclasses.replace(prepared, settings=chosen)


def healthy_rows(manifest: Manifest, settings: Settings) -> frozenset[int]:
    """The images without a mask whose label says that there is nothing to outline."""
    names = {name.strip().lower() for name in settings.segment.healthy.split(",")} - {""}
    table = manifest.table
    rows = (table["mask_path"] == "") & table["label"].str.lower().isin(names)
    return frozenset(np.flatnonzero(rows.to_numpy()).tolist())


def check_values(prepared: Prepared) -> None:
    """Whether the masks speak of the same classes, and training shows each; notes on empty and full masks."""
    names = prepared.settings.segment.class_names
    ids = np.concatenate([prepared.ids(split, labelled=False) for split in SPLITS])
    train = set(prepared.ids("train", labelled=False).tolist())
    found: set[int] = set()
    learned: set[int] = set()
    empty = full = 0
    for start in range(0, len(ids), 512):
        rows = ids[start : start + 512]
        for row, mask in zip(rows.tolist(), prepared.store.fetch_masks(rows), strict=True):
            values = set(np.unique(mask).tolist())
            found |= values
            learned |= values if row in train else set()
            empty, full = empty + (values == {0}), full + (0 not in values)
    if len(names) == 1 and len(found - {0}) > 1:
        raise UserError(
            f"the masks hold the values {', '.join(map(str, sorted(found)))}, and one class needs one value beside 0",
            where=str(prepared.manifest.root),
            mend="name the classes with --segment.classes a,b,..., or say --segment.mask_values any: above 0 is inside",
        )
    numbers = range(1, len(names) + 1)
    unseen = [
        name
        for name, n in zip(names, numbers, strict=True)
        if (n not in learned if len(names) > 1 else not learned - {0})
    ]
    if unseen:
        raise UserError(
            f"no training mask shows {', '.join(unseen)}",
            where=str(prepared.manifest.root),
            mend="give every class training images, or leave it out of --segment.classes",
        )
    if empty or full:
        print(f"- {empty} of {len(ids)} masks are empty, {full} cover the whole image")


def class_masks(prepared: Prepared, ids: np.ndarray) -> np.ndarray:
    """Masks [B, H, W] of class numbers, 0 the background; of one class 0 and 1."""
    masks = prepared.store.fetch_masks(ids)
    return (masks > 0).astype(np.uint8) if len(prepared.settings.segment.class_names) == 1 else masks
