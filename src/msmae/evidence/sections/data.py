"""The report's section on the data: where the images went, who is in them, what the audit found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msmae.evidence import cohort
from msmae.evidence.run_files import RunFiles
from msmae.evidence.wording import count, of, percentage, split_name

AUDIT = {
    "images": "images",
    "patients": "patients",
    "classes": "classes",
    "masks": "masks",
    "unreadable": "unreadable files",
    "constant": "images of one colour",
    "identical_pairs": "pairs of images with the same pixels",
    "test_identical_to_pool": "test images with the pixels of an image the model learned from",
    "test_near_pool": "test images nearly the same as one the model learned from",
    "label_conflicts": "images that occur with different labels",
    "patients_crossing": "patients on both sides of the split",
}
LEAKS = ("test_identical_to_pool", "patients_crossing")


def flow(run: RunFiles) -> list[dict[str, str]]:
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


def table_one(run: RunFiles) -> dict[str, Any] | None:
    """Heads and rows of table 1."""
    if run.manifest is None:
        return None
    heads, rows = cohort.table_one(run.manifest, classes=run.classes, multilabel=run.multilabel)
    return {"heads": heads, "rows": rows}


def audit_rows(audit: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the audit counted, in words."""
    if audit is None:
        return []
    return [(name, count(amount(audit[key]))) for key, name in AUDIT.items() if key in audit]


def leaks(audit: Mapping[str, Any] | None) -> list[str]:
    """What the audit found that makes the test figures untrustworthy; empty when nothing."""
    if audit is None:
        return []
    found = {key: amount(audit.get(key)) for key in LEAKS}
    sentences = {
        "test_identical_to_pool": "{} with the pixels of an image that the model learned from",
        "patients_crossing": "{} with images on both sides of the split",
    }
    things = {"test_identical_to_pool": "test image", "patients_crossing": "patient"}
    return [sentences[key].format(of(number, things[key])) for key, number in found.items() if number]


def amount(finding: Any) -> int:
    """A finding of the audit is a number, or a list of what was found."""
    if isinstance(finding, list | dict):
        return len(finding)
    return int(finding) if isinstance(finding, int | float) else 0
