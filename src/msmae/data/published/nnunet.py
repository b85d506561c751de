"""nnU-Net's folders (Isensee et al., Nature Methods 2021): ``imagesTr/case_0000.nii.gz``, ``labelsTr/case.nii.gz``.

``_0000`` is the channel; a case is a patient. ``imagesTs`` with ``labelsTs`` is the test split.
"""

from __future__ import annotations

import re

import pandas as pd

from msmae.data.listing import Listing, count, some
from msmae.data.manifest import Manifest
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

    ``image_path`` is channel 0; where there are more, ``channel_paths`` names them all, joined by ``;``. Raises
    ``UserError`` for a training case without label map and where there is no case at all.
    """
    channels: dict[tuple[str, str, str, str], list[str]] = {}
    for path in listing.images:
        match = IMAGE.fullmatch(path)
        if match:
            channels.setdefault((match["folder"], match["part"], match["case"], match["suffix"]), []).append(path)
    if not channels:
        raise UserError("imagesTr holds no case_0000 file", where=str(listing.root), mend="check the path")
    there = set(listing.images)
    rows = []
    for (folder, part, case, suffix), paths in sorted(channels.items()):
        mask = f"{folder}labels{part}/{case}{suffix}"
        split = "test" if part == "Ts" and mask in there else ""
        row = {"image_path": paths[0], "patient_id": case, "split": split, "mask_path": mask if mask in there else ""}
        rows.append(row | {"channel_paths": ";".join(paths) if len(paths) > 1 else "", "part": part})
    table = pd.DataFrame(rows, dtype=object)
    unmasked = table.loc[(table["part"] == "Tr") & (table["mask_path"] == ""), "patient_id"].tolist()
    if unmasked:
        raise UserError(f"{count(len(unmasked), 'case')} of imagesTr without label map: {some(unmasked, at_most=20)}",
                        where=str(listing.root), mend="put it into labelsTr, or remove the images")  # fmt: skip
    most = max(map(len, channels.values()))
    notes = [f"{count(len(table), 'case')}, each a patient, with label maps as masks and no class labels"]
    if most > 1:
        notes.append(f"{most} channels a case: image_path is the first, channel_paths names them all")
    columns = ["part"] if most > 1 else ["part", "channel_paths"]
    return Manifest.from_table(table.drop(columns=columns), root=listing.root, layout="nnunet", notes=notes)
