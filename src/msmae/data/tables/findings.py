"""Tables with a column a finding (1, 0, -1, empty) instead of one of labels: CheXpert, one-hot challenges."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from msmae.data.manifest import NO_FINDING, SEPARATOR
from msmae.data.tables.listing import count, some
from msmae.errors import UserError

YES, NO, UNSURE, EMPTY = {"1", "1.0"}, {"0", "0.0"}, {"-1", "-1.0"}, {"", "nan", "NaN"}
FEWEST = 3
"""Columns of such cells from which they are offered."""


def finding_columns(table: pd.DataFrame, *, fewest: int = FEWEST) -> list[str]:
    """The columns that hold 1, 0, -1 and nothing else, and 1 at least once, where there are ``fewest`` or more."""
    known = YES | NO | UNSURE | EMPTY
    found = [name for name in table if set(table[name]) <= known and set(table[name]) & YES]
    return [str(name) for name in found] if len(found) >= fewest else []


def offer(table: pd.DataFrame) -> str:
    """The option that reads such a table; ``""`` where it is none."""
    names = finding_columns(table)
    return f"; a column a finding: --label-column '{SEPARATOR.join(names)}'" if names else ""


def read_findings(table: pd.DataFrame, names: Sequence[str], *, where: str) -> tuple[list[str], list[str]]:
    """Labels of several columns a finding, and what a person should know of them.

    1 is the finding, 0 is none. One 1 in every row, and nothing unsure, is one class an image; otherwise an image may
    have several, and none. An image with a finding that is -1 or empty is unlabelled as a whole: a label is either
    known or not. Raises ``UserError`` for columns that are not there or hold something else.
    """
    lacking = [name for name in names if name not in table]
    if lacking:
        raise UserError(f"there is no column {some(lacking)}", where=where, mend="name columns of the table")
    wrong = [name for name in names if not set(table[name]) <= YES | NO | UNSURE | EMPTY]
    if wrong:
        raise UserError(f"{some(wrong)} holds more than 1, 0, -1 and empty cells", where=where, mend="leave it out")
    rows = list(zip(*(table[name] for name in names), strict=True))
    unsure = [any(cell in UNSURE | EMPTY for cell in row) for row in rows]
    one_each = all(sum(cell in YES for cell in row) == 1 for row in rows) and not any(unsure)
    labels = []
    for row, unknown in zip(rows, unsure, strict=True):
        present = sorted(name for name, cell in zip(names, row, strict=True) if cell in YES)
        labels.append("" if unknown else SEPARATOR.join(present) or NO_FINDING)
    told = [f"{len(names)} columns a finding{': one 1 in every row, one class an image' if one_each else ''}"]
    if any(unsure):
        told.append(f"{count(sum(unsure), 'image')} unlabelled: a finding is -1 or empty there")
    return labels, told
