"""What follows from an audit: warnings, and a stop where the test split is none."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Iterator

from msmae.data.audit.columns import NO_FINDING, NO_LABEL, NOT_KNOWN
from msmae.data.audit.findings import Audit
from msmae.data.tables.listing import count, some
from msmae.errors import LeakageError

_log = logging.getLogger("msmae")
MANY = 20
"""Classes named by numbers, above which they are taken for a measurement."""
SPLIT_NAMES = {"val": "validation", "test": "test"}
JUDGED, LOPSIDED, BY_CHANCE = 20, 2.0, 3.0
"""Images of a class from which its share of a split is judged; how many times the others' share it may be; how many
standard deviations of a split by chance it may be away in any case."""


def stop_on_leakage(audit: Audit, *, allow: bool = False) -> str:
    """Raise ``LeakageError`` where images or patients of the test split are in the pool; with ``allow``, warn instead.

    Returns the sentence to print in every report of a run that goes on regardless, ``""`` where nothing leaks.
    """
    sentence = describe_leakage(audit)
    if sentence and not allow:
        raise LeakageError(
            sentence,
            where=audit.source,
            mend=f"`{mending_command(audit)}` writes a clean manifest to use instead; --allow-leakage goes on, and "
            "says so in every report",
        )
    if sentence:
        _log.warning("%s; going on, as --allow-leakage says", sentence)
    return sentence


def describe_leakage(audit: Audit) -> str:
    """What of the test split is known from the pool, in a sentence; ``""`` where nothing is."""
    pieces = []
    if audit.test_identical_to_pool:
        images = count(audit.test_identical_to_pool, "test image")
        pieces.append(f"{images} with exactly the pixels of a training or validation image")
    if audit.test_copies_in_pool:
        images = count(audit.test_copies_in_pool, "test image")
        pieces.append(f"{images} named as a changed copy, or the original, of a training or validation image")
    if audit.test_patients_in_pool:
        pieces.append(
            f"{count(audit.test_patients_in_pool, 'patient')} with images in test and in training or validation"
        )
    if not pieces:
        return ""
    classes = ", ".join(f"{number:,} {name}" for name, number in audit.leaking_classes.items())
    return f"the data leaks into the test split: {' and '.join(pieces)}; by class: {classes}"


def mending_command(audit: Audit) -> str:
    """The command that writes a clean manifest of this data set."""
    return f"msmae check {shlex.quote(audit.source)} --repair clean.csv"


def list_warnings(audit: Audit) -> list[str]:
    """What a person should know before training, beside leakage."""
    return list(_warnings(audit))


def _warnings(audit: Audit) -> Iterator[str]:
    learned = audit.patients_crossing - audit.test_patients_in_pool
    for number, thing, what in (
        (audit.unreadable, "image", "cannot be read"),
        (audit.constant, "image", "of one colour"),
        (audit.label_conflicts, "image", "present more than once, with different labels"),
        (audit.patient_conflicts, "image", "present more than once, of different patients"),
        (audit.test_near_pool, "test image", f"nearly identical to a training or validation image{_by(audit)}"),
        (audit.test_named_like_pool, "test image", "named as a view or part of a training or validation image"),
        (audit.near_conflicts, "pair of images", "nearly identical, with different labels"),
        (audit.near_across_patients, "pair of images", "nearly identical, of different patients"),
        (audit.val_identical_to_train, "validation image", "with exactly the pixels of a training image"),
        (learned, "patient", "both in training and in validation"),
        (audit.mask_problems, "image", "whose mask cannot be used"),
        (
            audit.other_numbers,
            "image",
            "whose pixel type differs from most: training stops there, or leaves them out (--on-error skip)",
        ),
    ):
        if number:
            yield f"{count(number, thing)} {what}"
    names = [name for name in audit.splits if name not in (NO_FINDING, NO_LABEL, NOT_KNOWN)]
    if len(names) > MANY and all(map(_is_number, names)):
        yield f"the labels are {len(names):,} different numbers: if they measure something, cut them into classes first"
    if audit.small_classes:
        small = [f"{name} has {groups}" for name, groups in audit.small_classes.items()]
        yield f"too few images (or patients, or clusters) of a class to be in every split: {some(small)}"
    yield from _splits_of_classes(audit)
    yield from map(str, audit.shortcuts)
    if audit.crowded:
        yield "very many images are nearly identical: not all pairs of them were compared"


def _splits_of_classes(audit: Audit) -> Iterator[str]:
    """Classes that a split lacks, or has far more or fewer of than of the others."""
    classes = {name: held for name, held in audit.splits.items() if name not in (NO_FINDING, NO_LABEL, NOT_KNOWN)}
    everything = sum(sum(held.values()) for held in classes.values())
    for split in ("val", "test"):
        inside = {name: held.get(split, 0) for name, held in classes.items()}
        if not any(inside.values()):
            continue
        if absent := [name for name, number in inside.items() if not number]:
            yield f"no {SPLIT_NAMES[split]} image of {some(absent)}: no figure of that split covers this"
        largest = max(classes, key=lambda name: sum(classes[name].values()))
        for name, number in inside.items():
            images = sum(classes[name].values())
            others = (sum(inside.values()) - number) / max(1, everything - images)
            judged = number and images >= JUDGED and name != largest
            usual = BY_CHANCE * math.sqrt(images * others * (1 - others))
            judged = judged and abs(number - images * others) > usual
            if judged and not others / LOPSIDED <= number / images <= others * LOPSIDED:
                share = f"{100 * number / images:.0f} % of the images of {name}"
                yield f"{share} are in {SPLIT_NAMES[split]}; of the other classes {100 * others:.0f} %"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _by(audit: Audit) -> str:
    classes = ", ".join(f"{number:,} {name}" for name, number in audit.near_classes.items())
    return f": {classes}"
