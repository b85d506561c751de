"""Tables with one column per finding (1, 0, -1, empty) instead of one of labels: CheXpert, one-hot challenges."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from msmae.data.manifest import NO_FINDING, SEPARATOR
from msmae.data.manifest import UNSURE as MARK
from msmae.data.tables.listing import IMAGE_SUFFIXES, count, some
from msmae.data.tables.roles import SPLIT_NAMES
from msmae.errors import UserError

YES, NO, UNSURE, EMPTY = {"1", "1.0", "1,0"}, {"0", "0.0", "0,0"}, {"-1", "-1.0", "-1,0"}, {"", "nan", "NaN"}
POLICIES = {"ignore": ("?", "?"), "empty_zeros": ("?", "0"), "zeros": ("0", "0"), "ones": ("1", "0")}
"""``unknown=`` -> what -1 and what an empty cell count as; ``?``: as not known."""
FEWEST = 3
"""Columns of such cells from which they are offered."""
CODES = 2
"""Other values that one column per finding may hold, and then is refused: 99 for what was not read."""


def finding_columns(table: pd.DataFrame, *, fewest: int = FEWEST) -> list[str]:
    """The columns that hold 1, 0, -1 and nothing else, and 1 at least once, where there are ``fewest`` or more; beside
    them also such as hold a code or two in some rows, which ``read_findings`` refuses."""
    cells = {name: _unmarked(table[name]) for name in table}
    found = [name for name in table if not _codes(cells[name]) and YES & set(cells[name])]
    if len(found) < fewest:
        return []
    return [str(name) for name in table if name in found or _has_codes(cells[name])]


def _codes(cells: Iterable[str]) -> set[str]:
    """What a column holds beside 1, 0, -1 and nothing."""
    return set(cells) - YES - NO - UNSURE - EMPTY


def _has_codes(cells: list[str]) -> bool:
    """Whether a column is one of 1 and 0 but for a code or two, in fewer than half of its rows."""
    codes = {code for code in _codes(cells) if not re.fullmatch(r"[2-8](?:[.,]0)?", code)}
    if codes != _codes(cells):
        return False  # a count or a grade
    both = bool(YES & set(cells)) and bool(NO & set(cells))
    return both and 0 < len(codes) <= CODES and 2 * sum(cell in codes for cell in cells) < len(cells)


def _unmarked(cells: Iterable[str]) -> list[str]:
    """1 and 0 for a column of crosses and empty cells alone, where a cross marks what is there; else its cells."""
    cells = list(cells)
    marks = {cell.strip().lower() for cell in cells}
    return ["1" if cell.strip() else "0" for cell in cells] if marks == {"x", ""} else cells


def offer(column: str, table: pd.DataFrame) -> str:
    """What to say with an option instead of a column that a table does not have: the columns that may be meant."""
    flag = f"--{column.partition('_')[0]}-column"
    cells = {str(name): {cell.strip() for cell in table[name]} - {""} for name in table.columns}
    files = [name for name, those in cells.items() if those and all(map(is_image, those))]
    if column == "image_path":
        return f"say which names the files: {' or '.join(f'{flag} {shlex.quote(name)}' for name in files or ['NAME'])}"
    if column != "label":
        return f"name the right one, {flag} NAME"
    names = finding_columns(table)
    findings = f"; one column per finding: {flag} '{SEPARATOR.join(names)}'" if names else ""
    splits = [name for name, those in cells.items() if those and {cell.lower() for cell in those} <= SPLIT_NAMES.keys()]
    few = few_values(table, without=[*files, *names, *splits])
    likely = [f"{flag} {shlex.quote(name)} ({some(sorted(cells[name]))})" for name in few[:3]]
    named = " or ".join(likely) or f"{flag} NAME"
    return (
        f"say which holds the classes: {named}{findings}; {flag} patients.csv:NAME for a table with one row per "
        f"patient, {flag} '' for unlabelled data; a segmenter needs no labels"
    )


def few_values(table: pd.DataFrame, *, without: Sequence[str] = ()) -> list[str]:
    """The columns that hold a few different values, as classes do."""
    cells = {str(name): {cell.strip() for cell in table[name]} - {""} for name in table if name not in without}
    return [name for name, those in cells.items() if 2 <= len(those) <= max(2, len(table) // 4)]


def is_image(cell: str) -> bool:
    """Whether a cell names an image file."""
    return cell.lower().endswith(IMAGE_SUFFIXES)


def parse_labels(column: str) -> tuple[str, str, str]:
    """What ``--label-column`` says: the column or columns (``label`` unless named), what unsure cells count as, and an
    expression to be searched in paths.

    ``diagnosis``; ``Edema;Mass;unknown=zeros``; ``unknown=ones``; ``path:_([01])\\.png``. Raises ``UserError`` for a
    policy that there is not.
    """
    if column.startswith("path:"):
        return "label", "ignore", column.removeprefix("path:")
    names = column.split(SEPARATOR)
    policies = [name.strip().removeprefix("unknown=") for name in names if name.strip().startswith("unknown=")]
    if not policies:
        return column, "ignore", ""
    if len(policies) > 1 or policies[0] not in POLICIES:
        raise UserError(f"unknown={policies[-1]} is not known", mend=f"say one of {', '.join(POLICIES)}")
    left = [name for name in names if not name.strip().startswith("unknown=")]
    return SEPARATOR.join(left) or "label", policies[0], ""


@dataclass(frozen=True)
class Findings:
    """Labels [rows] of columns a finding, what a person should know of them, and the rule for what is not known, ``""``
    where all is."""

    labels: list[str]
    notes: list[str]
    unknown: str


def read_findings(table: pd.DataFrame, names: Sequence[str], *, where: str, policy: str = "ignore") -> Findings:
    """Labels of several columns a finding.

    1 is the finding, 0 is none. One 1 in every row, and nothing unsure, is one class an image; otherwise an image may
    have several, and none. -1 and an empty cell are not known for that finding alone (``?Edema``), unless another
    ``policy`` of ``POLICIES`` is asked for; an image of which nothing is known has no label. Raises ``UserError`` for
    columns that are not there or hold something else, and for a policy without effect.
    """
    lacking = [name for name in names if name not in table]
    if lacking:
        raise UserError(f"there is no column {some(lacking)}", where=where, mend="name columns of the table")
    crossed = [name for name in names if _unmarked(table[name]) != table[name].tolist()]
    table = table.assign(**{name: _unmarked(table[name]) for name in crossed})
    wrong = {name: codes for name in names if (codes := _codes(table[name]))}
    if wrong:
        held = some([f"{name} ({some(sorted(codes))})" for name, codes in wrong.items()])
        left = SEPARATOR.join(name for name in names if name not in wrong)
        raise UserError(
            f"more than 1, 0, -1 and empty cells in {held}",
            where=where,
            mend="write 1 where the finding is there, 0 where it is not, nothing where it is not known; or leave "
            f"{some(list(wrong))} out{f': --label-column {shlex.quote(left)}' if left else ''}",
        )
    meaning = {**dict.fromkeys(YES, "1"), **dict.fromkeys(NO, "0")}
    meaning |= dict.fromkeys(UNSURE, POLICIES[policy][0]) | dict.fromkeys(EMPTY, POLICIES[policy][1])
    written = list(zip(*(table[name] for name in names), strict=True))
    rows = [tuple(meaning[cell] for cell in row) for row in written]
    unsure = sum(cell in UNSURE for row in written for cell in row)
    empty = sum(cell in EMPTY for row in written for cell in row)
    one_each = all(row.count("1") == 1 and "?" not in row for row in rows)
    labels = []
    for row in rows:
        present = sorted(name for name, cell in zip(names, row, strict=True) if cell == "1")
        hidden = sorted(MARK + name for name, cell in zip(names, row, strict=True) if cell == "?")
        pieces = [*hidden, *present]
        joined = SEPARATOR.join(pieces) if pieces else NO_FINDING
        joined += SEPARATOR if len(pieces) == 1 and hidden else ""
        labels.append("" if len(hidden) == len(names) else joined)
    told = [f"{len(names)} columns a finding{': one 1 in every row, one class an image' if one_each else ''}"]
    told += [f"a cross is 1 and an empty cell 0 in {some(crossed)}"] if crossed else []
    never = [name for name, cells in zip(names, zip(*rows, strict=True), strict=True) if "0" not in cells]
    if never and not one_each:
        told.append(
            f"no image is known to be without {some(never)}, so that nothing can be learned of it: an empty cell may "
            "mean none there (unknown=empty_zeros)"
        )
    nothing = labels.count("")
    if nothing:
        told.append(f"{count(nothing, 'image')} of which no finding is known")
    rule = ""
    if unsure or empty:
        shown = {"?": "not known", "0": "taken for 0", "1": "taken for 1"}
        said = [f"{unsure:,} cells of -1 {shown[POLICIES[policy][0]]}"] if unsure else []
        said += [f"{empty:,} empty cells {shown[POLICIES[policy][1]]}"] if empty else []
        rule = f"{' and '.join(said)}; what is not known is left out of that finding's loss and metrics"
        rule = rule if "not known" in " ".join(said) else " and ".join(said)
    return Findings(labels, told, rule)
