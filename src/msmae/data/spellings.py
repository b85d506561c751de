"""One person under two spellings of an id (``0007`` and ``7``, ``Pat-04`` and ``PAT_4``) -> one patient."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from msmae.data.manifest import Manifest
from msmae.data.tables.listing import count, some

DECIMAL = re.compile(r"^(\d+)(?:\.0+|,00?)$", re.ASCII | re.MULTILINE)
"""A whole number as a program writes it that takes ids for measurements."""
BETWEEN = re.compile(
    r"(?!^-\d)(?:[^\S\n]|[_^-])+|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])",  # but for the sign of a negative number
    re.MULTILINE,
)
"""What parts the pieces of an id: a space, ``-``, ``_``, DICOM's ``^``, or nothing between letters and a number."""
ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")  # not behind a point: 1.01 is not 1.1


def spelled(names: Sequence[str]) -> list[str]:
    """What the spellings of each id have in common: no capitals, no zeros before a number, one sign between pieces.

    All at once, because half a million calls would take seconds.
    """
    text = "\n".join([name.replace("\n", " ") for name in names])
    text = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
    text = ZEROS.sub("", BETWEEN.sub(" ", DECIMAL.sub(r"\1", text)))
    return [said.strip() or name for said, name in zip(text.split("\n"), names, strict=bool(names))]


def in_one_spelling(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names [n], each in one of its spellings, and ``0007 / 7`` for every one that had several; ``""`` is nobody.

    The spelling that stays says most (``0007``), whatever the order of the images.
    """
    found: dict[str, list[str]] = {}
    unique = list({*names} - {""})
    for name, said in zip(unique, spelled(unique), strict=True):
        found.setdefault(said, []).append(name)
    if len(found) == len(unique):
        return list(names), []
    groups = [sorted(group, key=_least_telling) for group in found.values() if len(group) > 1]
    first = {name: group[0] for group in groups for name in group}
    return [first.get(name, name) for name in names], sorted(" / ".join(group) for group in groups)


def _least_telling(name: str) -> tuple[bool, int, str]:
    return DECIMAL.fullmatch(name) is not None, -len(name), name


def one_patient_a_spelling(manifest: Manifest) -> Manifest:
    """The manifest with one ``patient_id`` where ids differ in their spelling alone, and a rule ``spelling`` that says
    so: a patient too few is safe, one in training and test under two names is not."""
    people, twins = in_one_spelling(manifest.table["patient_id"].tolist())
    if not twins:
        return manifest
    return manifest.with_columns({"patient_id": people}, rules=spelling_rule(len(twins), some(twins, at_most=3)))


def spelling_rule(number: int, shown: str) -> dict[str, str]:
    """What to say of so many patients whose ids are spelled in several ways."""
    return {
        "spelling": f"{count(number, 'patient')} written in several ways ({shown}): ids that differ in capitals, zeros "
        "or separators alone count as one; if they are different people, write their ids unlike"
    }
