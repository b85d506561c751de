"""What keeps a classifier from being trained on a data set: a run stops at the first, `msmae check` names them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from msmae.config import ARMS
from msmae.data.audit import Audit
from msmae.data.manifest import SPLITS, Manifest
from msmae.data.reading.decoding import agreed_channels
from msmae.data.tables.listing import count, some
from msmae.errors import UserError

WITHOUT_LABELS = (
    "`msmae pretrain` with --method "
    f"{' or '.join(name for name, arm in ARMS.items() if arm.pretrains and arm.label_weight == 0)} needs none"
)


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
            mend="add images of another class; `msmae pretrain --method mae` needs none (table: --label-column '')",
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


def file_obstacles(audit: Audit) -> Iterator[UserError]:
    """Images that cannot be read, masks that cannot be used, numbers of another type, channels that do not fit. A run
    finds them when it decodes the images.
    """
    lines = [why for name in ("unreadable", "mask_problems") for _, why in audit.details[name]]
    lines += [f"{image} holds {what}" for image, what in audit.details["other_numbers"]]
    if lines:
        first = f"{'the first' if len(lines) > 1 else 'it'}: {lines[0]}"
        mend = "mend or remove what audit.json names (--out DIR); a run leaves it out with --on-error skip"
        yield UserError(f"{count(len(lines), 'image')} cannot be used, {first}", mend=mend)
    try:
        agreed_channels([channels for channels, _ in audit.details["channels"]])
    except UserError as error:
        yield error


def obstacles(manifest: Manifest, audit: Audit, unreadable: Collection[int]) -> list[UserError]:
    """Everything in the data that a run would stop at, in the order in which it would. Data without labels, or of one
    class and with masks, is no classifier's, and is not held to what one needs.
    """
    found = list(file_obstacles(audit))
    if manifest.classes and not (len(manifest.classes) == 1 and audit.masks):
        labelled = Labelled.of(manifest, unreadable)
        found += [*label_obstacles(labelled), *class_obstacles(labelled)]
    return found


def stop_on(obstacles: Iterable[UserError]) -> None:
    """Raise ``UserError`` for what keeps a classifier from being trained: the one there is, or all in one."""
    found = list(obstacles)
    if len(found) == 1:
        raise found[0]
    if found:
        raise UserError("\n  ".join(["a run stops at this data:", *map(str, found)]))
