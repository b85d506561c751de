"""What an encoder has learned from, and a stop where a segmenter would be tested on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msmae.config import Settings
from msmae.data.audit import take_fingerprints
from msmae.data.manifest import Manifest, read_manifest
from msmae.errors import LeakageError
from msmae.progress import ProgressBar
from msmae.runs.folder import read_run
from msmae.training.prepare import cache_folder, reading_of
from msmae.training.source import Source, find_source

UNKNOWN = "whether test images were among what the encoder learned from is not known: {}"


@dataclass(frozen=True)
class Origin:
    """The runs that an encoder has learned in, the last first, and in words where its history is lost."""

    runs: tuple[Path, ...]
    lost: tuple[str, ...]


def origin_of(source: Source) -> Origin:
    """Follow an encoder back through the runs whose weights each run began with (``--from``, ``--init``)."""
    runs: list[Path] = []
    lost: list[str] = []
    here: Source | None = source
    while here is not None and (here.model or here.file):
        if here.run is None:
            lost.append(f"{here.model or here.file} does not lie in a run's folder")
            break
        if here.run in runs:
            break
        runs.append(here.run)
        config, _ = read_run(here.run)
        began = config.get("from") or config.get("init") or "none"
        there = began != "none" and Path(began).exists()
        if began != "none" and not there:
            lost.append(f"{here.run.name} began with {began}, which is not there")
        here = find_source(began) if there else None
    return Origin(tuple(runs), tuple(lost))


def refuse_leakage(manifest: Manifest, source: Source, settings: Settings, *, allow: bool) -> dict[str, Any]:
    """Stop where test images, or test patients, are among those that the encoder has learned from, in any run.

    Pictures are compared by their decoded pixels. Patients' names are compared where the two data sets share pictures
    or a folder: in unrelated data the same name is another person.

    Returns what audit.json says of it: the test images ``test_in_encoder_pool``, and ``notes``.

    Raises:
        LeakageError: there are such images, and ``allow`` is False.
    """
    origin = origin_of(source)
    test = (manifest.table["split"] == "test").to_numpy()
    identical, known = np.zeros(len(manifest), dtype=bool), np.zeros(len(manifest), dtype=bool)
    mine = digests_of(manifest, settings) if origin.runs else np.array([], dtype=object)
    for run in origin.runs:
        learned = read_manifest(run / "manifest.csv")
        theirs = digests_of(learned, read_run(run)[1])
        pool = (learned.table["split"] != "test").to_numpy()
        seen = set(theirs[pool]) - {b""}
        identical |= test & np.array([digest in seen for digest in mine])
        related = bool((set(mine) & set(theirs)) - {b""}) or bool(folders_of(manifest) & folders_of(learned))
        patients = set(learned.table["patient_id"][pool]) - {""} if related else set()
        known |= test & manifest.table["patient_id"].isin(patients).to_numpy()
    notes = [UNKNOWN.format(why) for why in origin.lost]
    for note in notes:
        print(f"- {note}")
    leaking = int((identical | known).sum())
    if leaking:
        what = (
            f"{leaking} of {test.sum()} test images ({identical.sum()} by their pixels, {known.sum()} by their "
            "patient) are among those the encoder was trained on"
        )
        if not allow:
            raise LeakageError(
                what,
                where=str(origin.runs[0]),
                mend=f"use its own split, {origin.runs[0] / 'manifest.csv'}, as DATA, or add --allow-leakage",
            )
        print(f"- {what}: the test figures cannot be trusted (--allow-leakage)")
    return {"test_in_encoder_pool": leaking, "notes": notes}


def folders_of(manifest: Manifest) -> set[Path]:
    """The folders that the images of a data set lie in; of a link, the folder of what it leads to."""
    files = [manifest.path(i) for i in range(len(manifest))]
    folders = {(file.resolve() if file.is_symlink() else file).parent for file in files}
    return {folder.resolve() for folder in folders}


def digests_of(manifest: Manifest, settings: Settings) -> np.ndarray:
    """What names each image's decoded pixels, bytes [n]; empty where it cannot be read."""
    prints = take_fingerprints(
        manifest,
        reading=reading_of(settings),
        cache=cache_folder() / "audits",
        progress=ProgressBar("comparing images"),
    )
    names = [row.tobytes() if fine else b"" for row, fine in zip(prints.record["digest"], prints.readable, strict=True)]
    return np.array(names, dtype=object)
