"""What lies in a folder: its images, its other files, its folders without images; the same list on every machine."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msmae.data.manifest import LeftOut
from msmae.errors import UserError
from msmae.errors import count as count

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".nii", ".nii.gz", *DICOM_SUFFIXES),
)
TABLES = (".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
LEFTOVERS = {
    "__macosx",
    "@eadir",
    "thumbs.db",
    "desktop.ini",
    "dicomdir",
}  # left out without a word, as hidden files are

RESULTS = ({"config.yaml", "environment.json"}, {"masks.json", "masks.png"}, {"metrics.json", "report.html"})
"""Files that a folder of results of msmae holds, each by one verb."""
HEADERS = {
    r"(?:repeat-\d+-)?fold-\d+\.csv": "image_path,label,patient_id,split,",
    r"predictions\.csv": "image_path,",
    r"predictions_patients\.csv": "unit,",
}
"""Tables that msmae writes, and how they begin."""


@dataclass(frozen=True)
class Listing:
    """The files under ``root``, as sorted paths relative to it, with ``/`` between their parts.

    ``images`` are told by suffix, or by the DICOM mark where a name has none; ``others`` are all other files;
    ``empty`` are the folders with no image in or below them; ``loops`` links back to a folder they lie in.
    """

    root: Path
    images: tuple[str, ...]
    others: tuple[str, ...]
    empty: tuple[str, ...]
    loops: tuple[str, ...]
    channel: str = ""
    """The channel of volumes that is meant, where one was told."""
    masks: str = ""
    """The folder that holds the masks, where one was told; ``none``: masks are left out."""
    results: tuple[str, ...] = ()
    """What msmae wrote, files and folders, which are none of the above."""

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        tables = [path for path in self.others if path.lower().endswith(TABLES)]
        others = [path for path in self.others if path not in tables and not path.lower().endswith(SPREADSHEETS)]
        notes: list[str] = [*left_out(len(others), "file", f"no image by name: {some(others)}")]
        notes += left_out(len(tables), "table", f"naming none of the images, or several by one name: {some(tables)}")
        if self.loops:
            notes.append(f"{count(len(self.loops), 'link')} not followed, leading back to where it came from: "
                         f"{some(self.loops)}")  # fmt: skip
        return notes


def list_folder(root: Path) -> Listing:
    """List ``root`` and everything below it, following links, without hidden files and ``LEFTOVERS``.

    What msmae wrote itself is not among the files. Raises ``UserError`` where a folder cannot be read.
    """
    files: list[str] = []
    results: list[str] = []
    folders: list[str] = []
    loops: list[str] = []
    start = os.stat(root)
    unread: list[tuple[str, tuple[tuple[int, int], ...]]]  # a folder, and the identities of itself and of all above it
    unread = [("", ((start.st_dev, start.st_ino),))]
    while unread:
        folder, above = unread.pop()
        entries = _entries(root / folder)
        ours, whole = _results(root / folder, {entry.name for entry in entries})
        if folder and whole:
            results.append(f"{folder}/")
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name in ours:
                results.append(path)
                continue
            if not entry.is_dir():
                files.append(path)
                continue
            status = entry.stat()
            if (status.st_dev, status.st_ino) in above:
                loops.append(path)
            else:
                folders.append(path)
                unread.append((path, (*above, (status.st_dev, status.st_ino))))
    images = sorted(path for path in files if _is_image(root, path))
    holding = {path.rpartition("/")[0] for path in [*images, *results]}
    inhabited = holding | {parent.as_posix() for folder in holding for parent in Path(folder).parents}
    return Listing(
        root=root,
        images=tuple(images),
        others=tuple(sorted(set(files) - set(images))),
        empty=tuple(sorted(set(folders) - inhabited)),
        loops=tuple(sorted(loops)),
        results=tuple(sorted(results)),
    )


def _results(folder: Path, names: set[str]) -> tuple[set[str], bool]:
    """Files of a folder that msmae wrote, and whether all of the folder is its own. ``manifest.csv`` is DATA."""
    repaired = {f"{name.removesuffix('.left-out.csv')}.csv" for name in names if name.endswith(".left-out.csv")}
    ours = {name for name in names if name.endswith(".left-out.csv")} | (repaired & names) - {"manifest.csv"}
    if "audit.json" in names:
        ours |= {"audit.json", "worst_pairs.png"} & names
    for name in names:
        begins = next((begin for form, begin in HEADERS.items() if re.fullmatch(form, name)), "")
        if begins:
            with open(folder / name, "rb") as stream:
                line = stream.readline().decode("utf-8-sig", "replace")
            ours |= {name} if line.startswith(begins) and (begins.count(",") > 1 or ",prob_" in line) else set()
    return ours, any(files <= names for files in RESULTS) or "predictions.csv" in ours


def has_suffix(path: str) -> bool:
    """Whether a file's name says its type: archives export DICOM as IM000001, or by a UID, 1.2.840.113619.2.5."""
    name, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return bool(dot and name) and not suffix.isdigit()


def without_suffix(path: str) -> str:
    """A path without what says its type; further dots are part of the name, as in ``case.1.nii.gz``."""
    suffix = next((ending for ending in (".nii.gz", *IMAGE_SUFFIXES) if path.lower().endswith(ending)), "")
    return path[: len(path) - len(suffix)]


def by_stem(paths: Iterable[str]) -> tuple[dict[str, str], int]:
    """File names without folder and suffix -> paths, the first of each name; and how many further ones there are."""
    stems: dict[str, str] = {}
    copies = 0
    for path in paths:
        stem = path.rpartition("/")[2].partition(".")[0]
        copies += stem in stems
        stems.setdefault(stem, path)
    return stems, copies


def left_out(number: int, thing: str, why: str) -> list[LeftOut]:
    """``["3 images left out, why"]``, or nothing where nothing was left out."""
    return [LeftOut.of(f"{count(number, thing)} left out, {why}", number=number, why=why)] if number else []


def some(names: tuple[str, ...] | list[str], *, at_most: int = 5) -> str:
    """The first few of ``names``, and how many more there are."""
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def all_or_file(names: Sequence[str], *, at_most: int = 20, separator: str = ", ") -> str:
    """All of ``names``; where there are too many to be read, the first of them and a file of all."""
    if len(names) <= at_most:
        return separator.join(names)
    handle, listing = tempfile.mkstemp(prefix="msmae-", suffix=".txt")
    with open(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.writelines(f"{name}\n" for name in names)
    more = f"and {len(names) - at_most:,} more, all of them named in {listing}"
    return separator.join([*names[:at_most], more])


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith((".", "~$"))]
    except PermissionError as error:
        raise UserError(
            "this folder may not be read", where=str(folder), mend="ask for the right to read it"
        ) from error
    return [entry for entry in found if entry.name.lower() not in LEFTOVERS]


def _is_image(root: Path, path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    if name.endswith(IMAGE_SUFFIXES):
        return True
    if has_suffix(name):
        return False
    try:
        with open(root / path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
