"""Bounds of settings, written beside their types (``Annotated[float, Between(0, 1)]``), and the one checker of them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from msmae.errors import UserError


def require(holds: bool, what: str, *, where: str, mend: str) -> None:
    """Raise ``UserError`` unless ``holds``."""
    if not holds:
        raise UserError(what, where=where, mend=mend)


@dataclass(frozen=True)
class Between:
    """The least and the largest value of a number, or of each of two. ``above``, ``under``: the end itself is out."""

    low: float
    high: float = math.inf
    above: bool = False
    under: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies within."""
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.under else value <= self.high)

    @property
    def words(self) -> str:
        """``0 or more``, ``above 0``, ``0 to under 1``."""
        low = f"above {self.low:g}" if self.above else f"{self.low:g}"
        if math.isinf(self.high):
            return low if self.above else f"{low} or more"
        return f"{low} to {'under ' if self.under else ''}{self.high:g}"


class Rising(Between):
    """Two numbers within the bounds, the first not above the second."""

    @property
    def words(self) -> str:
        return f"two numbers, {super().words}, the smaller first"


Count = Annotated[int, Between(1)]
NotNegative = Annotated[float, Between(0)]
Positive = Annotated[float, Between(0, above=True)]
Share = Annotated[float, Between(0, 1)]
TrueShare = Annotated[float, Between(0, 1, above=True, under=True)]
Below1 = Annotated[float, Between(0, 1, under=True)]

WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none",
}  # fmt: skip
"""What a value of a plain type must be, in words."""


def plain_type(kind: Any) -> Any:
    """A type without its bounds."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def bounds_of(kind: Any) -> Between | None:
    """The bounds written beside a type, also where it may be None."""
    if get_origin(kind) is Annotated:
        return next((mark for mark in get_args(kind)[1:] if isinstance(mark, Between)), None)
    if get_origin(kind) in (Union, UnionType):
        return next((found for part in get_args(kind) if (found := bounds_of(part)) is not None), None)
    return None


def may_be_none(kind: Any) -> bool:
    """Whether a value of this type may be None."""
    kind = plain_type(kind)
    return kind in (None, type(None)) or any(may_be_none(part) for part in get_args(kind) if not isinstance(part, str))


def words_for(kind: Any) -> str:
    """A type in words: ``a whole number``, ``two numbers``, ``one of light, setr-pup``, ``a number or auto``."""
    kind = plain_type(kind)
    if kind in WORDS:
        return WORDS[kind]
    if get_origin(kind) is tuple:
        return "two whole numbers" if int in get_args(kind) else "two numbers"
    if get_origin(kind) is Literal:
        values = [str(value) for value in get_args(kind)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    return " or ".join(words_for(part) for part in get_args(kind))


THREE_D = "3-D patches are not offered; --slices axial:5 cuts volumes into slices"
EXAMPLES: dict[str, Any] = {
    "epochs": 50, "uniform_epochs": 5, "refresh_every": 10, "mask_ratio": 0.45, "throw_ratio": 0.3, "label_weight": 0.1,
    "image_size": 224, "patch_size": 16, "channels": 3, "threads": 2, "replace_nonfinite": 0, "pool": "mean",
    "ordinal": True, "share": 0.25, "patience": 5,
}  # fmt: skip
"""A value of each setting that is None unless given."""


@cache
def types_of(group: Any) -> dict[str, Any]:
    """The types of a group's settings, with their bounds."""
    hints = get_type_hints(group, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(group)}


def example(group: Any, name: str) -> str:
    """``--finetune.crop_scale 0.5 1.0``: an option that works."""
    field = next(field for field in dataclasses.fields(group) if field.name == name)
    value = EXAMPLES[name] if field.default is None else field.default
    words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
    return f"--{group.group}.{name} {words}"


class Group:
    """A group of settings: a frozen dataclass whose values lie within the bounds beside their types."""

    group: ClassVar[str]

    def __post_init__(self) -> None:
        own: Any = type(self)
        for name, kind in types_of(own).items():
            value, bounds = getattr(self, name), bounds_of(kind)
            numbers = value if isinstance(value, tuple) else (value,)
            numbers = tuple(n for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool))
            within = bounds is None or all(bounds.holds(n) for n in numbers)
            rising = not isinstance(bounds, Rising) or list(numbers) == sorted(numbers)
            if within and rising and all(map(math.isfinite, numbers)):
                continue
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            raise UserError(
                f"{shown} is not {bounds.words if bounds else 'a finite number'}",
                where=f"{self.group}.{name}",
                mend=f"for instance {example(own, name)}",
            )
