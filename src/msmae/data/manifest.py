"""The one table every stage works from: one row per image, with its label, patient, split, mask and site.

All cells are text, and the empty text means *not known*. A row's number is its sample id: the store, the map bank and
the predictions all speak of images by it.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from msmae.errors import UserError, visible
from msmae.files import whole
from msmae.records import check_recorded, recorded

COLUMNS = ("image_path", "label", "patient_id", "split", "mask_path", "site")
SPLITS = ("train", "val", "test")
AS_GIVEN = "as_given"  # a column of a run's manifest: the path of an image before it was written from there
SEPARATOR = ";"  # between the labels of a multi-label image, and between its masks
WRITTEN = ("label", "patient_id", "split", "site")
WORDS_FOR_NOTHING = {"nan", "na", "n/a", "<na>", "null", "nat", "#n/a", "none", "?"}
"""What tables of other programs write for an empty cell; where a class is called so, a manifest says that it means it
(a column ``as_written``)."""
NO_FINDING = SEPARATOR  # the label of a multi-label image that was examined and shows none of the classes


UNSURE = "?"
"""What a piece of a multi-label image's label begins with where it is not known whether the image has that class:
``Edema;?Mass``."""


class LeftOut(str):
    """A note on what was not used: ``number`` things, and ``why``."""

    number: int
    why: str

    @classmethod
    def of(cls, sentence: str, *, number: int, why: str) -> LeftOut:
        note = cls(sentence)
        note.number, note.why = number, why
        return note


@dataclass(frozen=True, eq=False)
class Manifest:
    """A data set as a table of images; build it with :meth:`from_table`, which completes and checks the columns.

    ``table``
        Index 0..n-1 = sample id. Every column of ``COLUMNS`` is there, any further column is kept; every cell is
        ``str`` (dtype object, because a file name need not be valid UTF-8), ``""`` where nothing is known.
    ``root``
        ``image_path`` and ``mask_path`` are relative to it unless absolute. An image inside a container is named
        ``file.npz#train/17`` (array ``train_images``, row 17); a slice or frame of a volume has the further columns
        ``axis``, ``index`` or ``frame``. Several masks of one image are joined by ``;``; where classes may overlap,
        each names its own: ``disc=1_disc.png;cup=1_cup.png``.
    ``layout``
        How the data was recognised: ``folder``, ``csv``, ``medmnist``, ``ham10000``, ...
    ``notes``
        Sentences a person should read: what was recognised, guessed, left out or cut.
    ``source``
        The table that names the images; ``""``: a folder does, ``root``.
    ``rules``
        Column -> in a few words what filled it (``patient_id``: "the PatientID of the DICOM headers"); ``layout`` ->
        why it was recognised; ``cut`` -> the splits that the data did not name.
    ``order``
        The classes in their order, where one was given.
    """

    table: pd.DataFrame
    root: Path
    layout: str
    notes: tuple[str, ...] = ()
    source: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        *,
        root: Path,
        layout: str,
        notes: Iterable[str] = (),
        source: str = "",
        rules: Mapping[str, str] | None = None,
        order: tuple[str, ...] = (),
    ) -> Manifest:
        """Complete ``table`` (missing columns, missing values, the index) into a manifest.

        Raises ``UserError`` for an empty table, an empty ``image_path`` or an unknown split name.
        """
        cells = table.astype(object)
        cells = cells.where(cells.notna(), "").map(str)
        for column in COLUMNS:
            if column not in cells:
                cells[column] = ""
        further = [column for column in cells if column not in COLUMNS]
        cells = cells[[*COLUMNS, *further]].astype(object).reset_index(drop=True)
        for column in ("label", "patient_id", "site"):
            cells[column] = [shown(plain(cell)) for cell in cells[column]]
        _check_rows(cells, where=source or str(root))
        return cls(cells, Path(root), layout, tuple(notes), source, dict(rules or {}), order)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def where(self) -> str:
        """What a person looks into when something is wrong with the data: the table, else the folder."""
        return self.source or str(self.root)

    @cached_property
    def multilabel(self) -> bool:
        """Whether images may carry several labels (``a;b``)."""
        return any(SEPARATOR in label for label in self.table["label"])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class names: in the order given, or numbers in numerical order, then the others in natural order (``2 -
        mild`` before ``10 - severe``)."""
        labels = set(self.table["label"])
        if self.multilabel:
            labels = {piece for label in labels for piece in label.split(SEPARATOR) if not piece.startswith(UNSURE)}
        given = tuple(name for name in self.order if name in labels)
        return (*given, *sorted(labels - {"", *given}, key=_class_order))

    @property
    def left_out(self) -> list[LeftOut]:
        """The notes on what was not used."""
        return [note for note in self.notes if isinstance(note, LeftOut)]

    def targets(self) -> np.ndarray:
        """The labels as numbers.

        int64 ``[n]`` with the class's place in ``classes`` and -1 for an image without label; for multi-label data
        float32 ``[n, C]`` of 0 and 1, with nan for what is not known: the row of an image without label, or a piece
        of a label with ``?`` before it, unless the image has the class too.
        """
        place = {name: number for number, name in enumerate(self.classes)}
        labels = self.table["label"]
        if not self.multilabel:
            return np.array([place.get(label, -1) for label in labels], dtype=np.int64)
        targets = np.zeros((len(self), len(place)), dtype=np.float32)
        for row, label in enumerate(labels):
            if label == "":
                targets[row] = np.nan
            for piece in sorted(filter(None, label.split(SEPARATOR)), key=lambda piece: not piece.startswith(UNSURE)):
                if not piece.startswith(UNSURE):
                    targets[row, place[piece]] = 1
                elif piece[1:] in place:
                    targets[row, place[piece[1:]]] = np.nan
        return targets

    def path(self, sample: int) -> Path:
        """Where the image with this sample id is."""
        return self.root / str(self.table.at[sample, "image_path"])

    @property
    def names(self) -> pd.Series:
        """What predictions and reports call the images: their paths as the data gave them, if these tell them apart."""
        paths = self.table["image_path"]
        given = self.table.get(AS_GIVEN, paths)
        return given if given.all() and given.nunique() == paths.nunique() else paths

    @cached_property
    def mask_classes(self) -> tuple[str, ...]:
        """The classes that masks are named with, in alphabetical order; empty where they are named with none."""
        cells = set(self.table["mask_path"])
        return tuple(sorted({split_mask(mask)[0] for cell in cells for mask in cell.split(SEPARATOR)} - {""}))

    def masks(self, sample: int) -> list[tuple[str, Path]]:
        """The class and the file of each of this image's masks; the class is ``""`` where none is named."""
        pieces = [split_mask(mask) for mask in str(self.table.at[sample, "mask_path"]).split(SEPARATOR)]
        return [(name, self.root / path) for name, path in pieces if path]

    def mask_paths(self, sample: int) -> list[Path]:
        """Where this image's lesion masks are; an empty list where it has none."""
        return [path for _, path in self.masks(sample)]

    def ids(self, split: str) -> np.ndarray:
        """The sample ids of ``train``, ``val`` or ``test``: int64, ascending."""
        if split not in SPLITS:
            raise UserError(f"there is no split '{split}'", mend=f"use one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.table["split"].to_numpy() == split).astype(np.int64)

    def select(self, samples: Sequence[int] | np.ndarray) -> Manifest:
        """Only these images, in this order, numbered anew from 0."""
        return self._with(self.table.iloc[np.asarray(samples, dtype=np.int64)])

    def with_splits(
        self, splits: Sequence[str] | np.ndarray, *, notes: Iterable[str] = (), rules: Mapping[str, str] | None = None
    ) -> Manifest:
        """The same images with these splits ``[n]``; ``notes`` and ``rules`` are added to those there are."""
        return self.with_columns({"split": splits}, notes=notes, rules=rules)

    def with_columns(
        self,
        columns: Mapping[str, Sequence[str] | np.ndarray],
        *,
        notes: Iterable[str] = (),
        rules: Mapping[str, str] | None = None,
    ) -> Manifest:
        """The same images with these columns set or added, each ``[n]``; ``notes`` and ``rules`` are added to those
        there are."""
        table = self.table.copy()
        for name, values in columns.items():
            table[name] = pd.Series(list(values), index=table.index, dtype=object)
        return self._with(table, notes=notes, rules=rules)

    def with_table(
        self, table: pd.DataFrame, *, notes: Iterable[str] = (), rules: Mapping[str, str] | None = None
    ) -> Manifest:
        """Other rows of the same data set; ``notes`` and ``rules`` are added to those there are."""
        return self._with(table, notes=notes, rules=rules)

    def with_order(self, order: Sequence[str]) -> Manifest:
        """The same images, their classes in this order; those it does not name come after. Raises ``UserError`` for a
        name that is no class."""
        order = tuple(plain(name) for name in order)
        unknown = [name for name in order if name not in self.classes]
        if unknown:
            raise UserError(
                f"there is no class {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, self.classes))}",
                where=self.where,
                mend="name the classes as they are written",
            )
        return self._with(self.table, order=order)

    def _with(
        self,
        table: pd.DataFrame,
        *,
        notes: Iterable[str] = (),
        rules: Mapping[str, str] | None = None,
        order: tuple[str, ...] | None = None,
    ) -> Manifest:
        return Manifest.from_table(
            table,
            root=self.root,
            layout=self.layout,
            notes=(*self.notes, *notes),
            source=self.source,
            rules={**self.rules, **(rules or {})},
            order=self.order if order is None else order,
        )

    def with_notes_first(self, *notes: str) -> Manifest:
        """The same images with ``notes`` before those there are."""
        return replace(self, notes=(*notes, *self.notes))

    def write(self, csv_path: str | Path, *, record: bool = False) -> None:
        """Write the table as a CSV that :func:`read_manifest` and any ``DATA`` argument accept.

        Paths are written relative to the CSV's own folder where the data lies in or under it, otherwise absolute, so
        the file means the same images wherever it is read on this machine. The file appears whole or not at all; with
        ``record`` its folder keeps its check sum, which :func:`read_manifest` compares, and where paths are written
        otherwise than they were given, the column ``as_given`` says how.
        """
        target = Path(csv_path)
        prefix = _prefix(self.root, seen_from=target.parent)
        table = self.table.copy()
        if any(cell.lower() in WORDS_FOR_NOTHING for column in WRITTEN for cell in table[column]) or any(
            sign in label for label in table["label"] for sign in "|,+"
        ):
            table["as_written"] = "yes"
        if prefix != ".":
            if record and AS_GIVEN not in table:
                table[AS_GIVEN] = table["image_path"]
            table["image_path"] = [os.path.join(prefix, image) for image in table["image_path"]]
            table["mask_path"] = [_prefix_each(masks, prefix) for masks in table["mask_path"]]
        target.parent.mkdir(parents=True, exist_ok=True)
        with (recorded if record else whole)(target) as unfinished:
            write_rows(unfinished, [list(table.columns), *table.to_numpy().tolist()])


def shown(cell: str) -> str:
    """A label or name without the characters that a terminal obeys: they, and ends of lines, are written out."""
    return visible(cell).replace("\n", "\\n") if not cell.isprintable() else cell


def read_manifest(csv_path: str | Path) -> Manifest:
    """Read back what :meth:`Manifest.write` wrote: the same cells, with the CSV's folder as ``root``.

    It trusts the file: a CSV made by others goes through ``open_dataset``, which checks that the images are there.
    """
    source = Path(csv_path)
    if not source.is_file():
        raise UserError("there is no such manifest", where=str(source), mend="check the path")
    check_recorded(source)
    with source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header, *rows = [row for row in csv.reader(stream) if row] or [[]]
    if "image_path" not in header:
        raise UserError("this CSV has no column image_path", where=str(source), mend=f"it has {header}")
    table = pd.DataFrame(rows, columns=header, dtype=object).drop(columns="as_written", errors="ignore")
    return Manifest.from_table(table, root=source.parent, layout="csv")


def write_rows(target: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write ``rows`` of text as comma-separated UTF-8; bytes of a file name that are not UTF-8 are kept as they are."""
    returns = any("\r" in cell for row in rows for cell in row)  # Python < 3.13 leaves a lone \r unquoted
    with target.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
        writer.writerows(rows)


def split_mask(piece: str) -> tuple[str, str]:
    """``disc=masks/1.png`` -> class and path; no class where a folder comes before the ``=``, as in ``./a=1.png``."""
    name, mark, path = piece.partition("=")
    return (name.strip(), path) if mark and "/" not in name and "\\" not in name else ("", piece)


def join_mask(name: str, path: str) -> str:
    """The reverse of :func:`split_mask`."""
    return f"{name}={path}" if name else path


def plain(name: str) -> str:
    """A name in one Unicode form (NFC), so that two that look alike are alike."""
    return unicodedata.normalize("NFC", name)


def printable(text: str) -> str:
    """``text`` without what a terminal obeys, and without the lone surrogates that stand for bytes of a file name that
    is not UTF-8."""
    return visible(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _check_rows(cells: pd.DataFrame, *, where: str) -> None:
    if cells.empty:
        raise UserError("the data set holds no images", where=where, mend="check the path")
    nameless = np.flatnonzero(cells["image_path"].to_numpy() == "")
    if len(nameless):
        raise UserError(
            f"{len(nameless)} rows name no image, the first is row {nameless[0] + 1}",
            where=where,
            mend="fill in the image path of every row",
        )
    unknown = sorted(set(cells["split"]) - {*SPLITS, ""})
    if unknown:
        raise UserError(
            f"unknown split names: {', '.join(map(repr, unknown))}",
            where=where,
            mend=f"use {', '.join(SPLITS)}, or leave the cell empty",
        )


def _class_order(name: str) -> tuple[bool, float, list[tuple[str, int]], str]:
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?", name, re.ASCII)
    pieces = re.split(r"(\d{1,18})", name)  # text, number, text, ...
    natural = [(text, int(digits or 0)) for text, digits in zip(pieces[::2], [*pieces[1::2], "0"], strict=True)]
    return (number is None, float(name) if number else 0.0, natural, name)


def _prefix(root: Path, *, seen_from: Path) -> str:
    """What goes before a path under ``root`` so that it holds in the folder ``seen_from``: relative, else absolute."""
    root, folder = Path(os.path.abspath(root)), Path(os.path.abspath(seen_from))
    return (root.relative_to(folder) if root.is_relative_to(folder) else root).as_posix()


def _prefix_each(masks: str, prefix: str) -> str:
    pieces = [split_mask(mask) for mask in masks.split(SEPARATOR)]
    return SEPARATOR.join(join_mask(name, os.path.join(prefix, path)) for name, path in pieces if path)
