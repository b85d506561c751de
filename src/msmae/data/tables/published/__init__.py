"""Data sets as their publishers ship them -> manifests, with their groups, masks and official splits.

Each module knows one: ``recognise`` says in a few words why a listing is it, or ``""``; ``read`` makes the manifest.
"""

from __future__ import annotations

from types import ModuleType

from msmae.data.tables.listing import Listing
from msmae.data.tables.published import (
    brain_tumor_classification,
    brain_tumor_dataset,
    busi,
    chestxray2017,
    deeplesion,
    ham10000,
    messidor2,
    nnunet,
)

LAYOUTS: dict[str, ModuleType] = {
    "busi": busi,
    "ham10000": ham10000,
    "chestxray2017": chestxray2017,
    "messidor2": messidor2,
    "deeplesion": deeplesion,
    "brain-tumor-classification": brain_tumor_classification,
    "brain-tumor-dataset": brain_tumor_dataset,
    "nnunet": nnunet,
}


def recognise(listing: Listing) -> tuple[str, str]:
    """The layout of a folder and the reason for it; ``("", "")`` if it is none of these."""
    reasons = ((name, module.recognise(listing)) for name, module in LAYOUTS.items())
    return next(((name, reason) for name, reason in reasons if reason), ("", ""))
