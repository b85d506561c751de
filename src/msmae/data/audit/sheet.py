"""A contact sheet of the worst pairs: what is in test and in training, or has two labels, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from msmae.data.audit.columns import NO_LABEL, Columns, contradict
from msmae.data.audit.details import name_image
from msmae.data.audit.duplicates import Duplicates
from msmae.data.audit.hashing import grey_plane
from msmae.data.manifest import Manifest, printable
from msmae.data.reading.decoding import image_sources
from msmae.data.reading.images import Reading, read_source
from msmae.data.tables.listing import count

SIDE = 180  # pixels of a picture
GAP = 12
LINE = 15
ACROSS = 3  # pairs in a row
LETTERS = 56  # of a line of text


@dataclass(frozen=True)
class Pair:
    """Two images, by sample id, the bits between them, and what is wrong with them."""

    first: int
    second: int
    bits: int
    across: bool
    """One is in the test split, the other in the pool."""
    labels: bool
    """They have different labels."""
    patients: bool
    """They have different patients."""
    identical: bool

    @property
    def kind(self) -> str:
        facts = {"in test and in the pool": self.across, "two labels": self.labels, "two patients": self.patients}
        alike = "identical" if self.identical else "near"
        return ", ".join([alike, *(fact for fact, holds in facts.items() if holds)])

    @property
    def harm(self) -> tuple[bool, bool, bool, bool]:
        return self.identical and self.labels, self.across, self.labels or self.patients, self.identical


def draw_worst_pairs(
    manifest: Manifest, duplicates: Duplicates, target: Path, *, pairs: int = 18, reading: Reading | None = None
) -> int:
    """Write ``target`` (PNG) with the worst pairs, some of every kind, and return how many; no pairs, no file."""
    chosen = worst_pairs(Columns.of(manifest), duplicates, at_most=pairs)
    if not chosen:
        target.unlink(missing_ok=True)  # an earlier audit's
        return 0
    sources = image_sources(manifest)
    columns, rows = min(ACROSS, len(chosen)), -(-len(chosen) // ACROSS)
    width, height = 2 * SIDE + 3 * GAP, SIDE + 3 * LINE + 2 * GAP
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, pair in enumerate(chosen):
        left, top = place % ACROSS * width + GAP, place // ACROSS * height + GAP
        distance = "" if pair.identical else f" ({count(pair.bits, 'bit')} apart)"
        draw.text((left, top), pair.kind + distance, fill="black", font=font)
        for side, sample in enumerate((pair.first, pair.second)):
            text = _caption(manifest, sample)
            draw.text((left, top + (1 + side) * LINE), f"{'left' if side == 0 else 'right'}: {text}", "black", font)
            picture = _picture(read_source(sources[sample], reading=reading))
            sheet.paste(picture, (left + side * (SIDE + GAP), top + 3 * LINE))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, "PNG")
    return len(chosen)


def worst_pairs(columns: Columns, duplicates: Duplicates, *, at_most: int) -> list[Pair]:
    """The worst pairs, from worst to merely alike; of every kind an equal share, and more where others have fewer."""
    kinds: dict[str, list[Pair]] = {}
    for pair in [*_identical(columns, duplicates), *_near(columns, duplicates)]:
        kinds.setdefault(pair.kind, []).append(pair)
    by_kind = list(kinds.values())
    taken = [pair for turn in range(at_most) for pairs in by_kind for pair in pairs[turn : turn + 1]][:at_most]
    return sorted(taken, key=lambda pair: (*(not harm for harm in pair.harm), pair.bits))


def _identical(columns: Columns, duplicates: Duplicates) -> Iterator[Pair]:
    """Of every picture shown more than once, one pair: with two labels, else on two sides, if there is such a one."""
    for rows in duplicates.repeated():
        said = dict.fromkeys(columns.labels[rows])
        opposed = {one for one in said if any(contradict(one, other) for other in said)}
        asked = rows[[label in opposed if opposed else label != "" for label in columns.labels[rows]]]
        first = asked[0] if len(asked) else rows[0]
        others = rows[rows != first]
        contrary = np.array([contradict(columns.labels[first], label) for label in columns.labels[others]], dtype=bool)
        elsewhere = columns.test[others] != columns.test[first]
        second = others[np.lexsort((~elsewhere, ~contrary))[0]]
        yield _pair(columns, first, second, bits=0, identical=True)


def _near(columns: Columns, duplicates: Duplicates) -> Iterator[Pair]:
    """Of every pair of near pictures, nearest first, a pair of images: on two sides, if there is such a one."""
    a_test = duplicates.first_among(columns.test)  # [P] sample ids, -1 where there is none
    a_pool = duplicates.first_among(~columns.test)
    for one, other, bits in duplicates.near[np.argsort(duplicates.near[:, 2], kind="stable")].tolist():
        for first, second in ((a_test[one], a_pool[other]), (a_test[other], a_pool[one])):
            if first >= 0 and second >= 0:
                break
        else:
            first, second = duplicates.first[[one, other]]
        yield _pair(columns, first, second, bits=bits, identical=False)


def _pair(columns: Columns, first: int, second: int, *, bits: int, identical: bool) -> Pair:
    ends = [first, second]
    labels, patients = columns.labels[ends], columns.patients[ends]
    return Pair(
        int(first),
        int(second),
        bits=bits,
        across=bool(columns.test[first] != columns.test[second]),
        labels=contradict(labels[0], labels[1]),
        patients=bool(patients.all() and patients[0] != patients[1]),
        identical=identical,
    )


def _caption(manifest: Manifest, sample: int) -> str:
    name = name_image(manifest, sample)
    split, label = (str(manifest.table.at[sample, column]) for column in ("split", "label"))
    side = f"{split or 'no split'} / {printable(label) or NO_LABEL}"
    room = max(12, LETTERS - len(side))
    return f"{name if len(name) <= room else '...' + name[-room:]} ({side})"


def _picture(pixels: np.ndarray) -> Image.Image:
    """[C, H, W] -> a square picture of ``SIDE``: 8-bit images as they are, others from their darkest to brightest."""
    planes = pixels if len(pixels) == 3 else grey_plane(pixels)[None]
    if pixels.dtype != np.uint8:
        low, high = float(planes.min()), float(planes.max())
        planes = (planes.astype(np.float64) - low) * (255 / (high - low or 1))
    shown = np.moveaxis(planes, 0, -1).astype(np.uint8)  # [H, W, C]
    picture = Image.fromarray(shown if shown.shape[2] == 3 else shown[..., 0])
    picture.thumbnail((SIDE, SIDE))
    square = Image.new("RGB", (SIDE, SIDE), "lightgrey")
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return square
