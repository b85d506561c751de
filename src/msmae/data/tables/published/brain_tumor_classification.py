"""Kaggle's "Brain Tumor Classification (MRI)" (Bhuvaji et al., 2020): 3,264 slices, 4 classes, Training and Testing.

No patients are named, and the Testing folder holds copies of training images: run ``msmae check`` before believing its
split.
"""

from __future__ import annotations

from msmae.data.manifest import Manifest
from msmae.data.tables.folders import read_class_folders
from msmae.data.tables.listing import Listing

CLASSES = {"glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"}


def recognise(listing: Listing) -> str:
    """Its four class folders, whatever lies around them."""
    known = {path.split("/")[-2] for path in listing.images if "/" in path} == CLASSES
    return f"the class folders {', '.join(sorted(CLASSES))}" if known else ""


def read(listing: Listing) -> Manifest:
    """Labels and splits from the folders."""
    manifest = read_class_folders(listing, layout="brain-tumor-classification")
    return manifest.with_columns({}, notes=["no patients are published: slices of one patient may lie in both splits"])
