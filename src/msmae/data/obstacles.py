"""What keeps a model from being trained on a data set: a run stops at the first, `msmae check` names them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msmae.config import ARMS, Settings
from msmae.data.audit import Audit
from msmae.data.manifest import SPLITS, Manifest
from msmae.data.reading.decoding import agreed_channels, image_sources
from msmae.data.reading.masks import MaskRule, read_mask
from msmae.data.tables.listing import count, some
from msmae.errors import UserError

LABEL_FREE = f"--method {' or '.join(name for name, arm in ARMS.items() if arm.pretrains and arm.label_weight == 0)}"
WITHOUT_LABELS = f"`msmae pretrain` with {LABEL_FREE} needs none"


@dataclass(frozen=True)
class Labelled:
    """The images of each split that have a label and can be read."""

    manifest: Manifest
    targets: np.ndarray
    """As ``Manifest.targets`` gives them: [n] or [n, C]."""
    ids: dict[str, np.ndarray]
    """Split -> sample ids."""

    @classmethod
    def of(cls, manifest: Manifest, unreadable: Collection[int]) -> Labelled:
        targets = manifest.targets()
        known = targets >= 0 if targets.ndim == 1 else ~np.isnan(targets).all(axis=1)
        known[list(unreadable)] = False
        ids = {split: manifest.ids(split) for split in SPLITS}
        return cls(manifest, targets, {split: those[known[those]] for split, those in ids.items()})

    def lacks(self, split: str) -> list[str]:
        """The classes of which a split has no image."""
        targets = self.targets[self.ids[split]]
        there = [(targets == c) if targets.ndim == 1 else targets[:, c] == 1 for c in range(len(self.manifest.classes))]
        return [name for name, rows in zip(self.manifest.classes, there, strict=True) if not rows.any()]


def label_obstacles(labelled: Labelled) -> Iterator[UserError]:
    """No training image has a label; or none of a split by which something is chosen or tested."""
    manifest = labelled.manifest
    if not len(labelled.ids["train"]):
        yield UserError("no training image has a label", where=manifest.where, mend=f"add labels; {WITHOUT_LABELS}")
        return
    for split in ("val", "test"):
        if not len(labelled.ids[split]) and len(manifest.ids(split)):
            yield UserError(
                f"no image of the {split} split has a label",
                where=manifest.where,
                mend="label them, or leave them out: `msmae predict` is for images without labels",
            )


def class_obstacles(labelled: Labelled) -> Iterator[UserError]:
    """There is a single class, or one without a training image."""
    manifest = labelled.manifest
    if len(manifest.classes) == 1:  # whatever the splits
        yield UserError(
            f"there is only one class, '{manifest.classes[0]}'",
            where=manifest.where,
            mend="add images of another class; `msmae pretrain --method mae` needs no labels (or --label-column '')",
        )
    elif absent := labelled.lacks("train"):
        mend = "give every class training images, or leave the class out"
        yield UserError(f"no training image of {some(absent)}", where=manifest.where, mend=mend)


def early_obstacles(manifest: Manifest) -> Iterator[UserError]:
    """Those that show before an image is read: no label, one class; of data with splits of its own, what one lacks."""
    splits = set(manifest.table["split"])
    if not manifest.classes or {"train", "val", "test"} == splits:
        yield from label_obstacles(Labelled.of(manifest, ()))
    if len(manifest.classes) == 1 or {"train", "val", "test"} == splits:
        yield from class_obstacles(Labelled.of(manifest, ()))


def mask_obstacles(manifest: Manifest, *, healthy: str = "", skip: bool = False) -> Iterator[UserError]:
    """No image has a mask; or some have none and their class is not one of ``healthy`` (``a,b``)."""
    masks, labels = manifest.table["mask_path"], manifest.table["label"].str.lower()
    lacking = int(((masks == "") & ~labels.isin({name.strip().lower() for name in healthy.split(",")} - {""})).sum())
    if not masks.any():
        mend = "lay a_mask.png beside a.png, or masks/a.png beside images/a.png; a table names them in mask_path"
        yield UserError("the data has no masks", where=manifest.where, mend=mend)
    elif lacking and not skip:
        mend = "give each a mask (black: nothing to outline); or leave them out with --on-error skip"
        yield UserError(f"{count(lacking, 'image')} without a mask", where=manifest.where, mend=mend)


def mask_value_obstacles(manifest: Manifest, settings: Settings, *, first: int = 8) -> Iterator[UserError]:
    """The numbers in one of the first masks are no class that the settings name; all masks are read in training."""
    wanted = settings.segment
    rule = MaskRule(len(wanted.class_names), any_value=wanted.mask_values == "any")
    rows = np.flatnonzero(manifest.table["mask_path"] != "")[:first]
    if not len(rows) or manifest.mask_classes:
        return
    masked = manifest.select(rows)
    for row, source in enumerate(image_sources(masked)):
        try:
            read_mask(masked.masks(row), rule, image=source.path, plane=source.plane)
        except UserError as error:
            yield error
            return


def file_obstacles(audit: Audit, *, skip: bool = False) -> Iterator[UserError]:
    """Images that cannot be read, masks that cannot be used, numbers of another type, channels that do not fit. A run
    finds them when it decodes the images; under ``skip`` (``dataset.on_error``) it leaves out all but the last.
    """
    lines = [why for name in ("unreadable", "mask_problems") for _, why in audit.details[name]]
    lines += [f"{image} holds {what}" for image, what in audit.details["other_numbers"]]
    if lines and not (skip and audit.unreadable < audit.images):
        mend = "mend or remove what audit.json names (--out DIR), or leave it out of the run with --on-error skip"
        yield UserError(
            f"{count(len(lines), 'image')} cannot be used{', the first' if len(lines) > 1 else ''}: {lines[0]}",
            mend=mend,
        )
    try:
        agreed_channels([channels for channels, _ in audit.details["channels"]])
    except UserError as error:
        yield error


def obstacles_of(
    manifest: Manifest,
    audit: Audit,
    unreadable: Collection[int],
    *,
    settings: Settings,
    unsplit: Sequence[UserError] = (),
) -> dict[str, list[UserError]]:
    """Each verb that trains -> all that it would stop at in the data, in that order; nothing where it trains.

    ``unsplit``: why splits could not be cut.
    """
    skip = settings.dataset.on_error == "skip"
    files = [*unsplit, *file_obstacles(audit, skip=skip)]
    none_read = audit.unreadable == audit.images  # which is one reason, and not one of labels and classes too
    labelled = Labelled.of(manifest, () if none_read else unreadable)
    classes = [] if unsplit else list(class_obstacles(labelled))
    return {
        "run": files + ([] if unsplit else [*label_obstacles(labelled), *classes]),
        "segment": [
            *files,
            *mask_obstacles(manifest, healthy=settings.segment.healthy, skip=skip),
            *mask_value_obstacles(manifest, settings),
        ],
        "pretrain": files + classes,
    }


def made_for(manifest: Manifest) -> str:
    """The verb that data of this kind is for: ``run`` where there are classes; of one class or none, ``segment`` where
    there are masks; of no class, ``pretrain``."""
    if len(manifest.classes) < 2 and manifest.table["mask_path"].any():
        return "segment"
    return "run" if manifest.classes else "pretrain"


def stop_on(obstacles: Iterable[UserError]) -> None:
    """Raise ``UserError`` for what keeps a model from being trained: the one there is, or all in one."""
    found = list(obstacles)
    if len(found) == 1:
        raise found[0]
    if found:
        raise UserError("\n  ".join(["a run stops at this data:", *map(str, found)]))
