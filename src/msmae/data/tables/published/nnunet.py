"""nnU-Net's folders (Isensee et al., Nature Methods 2021): ``imagesTr/case_0000.nii.gz``, ``labelsTr/case.nii.gz``.

``_0000`` is the channel; a case is a patient. ``imagesTs`` with ``labelsTs`` is the test split.
"""

from __future__ import annotations

import re

import pandas as pd

from msmae.data.manifest import Manifest
from msmae.data.tables.listing import Listing, count, some
from msmae.errors import UserError

IMAGE = re.compile(
    r"(?P<folder>(?:.*/)?)images(?P<part>Tr|Ts)/(?P<case>.+)_(?P<channel>\d{4})(?P<suffix>\.[^/]+)", re.DOTALL
)


def recognise(listing: Listing) -> str:
    """``imagesTr`` with files named by channel, and ``labelsTr``."""
    named = any(IMAGE.fullmatch(path) for path in listing.images)
    labelled = any("labelsTr" in path.split("/") for path in listing.images)
    return "imagesTr with files named like case_0000, and labelsTr" if named and labelled else ""


def read(listing: Listing) -> Manifest:
    """A row a case, with its label map as mask and no class label.

    Of several channels only the first is read, and a note says so. Raises ``UserError`` for a training case without
    label map and where there is no case at all.
    """
    channels: dict[tuple[str, str, str, str], list[str]] = {}
    for path in listing.images:
        match = IMAGE.fullmatch(path)
        if match:
            channels.setdefault((match["folder"], match["part"], match["case"], match["suffix"]), []).append(path)
    if not channels:
        raise UserError("imagesTr holds no case_0000 file", where=str(listing.root), mend="check the path")
    there = set(listing.images)
    rows, unmasked = [], []
    for (folder, part, case, suffix), paths in sorted(channels.items()):
        mask = f"{folder}labels{part}/{case}{suffix}"
        split = "test" if part == "Ts" and mask in there else ""
        rows.append((paths[0], case, split, mask if mask in there else ""))
        if part == "Tr" and mask not in there:
            unmasked.append(case)
    if unmasked:
        raise UserError(
            f"{count(len(unmasked), 'case')} of imagesTr without label map: {some(unmasked, at_most=20)}",
            where=str(listing.root),
            mend="put it into labelsTr, or remove the images",
        )
    table = pd.DataFrame(rows, columns=["image_path", "patient_id", "split", "mask_path"], dtype=object)
    most = max(map(len, channels.values()))
    notes = [f"{count(len(table), 'case')}, each a patient, with label maps as masks and no class labels"]
    if most > 1:
        notes.append(f"{most} channels a case, of which only the first (_0000) is read")
    return Manifest.from_table(table, root=listing.root, layout="nnunet", notes=notes)
