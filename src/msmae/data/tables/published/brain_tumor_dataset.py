"""Kaggle's "Brain Tumor MRI Dataset" (Nickparvar, 2021): 7,023 slices, 4 classes, Training and Testing.

It joins three earlier sets, one of which is "Brain Tumor Classification (MRI)", and names no patients.
"""

from __future__ import annotations

from msmae.data.manifest import Manifest
from msmae.data.tables.folders import read_class_folders
from msmae.data.tables.listing import Listing

CLASSES = {"glioma", "meningioma", "notumor", "pituitary"}


def recognise(listing: Listing) -> str:
    """Its four class folders, whatever lies around them."""
    known = {path.split("/")[-2] for path in listing.images if "/" in path} == CLASSES
    return f"the class folders {', '.join(sorted(CLASSES))}" if known else ""


def read(listing: Listing) -> Manifest:
    """Labels and splits from the folders."""
    manifest = read_class_folders(listing, layout="brain-tumor-dataset")
    note = (
        "no patients are published, and the set shares images with Brain Tumor Classification (MRI): do not join them"
    )
    return manifest.with_columns({}, notes=[note])
