"""BUSI, breast ultrasound (Al-Dhabyani et al., Data in Brief 2020): 780 images, 3 classes, lesion masks.

``benign (1).png`` has its mask in ``benign (1)_mask.png``, further lesions in ``benign (1)_mask_1.png``. The images
come from 600 women, but the publisher does not say which belong to the same one.
"""

from __future__ import annotations

import re

import numpy as np

from msmae.data.manifest import Manifest
from msmae.data.tables.folders import read_class_folders
from msmae.data.tables.listing import Listing, left_out

NAME = re.compile(r"(.*/)?(benign|malignant|normal)/\2 \(\d+\)(_mask(_\d+)?)?\.png", re.IGNORECASE)


def recognise(listing: Listing) -> str:
    """Folders benign, malignant or normal with files named so, masks among them, and nothing else."""
    matches = [NAME.fullmatch(path) for path in listing.images]
    known = bool(matches) and all(matches) and any(match and match[3] for match in matches)
    return "files named like 'benign (1).png' with masks 'benign (1)_mask.png'" if known else ""


def read(listing: Listing) -> Manifest:
    """Labels from the folders, one or more masks an image; no patients, because none are published."""
    manifest = read_class_folders(listing, layout="busi")
    names = manifest.table["image_path"].str.rpartition("/")[2]
    images = np.flatnonzero(~names.str.contains(r"_mask(?:_\d+)?\.", regex=True))
    notes = [
        *left_out(len(manifest) - len(images), "mask", "without an image"),
        "BUSI names no patients: images of one woman may lie in several splits",
    ]
    return manifest.select(images).with_columns({}, notes=notes)
