"""Images with masks, ready for segmentation: what the masks mean, who may lack one, and how long to train."""

from __future__ import annotations

import dataclasses

import numpy as np

from msmae.config import Settings
from msmae.data.manifest import SPLITS, Manifest
from msmae.data.obstacles import mask_obstacles, stop_on
from msmae.data.reading.checks import by
from msmae.data.reading.masks import MaskRule, split_layers
from msmae.data.tables.listing import count, some
from msmae.encoders.weights import Weights
from msmae.errors import UserError
from msmae.training.prepare import Prepared, decode


def prepare_masks(
    manifest: Manifest, *, settings: Settings, arm: str, seed: int, start: Weights | None = None
) -> Prepared:
    """Decode images and masks once, check the masks, and decide the schedule.

    Raises:
        UserError: an image cannot be read, has no mask, or one with unexpected values (all are named, or left out under
            ``dataset.on_error=skip``); a class has no pixel in the training masks; a split is empty.
    """
    settings = name_classes(manifest, settings)
    wanted = settings.segment
    rule = MaskRule(
        classes=len(wanted.class_names),
        any_value=wanted.mask_values == "any",
        healthy=healthy_rows(manifest, settings),
        layers=wanted.class_names if manifest.mask_classes else (),
    )
    if rule.healthy:
        print(f"- without a mask, of a class where there is nothing to outline: {count(len(rule.healthy), 'image')}")
    prepared = decode(manifest, settings=settings, method=arm, seed=seed, rule=rule, start=start)
    for split in SPLITS:
        if not len(prepared.ids(split, labelled=False)):
            raise UserError(f"no image of the {split} split can be used", where=manifest.where, mend="add some")
    check_values(prepared)
    epochs = wanted.epochs or max(1, round(wanted.presentations / len(prepared.ids("train", labelled=False))))
    chosen = dataclasses.replace(prepared.settings, segment=dataclasses.replace(wanted, epochs=epochs))
    return dataclasses.replace(prepared, settings=chosen)


def check_masks(manifest: Manifest) -> None:
    """Raise ``UserError`` where no image has a mask."""
    stop_on(mask_obstacles(manifest, skip=True))


def left_out(prepared: Prepared) -> list[str]:
    """A sentence for each split that images of it were left out of (``dataset.on_error=skip``), with their names."""
    table, excluded = prepared.manifest.table, prepared.store.excluded
    found = []
    for split in SPLITS:
        rows = [row for row in sorted(excluded) if table.at[row, "split"] == split]
        if rows:
            told = some([f"{table['image_path'][row]!s} ({excluded[row]})" for row in rows])
            found.append(f"{count(len(rows), 'image')} of the {split} split left out: {told}")
    return found


def name_classes(manifest: Manifest, settings: Settings) -> Settings:
    """The settings with the classes that the masks are named with (``disc=1.png``), where they are.

    Raises:
        UserError: some masks name a class and others none, or the names are not those of ``segment.classes``.
    """
    named = manifest.mask_classes
    if not named:
        return settings
    plain = [i for i in range(len(manifest)) if any(name == "" for name, _ in manifest.masks(i))]
    if plain:
        raise UserError(
            f"{count(len(plain), 'image')} with a mask that names no class, where others name {', '.join(named)}",
            where=str(manifest.path(plain[0])),
            mend="write every mask as class=file",
        )
    wanted = settings.segment.class_names if settings.segment.classes else named
    if set(wanted) != set(named):
        raise UserError(
            f"the masks are of {', '.join(named)}, and segment.classes names {', '.join(wanted)}",
            where=manifest.where,
            mend="name the same, or none",
        )
    return dataclasses.replace(settings, segment=dataclasses.replace(settings.segment, classes=",".join(wanted)))


def healthy_rows(manifest: Manifest, settings: Settings) -> frozenset[int]:
    """The images without a mask whose label says that there is nothing to outline."""
    names = {name.strip().lower() for name in settings.segment.healthy.split(",")} - {""}
    table = manifest.table
    rows = (table["mask_path"] == "") & table["label"].str.lower().isin(names)
    return frozenset(np.flatnonzero(rows.to_numpy()).tolist())


def check_values(prepared: Prepared) -> None:
    """Whether the masks speak of the same classes, and training shows each; notes on masks with nothing, with all and,
    at the model's size, with a single pixel inside."""
    names, table = prepared.settings.segment.class_names, prepared.manifest.table
    ids = np.concatenate([prepared.ids(split, labelled=False) for split in SPLITS])
    train = prepared.ids("train", labelled=False)
    first: dict[int, int] = {}  # number in the masks -> the first sample that has it
    learned = np.zeros(len(names), dtype=bool)
    empty, tiny, full = 0, 0, []
    for start in range(0, len(ids), 512):
        rows = ids[start : start + 512]
        masks = prepared.store.fetch_masks(rows)
        for number in set(np.unique(masks).tolist()) - first.keys():
            first[number] = int(rows[(masks == number).any(axis=(1, 2)).argmax()])
        layers = to_layers(prepared, masks)  # [B, C, H, W]
        inside = layers.any(axis=1).reshape(len(rows), -1)
        empty += int((~inside.any(axis=1)).sum())
        tiny += int((layers.sum(axis=(2, 3)) == 1).any(axis=1).sum())
        full += rows[inside.all(axis=1)].tolist()
        learned |= layers[np.isin(rows, train)].any(axis=(0, 2, 3))
    where = prepared.manifest.where
    if len(names) == 1 and len(first.keys() - {0}) > 1:
        seen_in = [
            f"{number} first for {table['image_path'][row]!s}" for number, row in sorted(first.items()) if number
        ]
        raise UserError(
            f"the masks hold the values {', '.join(map(str, sorted(first)))}, and one class needs one value beside 0",
            where=f"{where}: {some(seen_in)}",
            mend="name the classes with --segment.classes a,b,..., or say --segment.mask_values any: above 0 is inside",
        )
    unseen = [name for name, seen in zip(names, learned, strict=True) if not seen]
    if unseen:
        raise UserError(
            f"no training mask shows {', '.join(unseen)}",
            where=where,
            mend="give every class training images, or leave it out of --segment.classes",
        )
    for name in names if prepared.manifest.mask_classes else ():
        without = sum(name not in {of for of, _ in prepared.manifest.masks(row)} for row in ids.tolist())
        if without:
            print(f"- without a mask of {name}, read as showing none: {without} of {count(len(ids), 'image')}")
    if empty:
        print(f"- empty: {empty} of {count(len(ids), 'mask')}")
    if tiny:
        seen = f"{by(prepared.image_size)} px, at which images are seen and measured"
        print(
            f"- a class of one pixel or less at {seen}: in {tiny} of {count(len(ids), 'mask')} "
            "(--model.image_size sets another size)"
        )
    if full:
        print(f"- {len(full)} of {len(ids)} masks cover the whole image: {some(list(table.loc[full, 'image_path']))}")


def to_layers(prepared: Prepared, masks: np.ndarray) -> np.ndarray:
    """Masks [B, H, W] as the store holds them -> bool [B, classes, H, W]."""
    overlapping = bool(prepared.manifest.mask_classes)
    return split_layers(masks, len(prepared.settings.segment.class_names), overlapping=overlapping)


def class_layers(prepared: Prepared, ids: np.ndarray) -> np.ndarray:
    """Where each class is in the masks of these samples, bool [B, classes, H, W]."""
    return to_layers(prepared, prepared.store.fetch_masks(ids))
