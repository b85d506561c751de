"""The report's section on the data: where the images went, who is in them, what the audit found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd

from msmae.reporting import cohort
from msmae.reporting.wording import count, of, percentage, split_name

COUNTED = {
    "images": "images",
    "patients": "patients named",
    "masks": "images with a mask",
    "unreadable": "unreadable files",
    "constant": "images of one colour",
    "mask_problems": "masks that cannot be used",
    "other_numbers": "images whose pixel type differs from most",
    "identical_pairs": "pairs of images with the same pixels",
    "label_conflicts": "identical images with different labels",
    "patient_conflicts": "identical images of different patients",
    "near_conflicts": "pairs of nearly identical images with different labels",
    "near_across_patients": "pairs of nearly identical images of different patients",
    "test_identical_to_pool": "test images with the pixels of a training or validation image",
    "test_copies_in_pool": "test images named as a changed copy, or the original, of a training or validation image",
    "test_patients_in_pool": "test patients also in training or validation",
    "test_in_encoder_pool": "test images, or images of their patients, that the encoder was trained on before",
    "test_near_pool": "test images nearly identical to a training or validation image",
    "test_named_like_pool": "test images named as a view or part of a training or validation image",
    "val_identical_to_train": "validation images with the pixels of a training image",
    "patients_crossing": "patients in more than one split",
}
"""What the audit counts, by its names in audit.json."""


class Described(Protocol):
    """A run or a comparison: what this section needs of it."""

    @property
    def manifest(self) -> pd.DataFrame | None: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def multilabel(self) -> bool: ...


def flow(run: Described) -> list[dict[str, str]]:
    """The boxes of the data flow: a split, its size, and its share of the images."""
    if run.manifest is None:
        return []
    inside = {split: run.manifest["split"] == split for split in cohort.split_order(run.manifest)}
    return [
        {
            "name": split_name(split),
            "size": cohort.sentence(run.manifest[rows]),
            "share": percentage(float(rows.mean())),
        }
        for split, rows in inside.items()
    ]


def table_one(run: Described, *, labels: tuple[str, ...] | None = None) -> dict[str, Any] | None:
    """Heads and rows of table 1. ``labels`` are the images' own, where the model's classes are something else."""
    if run.manifest is None:
        return None
    several = run.multilabel if labels is None else bool(run.manifest["label"].str.contains(";").any())
    heads, rows = cohort.table_one(run.manifest, classes=run.classes if labels is None else labels, multilabel=several)
    return {"heads": heads, "rows": rows}


def audit_rows(audit: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the audit counted, in words."""
    if audit is None:
        return []
    return [(name, count(amount(audit[key]))) for key, name in COUNTED.items() if key in audit]


def understood(audit: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the data was taken for, as the run's head said it: (about, sentence); nothing for runs before that."""
    facts = ((audit or {}).get("understood") or {}).get("facts") or ()
    return [(fact["about"], fact["said"]) for fact in facts]


def audit_notes(audit: Mapping[str, Any] | None) -> list[str]:
    """How the data was read, when two pictures count as nearly the same, and what each shortcut rests on."""
    if audit is None:
        return []
    reason = (audit.get("threshold") or {}).get("reason")
    near = [f"near-duplicates: {reason}"] if reason else []
    shortcuts = [shortcut["sentence"] for shortcut in audit.get("shortcuts") or ()]
    return [sentence_case(note) for note in [*(audit.get("notes") or ()), *near, *shortcuts]]


def warnings(audit: Mapping[str, Any] | None) -> list[str]:
    """What the audit found that makes the figures doubtful, short of leakage."""
    if audit is None:
        return []
    found = []
    near = amount(audit.get("test_near_pool"))
    if near:
        found.append(
            f"{of(near, 'test image')} nearly identical to a training or validation image{_of_classes(audit, 'near')}"
        )
    for name, groups in (audit.get("small_classes") or {}).items():
        found.append(
            f"too few patients (or clusters of nearly identical images) of the class {name} for every split: {groups:,}"
        )
    for target, traits in _shortcuts(audit).items():
        listed = " or the ".join(traits)
        if target == "split":
            found.append(
                f"the {listed} alone predicts which images are test images: the test split was made differently"
            )
        else:
            found.append(f"the {listed} alone predicts the {target}: the model may use that instead")
    return [sentence_case(sentence) for sentence in found]


def leaks(audit: Mapping[str, Any] | None) -> list[str]:
    """What the audit found that invalidates the test figures; empty when nothing."""
    if audit is None:
        return []
    identical = amount(audit.get("test_identical_to_pool"))
    patients = amount(audit.get("test_patients_in_pool", audit.get("patients_crossing")))
    found = []
    encoder = amount(audit.get("test_in_encoder_pool"))
    if encoder:
        found.append(f"{of(encoder, 'test image')} that the encoder was trained on before, or of the same patients")
    if identical:
        found.append(f"{of(identical, 'test image')} with the pixels of a training or validation image")
    if copies := amount(audit.get("test_copies_in_pool")):
        found.append(
            f"{of(copies, 'test image')} named as a changed copy, or the original, of a training or validation image"
        )
    if patients:
        found.append(f"{of(patients, 'patient')} with images in test and in training or validation")
    if found and audit.get("leaking_classes"):
        found.append(_of_classes(audit, "leaking").lstrip(": "))
    return found


def amount(finding: Any) -> int:
    """A finding of the audit is a number, or a list of what was found."""
    if isinstance(finding, list | dict):
        return len(finding)
    return int(finding) if isinstance(finding, int | float) else 0


def sentence_case(text: str) -> str:
    """A capital at the beginning and a full stop at the end."""
    text = str(text).strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _shortcuts(audit: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is predicted by the picture's traits alone -> which traits."""
    found: dict[str, list[str]] = {}
    for shortcut in audit.get("shortcuts") or ():
        found.setdefault(shortcut["target"], []).append(shortcut["trait"])
    return found


def _of_classes(audit: Mapping[str, Any], kind: str) -> str:
    classes = audit.get(f"{kind}_classes") or {}
    return f": {', '.join(f'{number:,} {name}' for name, number in classes.items())}" if classes else ""
