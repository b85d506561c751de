"""The audit of a data set: what it found, in numbers and lists."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from msmae.data.audit.columns import Columns
from msmae.data.audit.counts import count_copies, count_leakage, small_classes
from msmae.data.audit.details import list_details
from msmae.data.audit.duplicates import Duplicates, clusters, find_duplicates
from msmae.data.audit.fingerprints import Fingerprints, take_fingerprints
from msmae.data.audit.shortcuts import Shortcut, find_shortcuts
from msmae.data.audit.threshold import Threshold
from msmae.data.manifest import Manifest, printable
from msmae.data.understood import Understood, understand


@dataclass(frozen=True)
class Audit:
    """What was found. The *pool* is whatever is not test: pre-training, training, validation."""

    source: str
    """What DATA was."""
    layout: str
    notes: tuple[str, ...]
    understood: Understood
    """What the data was taken for."""
    images: int
    patients: int
    """Patients named; 0 where none are."""
    nameless: int
    """Images that name no patient."""
    classes: int
    masks: int
    """Images with a mask."""
    unreadable: int
    constant: int
    """Images of one colour."""
    mask_problems: int
    """Images whose mask cannot be read, or has other proportions than they."""
    other_numbers: int
    """Images that hold numbers of another type than most (16 bits among 8): training stops at them, or skips them."""

    identical_pairs: int
    """Pairs of images with equal decoded pixels."""
    label_conflicts: int
    """Pictures that occur with different labels."""
    patient_conflicts: int
    """Pictures that occur under different patients."""
    near_pairs: int
    """Pairs of different pictures within the threshold."""
    near_conflicts: int
    """Near pairs with different labels."""
    near_across_patients: int
    """Near pairs that show different patients."""
    near_clusters: int
    """Clusters of two or more pictures joined by nearness."""
    largest_cluster: int
    """Images in the largest cluster of identical and near-identical ones."""
    threshold: Threshold
    crowded: bool
    """Masses of near-equal images: not all pairs of them were compared."""

    test_identical_to_pool: int
    """Test images whose decoded pixels equal an image of the pool: leakage."""
    test_copies_in_pool: int
    """Test images that are, by their names, a changed copy of an image of the pool, or what one there was made of:
    leakage."""
    test_patients_in_pool: int
    """Patients with images in the test split and in the pool: leakage."""
    leaking_images: int
    """Test images that are identical to one of the pool or, by its name, a copy, or whose patient has images in it."""
    leaking_classes: dict[str, int]
    """Label -> those images."""
    test_near_pool: int
    """Test images near to a picture of the pool, and identical to none: a warning."""
    near_classes: dict[str, int]
    """Label -> those images."""
    test_named_like_pool: int
    """Test images that have the name of an image of the pool and more, as views and parts have: a warning."""
    val_identical_to_train: int
    patients_crossing: int
    """Patients with images in more than one split, whichever."""

    splits: dict[str, dict[str, int]]
    """Class -> split -> images; an image with several labels counts for each."""
    small_classes: dict[str, int]
    """Classes with fewer groups (patients, or clusters of near-identical images) than splits -> their groups."""
    shortcuts: tuple[Shortcut, ...]
    details: dict[str, list[Any]]
    """The images behind the counts."""

    @property
    def leaks(self) -> bool:
        """Whether test figures would be worth nothing."""
        return self.leaking_images > 0

    def to_dict(self) -> dict[str, Any]:
        """Every field under its name, ready for JSON; the content of audit.json."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        shortcuts = [{**vars(shortcut), "sentence": str(shortcut)} for shortcut in self.shortcuts]
        return {
            **content,
            "leaks": self.leaks,
            "understood": self.understood.to_dict(),
            "notes": [printable(note) for note in self.notes],
            "threshold": vars(self.threshold),
            "shortcuts": shortcuts,
        }


def audit(
    manifest: Manifest,
    *,
    prints: Fingerprints | None = None,
    duplicates: Duplicates | None = None,
    source: str | None = None,
) -> Audit:
    """Audit a data set as it is divided now.

    ``prints`` (``take_fingerprints``) and ``duplicates`` (``find_duplicates``) are taken from the files where they are
    not given; ``source`` is what DATA was, for the command that mends it. Files that cannot be read are counted, not
    raised.
    """
    prints = take_fingerprints(manifest) if prints is None else prints
    duplicates = find_duplicates(prints) if duplicates is None else duplicates
    columns = Columns.of(manifest)
    groups = clusters(duplicates, patients=columns.patients)
    return Audit(
        source=printable(str(manifest.root) if source is None else source),
        layout=manifest.layout,
        notes=manifest.notes,
        understood=understand(manifest),
        images=len(manifest),
        patients=len(columns.splits_of_patients),
        nameless=int((manifest.table["patient_id"] == "").sum()),
        classes=len(manifest.classes),
        masks=int((manifest.table["mask_path"] != "").sum()),
        unreadable=len(prints.problems),
        constant=int((prints.readable & prints.record["constant"]).sum()),
        mask_problems=len(prints.mask_problems),
        other_numbers=len(prints.other_numbers()),
        **count_copies(columns, duplicates),
        threshold=duplicates.threshold,
        crowded=duplicates.crowded,
        **count_leakage(columns, duplicates),
        splits=columns.by_class_and_split(),
        small_classes=small_classes(columns, groups),
        shortcuts=find_shortcuts(manifest, prints, groups),
        details=list_details(manifest, prints, duplicates, columns),
    )
