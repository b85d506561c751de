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

Case = tuple[str, str, str, str]  # folder, Tr or Ts, name, suffix


def recognise(listing: Listing) -> str:
    """``imagesTr`` with files named by channel, and ``labelsTr``."""
    named = any(IMAGE.fullmatch(path) for path in listing.images)
    labelled = any("labelsTr" in path.split("/") for path in listing.images)
    return "imagesTr with files named like case_0000, and labelsTr" if named and labelled else ""


def read(listing: Listing) -> Manifest:
    """A row a case, with its label map as mask and no class label.

    Of several channels the first is read, or that of ``--image-column``, and a note says so. Raises ``UserError`` for
    a training case without label map, a case without that channel, and where there is no case at all.
    """
    channels: dict[Case, list[str]] = {}
    for path in listing.images:
        match = IMAGE.fullmatch(path)
        if match:
            channels.setdefault((match["folder"], match["part"], match["case"], match["suffix"]), []).append(path)
    if not channels:
        raise UserError("imagesTr holds no case_0000 file", where=str(listing.root), mend="check the path")
    every = channels
    channels = _told(channels, listing)
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
    most = max(map(len, every.values()))
    rules = {"patient_id": "the cases", "mask_path": "labelsTr and labelsTs"}
    notes = [f"{count(len(table), 'case')}, each a patient, with label maps as masks and no class labels"]
    if most > 1:
        told = listing.channel.isdigit()
        read = f"channel {int(listing.channel)} is read, as told" if told else "the first (_0000) is read"
        rules["channels"] = f"{most} channels a case, of which only {read}"
        notes.append(rules["channels"])
    return Manifest.from_table(table, root=listing.root, layout="nnunet", notes=notes, rules=rules)


def _told(channels: dict[Case, list[str]], listing: Listing) -> dict[Case, list[str]]:
    """Of every case the channel that was told, or all."""
    if not listing.channel.isdigit():
        return channels
    wanted = f"{int(listing.channel):04}"
    found = {
        case: [path for path in paths if (match := IMAGE.fullmatch(path)) and match["channel"] == wanted]
        for case, paths in channels.items()
    }
    lacking = [case[2] for case, paths in found.items() if not paths]
    if lacking:
        raise UserError(
            f"{count(len(lacking), 'case')} without channel {wanted}: {some(lacking)}",
            where=str(listing.root),
            mend="name another, --image-column 0 for the first",
        )
    return found
