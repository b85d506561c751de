"""Which column of a table divides the images into train, val and test, and what its cells say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from msmae.data.manifest import SPLITS
from msmae.data.tables.labels import NOT_SAID
from msmae.data.tables.listing import some
from msmae.data.tables.roles import NEUTRAL, SPLIT_NAMES, letters, split_of, words
from msmae.errors import UserError

CALLED = ("split", "datasplit", "partition")
"""Names of columns that can be nothing else."""
MAY_BE_CALLED = (*CALLED, "set", "subset")
DIVIDING = {
    *("development", "derivation", "discovery", "replication", "holdout", "hold", "heldout", "held", "evaluation"),
    *("eval", "tuning", "learning", "unseen"),
}
"""Words of what divides images, which do not say whether they are to be learned from, validated on or tested on."""
BESIDE = NEUTRAL | {"public", "private", "internal", "external", "independent", "out", "cohort", "group", "sample"}
MOST = 12
"""Different cells of a column that divides a data set."""
BINARY = {"0", "1", "0.0", "1.0", "true", "false", "yes", "no", "t", "f", "y", "n"}


def split_word(cell: str) -> str:
    """The split that a cell names, ``Test-Set`` for test; as it is written where it names none."""
    said = cell.strip()
    return "" if said.lower() in NOT_SAID else SPLIT_NAMES.get(said.lower()) or split_of(said) or said


def split_column(table: pd.DataFrame, columns: Iterable[str], *, where: str = "") -> str:
    """The column of the splits, ``""`` for none: it is called so, or its cells say so. They need not all be known:
    ``check_splits`` refuses what is not.

    Raises ``UserError``, if told ``where``, for several columns that say splits, and not the same ones (``fold0`` to
    ``fold4``).
    """
    columns = list(columns)
    named = [name for name in columns if letters(name) in MAY_BE_CALLED]
    known = [name for name in named if {split_word(cell) for cell in table[name]} & set(SPLITS)]
    saying = [name for name in columns if _says_splits(table[name])]
    several = {tuple(map(split_word, table[name])): name for name in reversed(saying)}
    if where and not known and len(several) > 1:
        raise UserError(
            f"the columns {some(saying)} each divide the images, in other ways",
            where=where,
            mend=f"say which: --split-column {saying[0]}; or --split-column '' leaves them all out",
        )
    odd = (name for name in columns if _divides(table[name]) or (letters(name) in CALLED and _several(table[name])))
    return next(iter([*known, *saying]), "") or next(odd, "")


def check_splits(told: Iterable[str], *, rule: str, where: str) -> None:
    """Raise ``UserError`` for words that are no splits."""
    wrong = sorted(set(told) - {*SPLITS, ""})
    if wrong:
        raise UserError(
            f"{rule} holds {some([repr(word) for word in wrong])}, which is no split",
            where=where,
            mend="write train, val or test, or leave the cell empty; or --split-column '' leaves the column out",
        )


def check_no_flag(table: pd.DataFrame, columns: Sequence[str], *, where: str) -> None:
    """Raise ``UserError`` for a column that says yes or no to a split (``is_test``): what is not test is not said."""
    for name in columns:
        cells = {cell.strip() for cell in table[name]} - {""}
        said = [word for word in words(name) if word in SPLIT_NAMES or word in DIVIDING]
        rest = [word for word in words(name) if word not in said]
        flagged = len(said) == 1 and set(rest) <= BESIDE | {"is", "in", "use", "used", "for"}
        if flagged and len(cells) == 2 and {cell.lower() for cell in cells} <= BINARY:
            raise UserError(
                f"the column {name} says {' or '.join(sorted(cells))}, and seems to divide the images",
                where=where,
                mend="write a column split with train, val and test; or --split-column '' leaves it out",
            )


def _says_splits(cells: Iterable[str]) -> bool:
    """Whether a column, however it is called, says splits: train and another one, in every cell that says something."""
    said = {SPLIT_NAMES.get(cell.strip().lower(), "") for cell in cells if cell.strip()}
    return "train" in said and len(said) > 1 and "" not in said


def _several(cells: Iterable[str]) -> bool:
    """Whether a column says more than one thing."""
    return len({cell.strip() for cell in cells if cell.strip().lower() not in NOT_SAID}) > 1


def _divides(cells: Iterable[str]) -> bool:
    """Whether all that a column says is two or more parts of a data set, however they are called: ``development`` and
    ``holdout``, ``Training`` and ``PublicTest``."""
    told = {cell.strip() for cell in cells}
    if len(told) > MOST:
        return False
    said = [words(cell) for cell in told if cell.lower() not in NOT_SAID]
    telling = [any(word in SPLIT_NAMES or word in DIVIDING for word in cell) for cell in said]
    known = all(cell and all(word in SPLIT_NAMES or word in DIVIDING | BESIDE for word in cell) for cell in said)
    return len({tuple(cell) for cell in said}) > 1 and known and any(telling)
